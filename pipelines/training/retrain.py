"""Learn again from recent rows, compare with the detector that serves, decide, and say why.

Whatever goes wrong, the champion stays where it is and serves: a challenger is saved beside it, and one link moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from detector.decide.policy import Policy
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.data import Window, recent, split
from pipelines.factory.detector import policy_of
from pipelines.factory.kinds import KINDS
from pipelines.factory.labelled_set import head_note, taught
from pipelines.factory.metadata import remember
from pipelines.features.engine import featuring_of, history_folder
from pipelines.progress import counted, progress
from pipelines.registry.comparison import Comparison
from pipelines.registry.promotion import FAILED, KEEP, PROMOTE, SHADOW, Decision, decide, note_of
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring.shadow import begin_shadow, settle_shadow
from pipelines.sources import open_source
from pipelines.testing.failpoints import fault
from pipelines.tracking import keep_training
from pipelines.tracking.messages import record_note, record_promotion, send_waiting, spool_of, waiting_note
from pipelines.tracking.usage import measured
from pipelines.training.comparison import compare_on
from pipelines.training.merit import Review
from pipelines.training.review import review
from pipelines.training.run_record import Fitted, Retraining
from pipelines.training.train import fitting_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Clock = Callable[[], float]


@dataclass(frozen=True)
class RetrainReport:
    """What a retraining did.

    - ``champion``, ``challenger``: names of the detector that serves now, and of the one trained; "" if there is none.
    """

    decision: Decision
    champion: str
    challenger: str
    rows: int
    metrics: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> list[str]:
        """The retraining in a few lines."""
        lines = [self.decision.reason]
        lines += [
            f"  {'yes' if check.met else 'no ':<4}{check.asks} ({check.figures})" for check in self.decision.checks
        ]
        return [*lines, f"Serving: {self.champion or 'none'}", *self.notes]

    def outcome(self) -> dict[str, Any]:
        """The same for the service's record of the run."""
        verdict = self.decision.verdict
        facts = {"decision": verdict, "champion": self.champion, "challenger": self.challenger, **self.metrics}
        skipped = "done" if self.challenger else "skipped"
        return {"rows": self.rows, "note": self.decision.reason, "outcome": skipped, "facts": facts}


def retrain(config: Config, *, now: datetime, trigger: str = "asked for") -> RetrainReport:
    """Train a challenger and decide whether it serves.

    - ``config``: ``retrain`` says which rows and which rules.
    - ``now``: when this happens; labels younger than the label delay before it are not believed.
    - ``trigger``: why: "asked for", "schedule", "drift".

    Raises ``DetectorError`` if the rows cannot be read or nothing can be learnt from them. The champion stays; the run
    in MLflow says why; ``BundleError`` if another process is retraining at this moment.
    """
    registry, clock = ModelRegistry(config.bundle), _clock_from(now)
    bundle.check_place(config.bundle)
    with registry.locked("training", wait=False):
        with registry.locked():
            registry.adopt(now=now, notify=partial(record_promotion, config, job="retrain"))
        settle_shadow(config, now=now)
        try:
            report = _retrain(config, registry, now=now, trigger=trigger, clock=clock)
        except Exception as error:
            _tell_failure(config, error, trigger=trigger, clock=clock, now=now)
            raise
        with registry.locked():
            registry.prune(config.retrain.keep_versions)
    fault("retrain.decided")
    report.notes.extend(waiting_note(send_waiting(config)))
    return report


def _retrain(config: Config, registry: ModelRegistry, *, now: datetime, trigger: str, clock: Clock) -> RetrainReport:
    champion = bundle.load(registry.place) if registry.place.exists() else None
    source = open_source(config.source)
    featuring = featuring_of(config, trained=False)
    frame = recent(source, config, now=now, featuring=featuring)
    until = "" if champion is None else str(champion.metrics.get("learnt_until", ""))
    window = split(frame, config, now=now, champion_until=until, featuring=featuring)
    policy = policy_of(config.policy, window.schema)
    if champion is not None and len(window.compare) < config.retrain.least_rows:
        return _skipped(config, registry, window, until, trigger=trigger, clock=clock, now=now)
    kind = KINDS[config.kind]
    enough, notes = kind.enough(window.learn, config, window.schema)
    window = replace(window, learn=enough)
    learnt = _fit(config, window, clock)
    challenger = learnt.detector.scorer_
    with progress("Comparing", total=None):
        held_out = window.compare
        if window.schema.label is not None:
            held_out = held_out.assign(**{window.schema.label: window.labels})
        held_out = held_out[challenger.can_judge(held_out)]
        remember(challenger, window.learn, held_out, policy=policy, now=now)
        reviewed: Review | None = None
        drawn: dict[str, Figure] = {}
        if len(held_out):
            reviewed, drawn = review(challenger, held_out, config, learnt.detector.history_)
        found = None if champion is None else _compare(config, window, champion, challenger, policy)
    if found is None:
        decision = Decision(PROMOTE, "The detector serves: there was none before.")
    else:
        decision = decide(found, config.retrain)
    with registry.locked():
        name = registry.add(challenger, facts=_facts(challenger, found, reviewed), now=now)
    fault("retrain.compared")
    if config.tracking.enabled:
        made = Retraining(config, window, learnt, decision, found, reviewed, drawn, champion, policy, source, trigger)
        keep_training(spool_of(config), made.record(registry, name))
    if featuring is not None:
        featuring.save(history_folder(config))
    fault("retrain.kept")
    _act(config, registry, name, decision, now=now)
    return RetrainReport(
        decision=decision,
        champion=registry.state().champion or "",
        challenger=name,
        rows=len(window.learn),
        metrics={} if found is None else found.metrics(),
        notes=[*notes, *(note for note in (window.early, head_note(challenger)) if note is not None)],
    )


