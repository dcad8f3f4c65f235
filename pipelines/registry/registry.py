"""The detectors kept on disk, and which of them serves: a folder of whole bundles and one link.

::

    bundle            → bundle.models/3f2a91c04d7e     the champion; the link moves in one step
    bundle.models/
    ├── 3f2a91c04d7e/   a whole bundle, never changed, named after its fingerprint
    ├── 81be02d97a55/
    └── models.json     which is champion, which challenger, and every move with its reason

A reader follows the link once and then has one whole bundle, whatever is promoted meanwhile. Every step is either
done or not: a process killed at any point leaves a champion that serves, and `Shelf.mend` finishes or undoes the rest.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from detector.atomic import exchange, write_whole
from detector.errors import BundleError, SettingError, nearest
from detector.persist import bundle
from pipelines.testing.failpoints import fault

STATE = "models.json"


@dataclass(frozen=True)
class Kept:
    """One detector on the shelf.

    Parameters
    ----------
    name : str
        The fingerprint of its bundle; what stands beside each score as ``model_version``.
    made_at : str
        When it was trained, in ISO 8601.
    facts : dict
        What a list shows: rows, data window, figures of merit.
    decision : str
        What was decided about it last, and why.
    """

    name: str
    made_at: str
    facts: dict[str, Any] = field(default_factory=dict)
    decision: str = ""


@dataclass(frozen=True)
class Move:
    """A change of champion: when, from which, to which, and why."""

    at: str
    to: str
    before: str | None
    why: str


Tell = Callable[[Move], object]


@dataclass(frozen=True)
class State:
    """What ``models.json`` says.

    Parameters
    ----------
    champion, challenger : str or None
        Names.
    kept : tuple of Kept
        Oldest first.
    moves : tuple of Move
        Oldest first.
    moving : Move or None
        A change that was begun; None once it is done.
    """

    champion: str | None = None
    challenger: str | None = None
    kept: tuple[Kept, ...] = ()
    moves: tuple[Move, ...] = ()
    moving: Move | None = None

    def find(self, name: str) -> Kept:
        """The detector of a name, or of the beginning of one.

        Raises
        ------
        SettingError
            If there is none, or more than one.
        """
        found = [kept for kept in self.kept if kept.name.startswith(name)] if name else []
        if len(found) != 1:
            names = [kept.name for kept in self.kept]
            raise SettingError(f"No one detector is called {name!r}. {nearest(name, names)}")
        return found[0]

    def before_champion(self) -> str | None:
        """The one that served before the champion and is still there."""
        there = {kept.name for kept in self.kept}
        for move in reversed(self.moves):
            if move.to == self.champion and move.before in there:
                return move.before
        return None


class Shelf:
    """The detectors of one configuration.

    Parameters
    ----------
    place : Path
        ``config.bundle``: where scoring reads.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = place.with_name(f"{place.name}.models")

    @property
    def managed(self) -> bool:
        """Whether there is a shelf yet; plain ``detector train`` needs none."""
        return (self.folder / STATE).exists()

    def state(self) -> State:
        """What is on the shelf.

        Raises
        ------
        BundleError
            If the list is damaged.
        """
        path = self.folder / STATE
        if not path.exists():
            return State()
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return State(
                champion=values["champion"],
                challenger=values["challenger"],
                kept=tuple(Kept(**each) for each in values["kept"]),
                moves=tuple(Move(**each) for each in values["moves"]),
                moving=Move(**values["moving"]) if values["moving"] else None,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{path} is damaged: {error!r}. The champion in {self.place} still serves. Move {self.folder} away; "
                f"the next retraining makes a new one."
            ) from error

    def serving(self) -> Path:
        """The folder of the bundle that serves now, as one place that does not move."""
        return Path(os.path.realpath(self.place))

    def path_of(self, name: str) -> Path:
        """The folder of a detector's bundle."""
        return self.folder / name

    @contextmanager
    def locked(self, what: str = "shelf", *, wait: bool = True) -> Iterator[None]:
        """Be the only one who changes the shelf, or who trains for it; readers do not wait.

        Parameters
        ----------
        what : str
            "shelf" is held for moments, "training" for as long as one takes.
        wait : bool
            Whether to wait for another process.

        Raises
        ------
        BundleError
            If another process holds it and ``wait`` is false.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".{what}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise BundleError(
                    f"Another process holds the {what} of {self.place}. Wait until it has ended, or end it."
                ) from None
            yield

    def adopt(self, *, now: datetime, tell: Tell = lambda _: None) -> State:
        """Mend, then bring the bundle that ``detector train`` wrote onto the shelf and put a link in its place.

        Parameters
        ----------
        now : datetime
            The time of the move, if the bundle does not know when it was made.
        tell : callable
            Told of a move that a killed process had made and could not tell of.

        Raises
        ------
        BundleError
            If what is there is no bundle.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mend(tell)
        state = self.state()
        if not self.place.exists() or self.place.is_symlink():
            return state
        name = bundle.fingerprint(self.place)
        if not self.path_of(name).exists():
            building = Path(tempfile.mkdtemp(prefix=".adopted-", dir=self.folder))
            shutil.copytree(self.place, building, dirs_exist_ok=True)
            fault("adopt.copied")
            building.chmod(0o755)
            building.replace(self.path_of(name))
        if all(kept.name != name for kept in state.kept):
            facts = listed(bundle.load(self.path_of(name)).metrics)
            made = facts.pop("made_at", now.isoformat())
            state = replace(state, kept=(*state.kept, Kept(name, str(made), facts, "trained by hand")))
        self._write(replace(state, champion=name))
        fault("adopt.listed")
        self._link(name)
        return self.state()

    def add(self, scorer: bundle.Scorer, *, facts: dict[str, Any], now: datetime) -> str:
        """Keep a new detector, as the challenger.

        Returns
        -------
        str
            Its name.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            saved = bundle.save(scorer, building / "bundle")
            fault("retrain.saved")
            name = bundle.fingerprint(saved)
            if not self.path_of(name).exists():
                saved.replace(self.path_of(name))
        finally:
            shutil.rmtree(building, ignore_errors=True)
        fault("retrain.placed")
        state = self.state()
        kept = (*(each for each in state.kept if each.name != name), Kept(name, now.isoformat(), listed(facts)))
        self._write(replace(state, challenger=name, kept=kept))
        return name

    def put(self, scorer: bundle.Scorer, *, now: datetime) -> None:
        """Let a detector that a person trained serve; without a shelf, it is the one bundle there is.

        Raises
        ------
        BundleError
            If the place holds something that is no bundle.
        """
        if not self.managed:
            bundle.save(scorer, self.place)
            return
        with self.locked():
            self.adopt(now=now)
            name = self.add(scorer, facts=dict(scorer.metrics), now=now)
            self.promote(name, why="Trained by hand.", now=now)

    def note(self, name: str, decision: str, *, challenger: bool) -> None:
        """Write down what was decided about a detector, and whether it stays the challenger."""
        state = self.state()
        kept = tuple(replace(each, decision=decision) if each.name == name else each for each in state.kept)
        left = name if challenger else (None if state.challenger == name else state.challenger)
        self._write(replace(state, kept=kept, challenger=left))

    def promote(self, name: str, *, why: str, now: datetime, tell: Tell = lambda _: None) -> Move:
        """Let a detector serve, from one moment to the next.

        Parameters
        ----------
        name : str
            The detector, or the beginning of its name.
        why : str
            One sentence, kept with the move.
        now : datetime
            When.
        tell : callable
            Told of the move once it is made. If the process is killed before, `mend` tells.

        Raises
        ------
        SettingError
            If there is none of that name.
        BundleError
            If its bundle is damaged; the champion stays.
        """
        state = self.state()
        found = state.find(name)
        bundle.load(self.path_of(found.name))
        move = Move(now.isoformat(), found.name, state.champion, why)
        self._write(replace(state, moving=move))
        fault("promote.begun")
        self._link(found.name)
        fault("promote.linked")
        tell(move)
        fault("promote.told")
        self._finish(move)
        return move

    def mend(self, tell: Tell = lambda _: None) -> None:
        """Finish or undo what a killed process had begun, and sweep up after it."""
        state = self.state()
        if state.moving is not None:
            if self.serving() == self.path_of(state.moving.to).resolve():
                tell(state.moving)
                self._finish(state.moving)
            else:
                self._write(replace(state, moving=None))
        for pattern in (".new-*", ".adopted-*"):
            for left in self.folder.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)
        for left in self.place.parent.glob(f".{self.place.name}-link-*"):
            shutil.rmtree(left, ignore_errors=True)

    def prune(self, keep: int) -> list[str]:
        """Remove the oldest detectors beyond ``keep``; never the champion, the challenger or the one before."""
        state = self.state()
        needed = {state.champion, state.challenger, state.before_champion()}
        spare = [kept.name for kept in state.kept if kept.name not in needed]
        gone = spare[: max(0, len(state.kept) - keep)]
        if gone:
            self._write(replace(state, kept=tuple(kept for kept in state.kept if kept.name not in gone)))
            for name in gone:
                shutil.rmtree(self.path_of(name), ignore_errors=True)
        return gone

    def _finish(self, move: Move) -> None:
        state = self.state()
        kept = tuple(
            replace(each, decision=f"promoted: {move.why}") if each.name == move.to else each for each in state.kept
        )
        challenger = None if state.challenger == move.to else state.challenger
        done = (*state.moves, move)
        self._write(State(champion=move.to, challenger=challenger, kept=kept, moves=done, moving=None))

    def _link(self, name: str) -> None:
        """Let the place point to a bundle. A folder that is there changes places with the link in one step."""
        building = Path(tempfile.mkdtemp(prefix=f".{self.place.name}-link-", dir=self.place.parent))
        link = building / "link"
        link.symlink_to(Path(self.folder.name) / name)
        # The link is relative to where it will stand, so it is moved before it is followed.
        try:
            if self.place.is_dir() and not self.place.is_symlink():
                exchange(link, self.place)
            else:
                link.replace(self.place)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _write(self, state: State) -> None:
        write_whole(self.folder / STATE, json.dumps(asdict(state), indent=2, ensure_ascii=False))


def listed(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that fit in a list: plain values."""
    return {name: value for name, value in facts.items() if isinstance(value, str | int | float | bool)}
