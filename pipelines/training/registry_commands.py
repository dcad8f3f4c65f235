"""The detectors on disk, for people: a list, a comparison, a promotion, a way back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from detector.errors import DataError, SettingError
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.machines import some_machines
from pipelines.factory.training_period import recent, split
from pipelines.features.engine import feature_engine_of
from pipelines.ingest.usable import open_usable
from pipelines.listing import Cell, Column, Listing
from pipelines.progress import progress
from pipelines.registry.comparison import Comparison
from pipelines.registry.models_file import Promotion, RegistryState, StoredModel
from pipelines.registry.promotion import Decision, decide, note_of
from pipelines.registry.registry import ModelRegistry, listed
from pipelines.tracking.messages import flush_tracking, record_promotion, spool_of, waiting_note
from pipelines.training.comparison import compare_on
from pipelines.training.pages import page_of

MOST_SHOWN = 10
ONLY_ONE = (
    "Another `detector train` replaces it. `detector retrain` trains a second one on recent rows, keeps both and says "
    "which is better."
)


def table(config: Config) -> Listing:
    """The detectors, the latest first."""
    state = _state(config)
    columns = (
        Column("name", head=True),
        Column("role", head=True),
        Column("made", head=True),
        *(Column(name) for name in ("rows", "learnt from", "AP")),
        Column("alerts/day", key="alerts_a_day"),
        Column("decision", is_sentence=True),
        Column("report"),
    )
    rows = []
    for model in reversed(state.models):
        role = {state.champion: "champion", state.challenger: "challenger"}.get(model.name, "")
        made = Cell(model.made_at, model.made_at[:16].replace("T", " "))
        page = page_of(config, model.name)
        row = {"name": model.name, "role": role, "made": made, **_figures(model), "decision": model.decision}
        rows.append(row | ({"report": Cell(page, _from_here(page))} if page.is_file() else {}))
    return Listing(
        columns,
        rows,
        title=f"Detectors of {config.name}",
        empty="There is none yet. `detector train` makes the first one.",
    )


def promotions_table(config: Config) -> Listing:
    """The latest promotions, the latest first."""
    columns = (*(Column(name, head=True) for name in ("moved", "from", "to")), Column("why", is_sentence=True))
    rows = [
        {
            "moved": Cell(promotion.at, promotion.at[:16].replace("T", " ")),
            "from": Cell(promotion.before, promotion.before or "none"),
            "to": promotion.to,
            "why": promotion.why,
        }
        for promotion in reversed(ModelRegistry(config.bundle).state().promotions[-MOST_SHOWN:])
    ]
    return Listing(columns, rows, title="Moves of the champion")


def overview(config: Config) -> list[str]:
    """What a table cannot say: who serves, and what waits for MLflow."""
    registry = ModelRegistry(config.bundle)
    if not registry.managed:
        return [ONLY_ONE] if config.bundle.exists() else []
    waiting = spool_of(config).waiting()
    return [f"{config.bundle} serves {registry.serving().name}."] + (
        [f"{waiting:,} wait for MLflow."] if waiting else []
    )


def promote_model(config: Config, name: str, *, reason: str, now: datetime) -> list[str]:
    """Let a detector serve, tell MLflow, and say so; see ``promote``."""
    return _promoted(config, promote(config, name, reason=reason, now=now))


def promote(config: Config, name: str, *, reason: str, now: datetime) -> Promotion:
    """Let a detector serve; what MLflow is to hear waits for the next delivery.

    - ``name``: its name or the beginning of it; "" for the challenger.
    - ``reason``: stored with the promotion.

    Raises ``SettingError`` if there is no such detector, or it serves already.
    """
    registry = ModelRegistry(config.bundle)
    with registry.locked():
        state = registry.adopt(now=now, notify=partial(record_promotion, config))
        wanted = name or state.challenger
        if wanted is None:
            raise SettingError("There is no challenger. Name a detector of `detector models list`, or retrain first.")
        found = state.find(wanted)
        if found.name == state.champion:
            raise SettingError(f"{found.name} serves already. Name another detector of `detector models list`.")
        return registry.promote(found.name, why=reason, now=now, notify=partial(record_promotion, config, own_run=True))


def rollback_model(config: Config, *, reason: str, now: datetime) -> list[str]:
    """Go back to the detector before, tell MLflow, and say so; see ``roll_back``."""
    return _promoted(config, roll_back(config, reason=reason, now=now))


def roll_back(config: Config, *, reason: str, now: datetime) -> Promotion:
    """Let the detector serve that served before the champion; what MLflow is to hear waits for the next delivery.

    Raises ``SettingError`` if there is none.
    """
    registry = ModelRegistry(config.bundle)
    with registry.locked():
        state = registry.adopt(now=now, notify=partial(record_promotion, config))
        before = state.before_champion()
        if before is None:
            raise SettingError("No detector served before this one, or it is gone. Promote one of the list by name.")
        return registry.promote(
            before,
            why=reason,
            now=now,
            notify=partial(record_promotion, config, job="rollback", own_run=True),
        )


@dataclass(frozen=True)
class Compared:
    """Two detectors on the same rows, and what would be decided."""

    champion: str
    challenger: str
    decision: Decision
    comparison: Comparison

    def summary(self) -> list[str]:
        """The decision as Markdown."""
        facts = {"champion": self.champion, "challenger": self.challenger}
        note = note_of(self.decision, self.comparison, facts=facts, is_trial=True)
        return [note, "Nothing was changed: this only compares."]

    def outcome(self) -> dict[str, Any]:
        """For the service: what it keeps with the run."""
        figures = {name: value if isfinite(value) else None for name, value in self.comparison.metrics().items()}
        facts = {"champion": self.champion, "challenger": self.challenger, "figures": figures}
        return {"note": self.summary()[0], "facts": facts}

    def to_json(self) -> dict[str, Any]:
        """For programs: what would be decided and why, and the figures."""
        return {
            "champion": self.champion,
            "challenger": self.challenger,
            "decision": self.decision,
            "figures": self.comparison.metrics(),
        }


def pair_of(config: Config, first: str, second: str) -> tuple[str, str]:
    """The names of two detectors to compare.

    - ``first``, ``second``: names or their first letters; "" for the champion and for the challenger.

    Raises ``SettingError`` if there is no such detector, or only one.
    """
    state = _state(config)
    if len(state.models) < 2:
        there = f"only one detector, {state.champion}" if state.models else "no detector yet"
        raise SettingError(
            f"There is {there}, so there is nothing to compare. `detector train` trains the first one, "
            f"`detector retrain` the next."
        )
    if not second and state.challenger is None:
        raise SettingError(
            "There is no challenger. Name two detectors of `detector models list`, such as "
            f"`detector models compare {state.models[-2].name[:4]} {state.models[-1].name[:4]}`, or retrain first."
        )
    champion, challenger = first or state.champion or "", second or state.challenger or ""
    return state.find(champion).name, state.find(challenger).name


def compare_models(config: Config, first: str, second: str, *, now: datetime) -> Compared:
    """Compare two detectors on recent rows, and say what would be decided.

    - ``first``, ``second``: see ``pair_of``.
    - ``now``: labels younger than the label delay before it are not believed.

    Raises ``SettingError`` as ``pair_of`` does; ``DataError`` if too few rows are later than those either learnt from.
    """
    registry, names = ModelRegistry(config.bundle), pair_of(config, first, second)
    champion, challenger = (bundle.load(registry.path_of(name)) for name in names)
    until = max(str(scorer.metrics.get("learnt_until", "")) for scorer in (champion, challenger))
    engine = feature_engine_of(config, trained=False)
    frame = recent(some_machines(open_usable(config), config), config, now=now, engine=engine)
    period = split(frame, config, now=now, champion_until=until, engine=engine)
    if len(period.compare) < 2:
        raise DataError("No recent row is later than those the two learnt from. Wait until rows have come.")
    with progress("Comparing", total=None):
        comparison = compare_on(period, champion, challenger, config)
    return Compared(*names, decide(comparison, config.retrain), comparison)


def _state(config: Config) -> RegistryState:
    """What is on disk; before the first retraining, the one detector that `detector train` left."""
    registry = ModelRegistry(config.bundle)
    state = registry.state()
    if state.models or not config.bundle.exists():
        return state
    facts = listed(bundle.load(registry.serving()).metrics)
    model = StoredModel(registry.served(), str(facts.pop("made_at", "")), facts)
    return RegistryState(champion=model.name, models=(model,))


def _from_here(page: Path) -> str:
    """A path as short as it can be opened by from the working folder."""
    here = Path.cwd()
    return str(page.relative_to(here) if page.is_relative_to(here) else page)


def _figures(model: StoredModel) -> dict[str, Any]:
    facts = model.facts
    since, until = str(facts.get("learnt_since", ""))[:10], str(facts.get("learnt_until", ""))[:10]
    shown = {"AP": ("ap", ".3f"), "alerts/day": ("alerts_a_day", ".1f")}
    return {
        "rows": facts.get("rows_learnt"),
        "learnt from": f"{since} to {until}" if since else None,
        **{name: Cell(facts[fact], f"{facts[fact]:{form}}") for name, (fact, form) in shown.items() if fact in facts},
    }


def _promoted(config: Config, promotion: Promotion) -> list[str]:
    return [
        f"{promotion.to} serves now; before, {promotion.before or 'none'} did.",
        *waiting_note(flush_tracking(config)),
    ]
