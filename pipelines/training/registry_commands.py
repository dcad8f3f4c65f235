"""The detectors on disk, for people: a list, a comparison, a promotion, a way back."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from detector.errors import DataError, SettingError
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.data import recent, split
from pipelines.factory.detector import policy_of
from pipelines.progress import progress
from pipelines.registry.promotion import decide, note_of
from pipelines.registry.registry import Kept, Move, Shelf
from pipelines.sources import open_source
from pipelines.tracking.messages import send_waiting, spool_of, tell_move, waiting_note
from pipelines.training.comparison import compare_on

if TYPE_CHECKING:
    from rich.table import Table

MOST_MOVES = 10


def table(config: Config) -> Table:
    """The detectors, oldest first, as a table."""
    from rich.table import Table

    state = Shelf(config.bundle).state()
    shown = Table(box=None, pad_edge=False)
    for heading in ("name", "role", "made", "rows", "learnt from", "AP", "alerts/day", "decision"):
        shown.add_column(heading, overflow="fold")
    for kept in state.kept:
        role = {state.champion: "champion", state.challenger: "challenger"}.get(kept.name, "")
        shown.add_row(kept.name, role, kept.made_at[:16].replace("T", " "), *_figures(kept), kept.decision)
    return shown


def moves_table(config: Config) -> Table:
    """The latest moves of the champion, as a table."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for heading in ("moved", "from", "to", "why"):
        shown.add_column(heading, overflow="fold")
    for move in Shelf(config.bundle).state().moves[-MOST_MOVES:]:
        shown.add_row(move.at[:16].replace("T", " "), move.before or "none", move.to, move.why)
    return shown


def overview(config: Config) -> list[str]:
    """What a table cannot say: who serves, and what waits for MLflow."""
    shelf = Shelf(config.bundle)
    if not shelf.managed:
        there = "It serves as `detector train` left it" if config.bundle.exists() else "There is no detector yet"
        return [f"{there}; the first `detector retrain` begins the list."]
    waiting = spool_of(config).waiting()
    return [f"{config.bundle} serves {shelf.serving().name}."] + ([f"{waiting:,} wait for MLflow."] if waiting else [])


def promote_model(config: Config, name: str, *, reason: str, now: datetime) -> list[str]:
    """Let a detector serve.

    Parameters
    ----------
    config : Config
    name : str
        Its name or the beginning of it; "" for the challenger.
    reason : str
        Kept with the move.
    now : datetime

    Raises
    ------
    SettingError
        If there is no such detector, or it serves already.
    """
    shelf = Shelf(config.bundle)
    with shelf.locked():
        state = shelf.adopt(now=now, tell=lambda move: tell_move(config, move))
        wanted = name or state.challenger
        if wanted is None:
            raise SettingError("There is no challenger. Name a detector of `detector models list`, or retrain first.")
        found = state.find(wanted)
        if found.name == state.champion:
            raise SettingError(f"{found.name} serves already. Name another detector of `detector models list`.")
        move = shelf.promote(found.name, why=reason, now=now, tell=lambda move: tell_move(config, move, own_run=True))
    return _moved(config, move)


def rollback_model(config: Config, *, reason: str, now: datetime) -> list[str]:
    """Let the detector serve that served before the champion.

    Raises
    ------
    SettingError
        If there is none.
    """
    shelf = Shelf(config.bundle)
    with shelf.locked():
        state = shelf.adopt(now=now, tell=lambda move: tell_move(config, move))
        before = state.before_champion()
        if before is None:
            raise SettingError("No detector served before this one, or it is gone. Promote one of the list by name.")
        move = shelf.promote(
            before, why=reason, now=now, tell=lambda move: tell_move(config, move, job="rollback", own_run=True)
        )
    return _moved(config, move)


def compare_models(config: Config, first: str, second: str, *, now: datetime) -> list[str]:
    """Compare two detectors on recent rows, and say what would be decided.

    Parameters
    ----------
    config : Config
    first, second : str
        Names; "" for the champion and for the challenger.
    now : datetime
        Labels younger than the label delay before it are not believed.

    Raises
    ------
    SettingError
        If there is no such detector.
    DataError
        If too few rows are later than those either learnt from.
    """
    shelf = Shelf(config.bundle)
    state = shelf.state()
    names = [first or state.champion or "", second or state.challenger or ""]
    found = [state.find(name) for name in names]
    scorers = [bundle.load(shelf.path_of(kept.name)) for kept in found]
    champion, challenger = scorers
    until = max(str(scorer.metrics.get("learnt_until", "")) for scorer in (champion, challenger))
    frame = recent(open_source(config.source), config, now=now)
    window = split(frame, config, now=now, champion_until=until)
    if len(window.compare) < 2:
        raise DataError("No recent row is later than those the two learnt from. Wait until rows have come.")
    with progress("Comparing", total=None):
        comparison = compare_on(
            window,
            champion,
            challenger,
            policy=policy_of(config.policy, window.schema),
            least_anomalies=config.retrain.least_anomalies,
            confidence=config.retrain.confidence,
            random_state=config.random_state,
        )
    decision = decide(comparison, config.retrain)
    facts = {"champion": found[0].name, "challenger": found[1].name}
    return [note_of(decision, comparison, facts=facts), "Nothing was moved."]


def _figures(kept: Kept) -> tuple[str, str, str, str]:
    facts = kept.facts
    since, until = str(facts.get("learnt_since", ""))[:10], str(facts.get("learnt_until", ""))[:10]
    return (
        f"{facts['rows_learnt']:,}" if "rows_learnt" in facts else "",
        f"{since} to {until}" if since else "",
        f"{facts['ap']:.3f}" if "ap" in facts else "",
        f"{facts['alerts_a_day']:.1f}" if "alerts_a_day" in facts else "",
    )


def _moved(config: Config, move: Move) -> list[str]:
    return [f"{move.to} serves now; before, {move.before or 'none'} did.", *waiting_note(send_waiting(config))]
