"""Learn again from recent rows, compare with the detector that serves, decide, and say why.

Whatever goes wrong, the champion stays where it is and serves: a challenger is saved beside it, and one link moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from detector.decide.policy import Policy
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.data import Window, recent, split
from pipelines.factory.detector import policy_of
from pipelines.factory.labelled_set import head_note, train_head
from pipelines.factory.metadata import remember
from pipelines.features.engine import featuring_of, history_folder
from pipelines.progress import counted, progress
from pipelines.registry.comparison import Comparison
from pipelines.registry.promotion import FAILED, KEEP, PROMOTE, SHADOW, Decision, decide, note_of
from pipelines.registry.registry import Shelf
from pipelines.scoring.shadow import begin_shadow, settle_shadow
from pipelines.sources import open_source
from pipelines.testing.failpoints import fault
from pipelines.tracking.messages import send_waiting, tell_move, tell_note, waiting_note
from pipelines.tracking.usage import measured
from pipelines.training.comparison import compare_on
from pipelines.training.kinds import KINDS
from pipelines.training.review import Review
from pipelines.training.run_record import Learnt, Story
from pipelines.training.train import fitting_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Clock = Callable[[], float]


@dataclass(frozen=True)
class RetrainReport:
    """What a retraining did.

    Parameters
    ----------
    decision : Decision
        What was decided, and why.
    champion, challenger : str
        Names of the detector that serves now, and of the one trained; "" if there is none.
    rows : int
        Rows learnt from.
    metrics : dict
        The figures of the comparison.
    notes : list of str
        What else there is to say.
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

    Parameters
    ----------
    config : Config
        ``retrain`` says which rows and which rules.
    now : datetime
        When this happens; labels younger than the label delay before it are not believed.
    trigger : str
        Why: "asked for", "schedule", "drift".

    Raises
    ------
    DetectorError
        If the rows cannot be read or nothing can be learnt from them. The champion stays; the run in MLflow says why.
    BundleError
        If another process is retraining at this moment.
    """
    shelf, clock = Shelf(config.bundle), _clock_from(now)
    bundle.check_place(config.bundle)
    with shelf.locked("training", wait=False):
        with shelf.locked():
            shelf.adopt(now=now, tell=lambda move: tell_move(config, move, job="retrain"))
        settle_shadow(config, now=now)
        try:
            report = _retrain(config, shelf, now=now, trigger=trigger, clock=clock)
        except Exception as error:
            _tell_failure(config, error, trigger=trigger, clock=clock, now=now)
            raise
        with shelf.locked():
            shelf.prune(config.retrain.keep_versions)
    fault("retrain.decided")
    report.notes.extend(waiting_note(send_waiting(config)))
    return report


def _retrain(config: Config, shelf: Shelf, *, now: datetime, trigger: str, clock: Clock) -> RetrainReport:
    champion = bundle.load(shelf.place) if shelf.place.exists() else None
    source = open_source(config.source)
    featuring = featuring_of(config, trained=False)
    frame = recent(source, config, now=now, featuring=featuring)
    until = "" if champion is None else str(champion.metrics.get("learnt_until", ""))
    window = split(frame, config, now=now, champion_until=until, featuring=featuring)
    policy = policy_of(config.policy, window.schema)
    if champion is not None and len(window.compare) < config.retrain.least_rows:
        return _skipped(config, shelf, window, until, trigger=trigger, clock=clock, now=now)
    kind = KINDS[config.kind]
    enough, notes = kind.enough(window.learn, config, window.schema)
    window = replace(window, learn=enough)
    learnt = _fit(config, window, clock)
    challenger = learnt.detector.scorer_
    with progress("Comparing", total=None):
        held_out = window.compare
        if window.schema.label is not None:
            held_out = held_out.assign(**{window.schema.label: window.labels})
        held_out = kind.judgeable(held_out, challenger)
        remember(challenger, window.learn, held_out, policy=policy, now=now)
        reviewed: Review | None = None
        drawn: dict[str, Figure] = {}
        if len(held_out):
            reviewed, drawn = kind.review(challenger, held_out, config, learnt.detector.history_)
        found = None if champion is None else _compare(config, window, champion, challenger, policy)
    if found is None:
        decision = Decision(PROMOTE, "The detector serves: there was none before.")
    else:
        decision = decide(found, config.retrain)
    with shelf.locked():
        name = shelf.add(challenger, facts=_facts(challenger, found, reviewed), now=now)
    fault("retrain.compared")
    if config.tracking.enabled:
        story = Story(config, window, learnt, decision, found, reviewed, drawn, champion, policy, source, trigger)
        story.keep(shelf, name)
    if featuring is not None:
        featuring.save(history_folder(config))
    fault("retrain.kept")
    _act(config, shelf, name, decision, now=now)
    return RetrainReport(
        decision=decision,
        champion=shelf.state().champion or "",
        challenger=name,
        rows=len(window.learn),
        metrics={} if found is None else found.metrics(),
        notes=[*notes, *(note for note in (window.early, head_note(challenger)) if note is not None)],
    )


def _fit(config: Config, window: Window, clock: Clock) -> Learnt:
    begun = clock()
    with measured() as usage, fitting_steps() as on_step:
        fault("retrain.fitting")
        detector = KINDS[config.kind].detector(config, window.schema, on_step).fit(window.learn)
        if window.lesson is not None:
            detector.scorer_ = train_head(detector.scorer_, window.lesson, config)
    detector.on_step = None
    fault("retrain.fitted")
    return Learnt(detector, usage, begun, clock())


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


def _act(config: Config, shelf: Shelf, name: str, decision: Decision, *, now: datetime) -> None:
    """Do what was decided; the last thing done, and done at once."""
    with shelf.locked():
        if decision.verdict == PROMOTE:
            shelf.promote(name, why=decision.reason, now=now, tell=lambda move: tell_move(config, move, job="retrain"))
            return
        shelf.note(name, f"{decision.verdict}: {decision.reason}", challenger=True)
    if decision.verdict == SHADOW:
        begin_shadow(config, name, reason=decision.reason, now=now)


def _clock_from(now: datetime) -> Clock:
    """Seconds since 1970 that begin at ``now``: a run played on another day has that day's times in MLflow."""
    begun = time.monotonic()
    return lambda: now.timestamp() + time.monotonic() - begun


def _skipped(
    config: Config, shelf: Shelf, window: Window, until: str, *, trigger: str, clock: Clock, now: datetime
) -> RetrainReport:
    since = f" since {until[:16].replace('T', ' ')}, when the champion's rows end" if until else ""
    decision = Decision(
        KEEP,
        f"The champion stays, nothing was trained: {counted(len(window.compare))} to compare on{since}; "
        f"`retrain.least_rows` asks for {config.retrain.least_rows:,}.",
    )
    tags = {"job": "retrain", "decision": KEEP, "reason": decision.reason, "trigger": trigger}
    note = note_of(decision, None, facts={"trigger": trigger})
    tell_note(config, run="retrain: nothing trained", note=note, tags=tags, started=now.timestamp(), ended=clock())
    return RetrainReport(decision, shelf.state().champion or "", "", 0)


def _tell_failure(config: Config, error: Exception, *, trigger: str, clock: Clock, now: datetime) -> None:
    reason = f"Training failed and the champion stays. {type(error).__name__}: {error}"
    decision = Decision(FAILED, reason)
    tags = {"job": "retrain", "decision": FAILED, "reason": reason, "trigger": trigger}
    note = note_of(decision, None, facts={"trigger": trigger, "at": f"{now:%Y-%m-%d %H:%M}"})
    try:
        tell_note(
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