def _fit(config: Config, window: Window, clock: Clock) -> Fitted:
    begun = clock()
    with measured() as usage, fitting_steps() as on_step:
        fault("retrain.fitting")
        detector = KINDS[config.kind].detector(config, window.schema, on_step).fit(window.learn)
        if window.lesson is not None:
            detector.scorer_ = taught(detector.scorer_, window.lesson, config)
    detector.on_step = None
    fault("retrain.fitted")
    return Fitted(detector, usage, begun, clock())


def _compare(
    config: Config, window: Window, champion: bundle.Scorer, challenger: bundle.Scorer, policy: Policy
) -> Comparison:
    return compare_on(
        window,
        champion,
        challenger,
        policy=policy,
        least_anomalies=config.retrain.least_anomalies,
        confidence=config.retrain.confidence,
        random_state=config.random_state,
    )


def _act(config: Config, registry: ModelRegistry, name: str, decision: Decision, *, now: datetime) -> None:
    """Do what was decided; the last thing done, and done at once."""
    with registry.locked():
        if decision.verdict == PROMOTE:
            registry.promote(
                name, why=decision.reason, now=now, notify=partial(record_promotion, config, job="retrain")
            )
            return
        registry.note(name, f"{decision.verdict}: {decision.reason}", challenger=True)
    if decision.verdict == SHADOW:
        begin_shadow(config, name, reason=decision.reason, now=now)


def _clock_from(now: datetime) -> Clock:
    """Seconds since 1970 that begin at ``now``: a run played on another day has that day's times in MLflow."""
    begun = time.monotonic()
    return lambda: now.timestamp() + time.monotonic() - begun


def _skipped(
    config: Config, registry: ModelRegistry, window: Window, until: str, *, trigger: str, clock: Clock, now: datetime
) -> RetrainReport:
    since = f" since {until[:16].replace('T', ' ')}, when the champion's rows end" if until else ""
    decision = Decision(
        KEEP,
        f"The champion stays, nothing was trained: {counted(len(window.compare))} to compare on{since}; "
        f"`retrain.least_rows` asks for {config.retrain.least_rows:,}.",
    )
    tags = {"job": "retrain", "decision": KEEP, "reason": decision.reason, "trigger": trigger}
    note = note_of(decision, None, facts={"trigger": trigger})
    record_note(config, run="retrain: nothing trained", note=note, tags=tags, started=now.timestamp(), ended=clock())
    return RetrainReport(decision, registry.state().champion or "", "", 0)


def _tell_failure(config: Config, error: Exception, *, trigger: str, clock: Clock, now: datetime) -> None:
    reason = f"Training failed and the champion stays. {type(error).__name__}: {error}"
    decision = Decision(FAILED, reason)
    tags = {"job": "retrain", "decision": FAILED, "reason": reason, "trigger": trigger}
    note = note_of(decision, None, facts={"trigger": trigger, "at": f"{now:%Y-%m-%d %H:%M}"})
    try:
        record_note(
            config, run="retrain: failed", note=note, tags=tags, started=now.timestamp(), ended=clock(), failed=True
        )
        send_waiting(config)
    except OSError:  # a full disk must not hide the first error
        return


def _facts(scorer: bundle.Scorer, found: Comparison | None, reviewed: Review | None) -> dict[str, Any]:
    """What a list of detectors shows."""
    facts: dict[str, Any] = {
        name: scorer.metrics[name] for name in ("rows_learnt", "learnt_since", "learnt_until") if name in scorer.metrics
    }
    if found is not None:
        facts |= {"basis": found.basis, "gain": round(found.gain.estimate, 4), "ap": found.challenger.precision}
        facts |= {"alerts_a_day": found.challenger.alerts}
    elif reviewed is not None and reviewed.truth is not None:
        facts["ap"] = reviewed.truth["ap"]
    return facts
