"""The detectors kept on disk, and which of them serves: a folder of whole bundles and one link.

::

    bundle            → bundle.models/3f2a91c04d7e     the champion; the link moves in one step
    bundle.models/
    ├── 3f2a91c04d7e/   a whole bundle, never changed, named after its fingerprint
    ├── 81be02d97a55/
    └── models.json     which is champion, which challenger, and every promotion with its reason

A reader follows the link once and then has one whole bundle, whatever is promoted meanwhile. Every step is either
done or not: a process killed at any point leaves a champion that serves, and `ModelRegistry.recover` finishes or undoes
the rest.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from detector.atomic import exchange
from detector.errors import BundleError
from detector.persist import bundle
from pipelines.registry.models_file import STATE, Promotion, RegistryState, StoredModel
from pipelines.testing.failpoints import failpoint

LOCK = "shelf"
"""The name that earlier versions lock, too."""

OnPromotion = Callable[[Promotion], object]


class ModelRegistry:
    """The detectors of one configuration.

    - ``place``: ``config.bundle``: where scoring reads.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = place.with_name(f"{place.name}.models")

    @property
    def managed(self) -> bool:
        """Whether there is a registry yet; plain ``detector train`` needs none."""
        return (self.folder / STATE).exists()

    def state(self) -> RegistryState:
        """What the registry holds.

        Raises ``BundleError`` if the list is damaged.
        """
        path = self.folder / STATE
        if not path.exists():
            return RegistryState()
        try:
            return RegistryState.read(path)
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{path} is damaged: {error!r}. The champion in {self.place} still serves. Move {self.folder} away; "
                f"the next retraining makes a new one."
            ) from error

    def serving(self) -> Path:
        """The folder of the bundle that serves now, as one place that does not move."""
        return Path(os.path.realpath(self.place))

    def served(self) -> str:
        """The name of the detector that serves now, whoever put it there; "" if there is none."""
        return bundle.fingerprint(self.place) if self.place.exists() else ""

    def path_of(self, name: str) -> Path:
        """The folder of a detector's bundle."""
        return self.folder / name

    @contextmanager
    def locked(self, what: str = LOCK, *, wait: bool = True) -> Iterator[None]:
        """Be the only one who changes the registry, or who trains for it; readers do not wait.

        - ``what``: ``LOCK`` is held for moments, "training" for as long as one takes.

        Raises ``BundleError`` if another process holds it and ``wait`` is false.
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

    def adopt(self, *, now: datetime, notify: OnPromotion = lambda _: None) -> RegistryState:
        """Recover, then bring the bundle that ``detector train`` wrote into the registry and put a link in its place.

        - ``now``: the time of the promotion, if the bundle does not know when it was made.
        - ``notify``: called with a promotion that a killed process had made and not notified of.

        Raises ``BundleError`` if what is there is no bundle.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.recover(notify)
        state = self.state()
        if not self.place.exists() or self.place.is_symlink():
            return state
        name = bundle.fingerprint(self.place)
        if not self.path_of(name).exists():
            building = Path(tempfile.mkdtemp(prefix=".adopted-", dir=self.folder))
            shutil.copytree(self.place, building, dirs_exist_ok=True)
            failpoint("adopt.copied")
            building.chmod(0o755)
            building.replace(self.path_of(name))
        if name not in state.names:
            facts = listed(bundle.load(self.path_of(name)).metrics)
            made = facts.pop("made_at", now.isoformat())
            model = StoredModel(name, str(made), facts, "trained by hand")
            state = replace(state, models=(*state.models, model))
        self._write(replace(state, champion=name))
        failpoint("adopt.listed")
        self._link(name)
        return self.state()

    def add(self, scorer: bundle.Scorer, *, facts: dict[str, Any], now: datetime) -> str:
        """Keep a new detector, as the challenger.

        Returns its name.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            saved = bundle.save(scorer, building / "bundle")
            failpoint("retrain.saved")
            name = bundle.fingerprint(saved)
            if not self.path_of(name).exists():
                saved.replace(self.path_of(name))
        finally:
            shutil.rmtree(building, ignore_errors=True)
        failpoint("retrain.placed")
        state = self.state()
        models = (*state.without([name]), StoredModel(name, now.isoformat(), listed(facts)))
        self._write(replace(state, challenger=name, models=models))
        return name

    def put(self, scorer: bundle.Scorer, *, now: datetime) -> None:
        """Let a detector that a person trained serve; without a registry, it is the one bundle there is.

        Raises ``BundleError`` if the place holds something that is no bundle.
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
        left = name if challenger else (None if state.challenger == name else state.challenger)
        self._write(replace(state, models=state.decided(name, decision), challenger=left))

    def promote(self, name: str, *, why: str, now: datetime, notify: OnPromotion = lambda _: None) -> Promotion:
        """Let a detector serve, from one moment to the next.

        - ``name``: the detector, or the beginning of its name.
        - ``why``: one sentence, stored with the promotion.
        - ``notify``: called with the promotion once it is made; if the process is killed before, by `recover`.

        Raises ``SettingError`` if there is none of that name; ``BundleError`` if its bundle is damaged; the champion
        stays.
        """
        state = self.state()
        found = state.find(name)
        bundle.load(self.path_of(found.name))
        promotion = Promotion(now.isoformat(), found.name, state.champion, why)
        self._write(replace(state, begun=promotion))
        failpoint("promote.begun")
        self._link(found.name)
        failpoint("promote.linked")
        notify(promotion)
        failpoint("promote.notified")
        self._finish(promotion)
        return promotion

    def recover(self, notify: OnPromotion = lambda _: None) -> None:
        """Finish or undo what a killed process had begun, and sweep up after it."""
        state = self.state()
        if state.begun is not None:
            if self.serving() == self.path_of(state.begun.to).resolve():
                notify(state.begun)
                self._finish(state.begun)
            else:
                self._write(replace(state, begun=None))
        for pattern in (".new-*", ".adopted-*"):
            for left in self.folder.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)
        for left in self.place.parent.glob(f".{self.place.name}-link-*"):
            shutil.rmtree(left, ignore_errors=True)

    def prune(self, keep: int) -> list[str]:
        """Remove the oldest detectors beyond ``keep``; never the champion, the challenger or the one before."""
        state = self.state()
        needed = {state.champion, state.challenger, state.before_champion()}
        spare = [name for name in state.names if name not in needed]
        gone = spare[: max(0, len(state.models) - keep)]
        if gone:
            self._write(replace(state, models=state.without(gone)))
            for name in gone:
                shutil.rmtree(self.path_of(name), ignore_errors=True)
        return gone

    def _finish(self, promotion: Promotion) -> None:
        state = self.state()
        self._write(
            RegistryState(
                champion=promotion.to,
                challenger=None if state.challenger == promotion.to else state.challenger,
                models=state.decided(promotion.to, f"promoted: {promotion.why}"),
                promotions=(*state.promotions, promotion),
            )
        )

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

    def _write(self, state: RegistryState) -> None:
        state.write(self.folder / STATE)


def listed(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that fit in a list: plain values."""
    return {name: value for name, value in facts.items() if isinstance(value, str | int | float | bool)}
