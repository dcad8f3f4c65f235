"""Learn again from recent rows, compare with the detector that serves, decide, and say why.

Whatever goes wrong, the champion stays where it is and serves: a challenger is saved beside it, and one link moves.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from detector.errors import SinkError
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.detector import fit_warm, policy_of
from pipelines.factory.kinds import KINDS
from pipelines.factory.labelled_set import head_note, train_head
from pipelines.factory.machines import some_machines
from pipelines.factory.metadata import add_metadata
from pipelines.factory.training_period import TrainingPeriod, recent, split
from pipelines.features.engine import feature_engine_of, history_folder
from pipelines.ingest.usable import open_usable
from pipelines.progress import counted, phases, progress
from pipelines.registry.comparison import Comparison
from pipelines.registry.promotion import FAILED, KEEP, PROMOTE, SHADOW, Decision, decide, note_of, overtaken
from pipelines.registry.registry import ModelRegistry, OnPromotion
from pipelines.reports.page import render
from pipelines.scoring.shadow import begin_shadow, settle_shadow
from pipelines.testing.failpoints import failpoint
from pipelines.tracking import keep_training
from pipelines.tracking.messages import flush_tracking, record_note, record_promotion, spool_of, waiting_note
from pipelines.tracking.usage import measured
from pipelines.training.comparison import compare_on, comparison_figure
from pipelines.training.merit import Review
from pipelines.training.pages import drift_of, keep_page, training_content
from pipelines.training.review import review
from pipelines.training.run_record import Fitted, Retraining

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        outcome = self.decision.outcome
        facts = {"decision": outcome, "champion": self.champion, "challenger": self.challenger, **self.metrics}
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
    run = _Run(config, ModelRegistry(config.bundle), now, trigger)
    bundle.check_place(config.bundle)
    with run.registry.locked("training", wait=False):
        with run.registry.locked():
            run.registry.adopt(now=now, notify=run.notify)
        settle_shadow(config, now=now)
        try:
            report = _retrain(run)
        except Exception as error:
            _report_failure(run, error)
            raise
        with run.registry.locked():
            run.registry.prune(config.retrain.keep_versions)
    failpoint("retrain.decided")
    report.notes.extend(waiting_note(flush_tracking(config)))
    return report


@dataclass(frozen=True)
class _Run:
    """What every step of one retraining is given."""

    config: Config
    registry: ModelRegistry
    now: datetime
    trigger: str
    begun: float = field(default_factory=time.monotonic)

    def clock(self) -> float:
        """Seconds since 1970, from ``now`` on: a run played on another day has that day's times in MLflow."""
        return self.now.timestamp() + time.monotonic() - self.begun

    @property
    def notify(self) -> OnPromotion:
        """What hears of a promotion."""
        return partial(record_promotion, self.config, job="retrain")

    def record(self, run: str, decision: Decision, *, failed: bool = False) -> None:
        """Record a run without a model."""
        tags = {"job": "retrain", "decision": decision.outcome, "reason": decision.reason, "trigger": self.trigger}
        facts = {"trigger": self.trigger} | ({"at": f"{self.now:%Y-%m-%d %H:%M}"} if failed else {})
        note = note_of(decision, None, facts=facts)
        started, ended = self.now.timestamp(), self.clock()
        record_note(self.config, run=run, note=note, tags=tags, failed=failed, started=started, ended=ended)


def _retrain(run: _Run) -> RetrainReport:
    config, registry, now = run.config, run.registry, run.now
    compared = registry.served()
    champion = bundle.load(registry.place) if compared else None
    source = some_machines(open_usable(config), config)
    engine = feature_engine_of(config, trained=False)
    frame = recent(source, config, now=now, engine=engine)
    until = "" if champion is None else str(champion.metrics.get("learnt_until", ""))
    period = split(frame, config, now=now, champion_until=until, engine=engine)
    if champion is not None and len(period.compare) < config.retrain.least_rows:
        return _skipped(run, period, until)
    learn, notes = KINDS[config.kind].trainable(period.learn, config, period.schema)
    period = replace(period, learn=learn)
    fitted = _fit(run, period)
    challenger = fitted.detector.scorer_
    reviewed: Review | None = None
    figures: dict[str, Figure] = {}
    with progress("Comparing", total=None):
        held_out = period.compare
        if period.schema.label is not None:
            held_out = held_out.assign(**{period.schema.label: period.labels})
        held_out = held_out[challenger.can_score(held_out)]
        add_metadata(challenger, period.learn, held_out, policy=policy_of(config.policy, period.schema), now=now)
        if len(held_out):
            reviewed, figures = review(challenger, held_out, config, fitted.detector.history_)
        found = None if champion is None else compare_on(period, champion, challenger, config)
    decision = Decision(PROMOTE, "The detector serves: there was none before.")
    if found is not None:
        decision = decide(found, config.retrain)
    with registry.locked():
        name = registry.add(challenger, facts=_facts(challenger, found, reviewed), now=now)
    failpoint("retrain.compared")
    made = Retraining(config, period, fitted, decision, found, reviewed, figures, champion, source, run.trigger, engine)
    page, kept = "", None
    if reviewed is not None:
        page = _page(run, name, made, reviewed)
        kept = _kept(run, name, page)
    if config.tracking.enabled:
        keep_training(spool_of(config), made.record(registry, name, page))
    if engine is not None:
        engine.save(history_folder(config))
    failpoint("retrain.kept")
    decision = _act(run, name, decision, over=compared)
    return RetrainReport(
        decision=decision,
        champion=registry.state().champion or "",
        challenger=name,
        rows=len(period.learn),
        metrics={} if found is None else found.metrics(),
        notes=[
            *notes,
            *KINDS[config.kind].noticed(fitted.detector),
            *period.notes,
            *(note for note in (head_note(challenger), kept) if note is not None),
        ],
    )


def _page(run: _Run, name: str, made: Retraining, reviewed: Review) -> str:
    """The page about a challenger."""
    period, challenger, found = made.period, made.fitted.detector.scorer_, made.comparison
    drawn = {} if found is None else {"comparison": comparison_figure(found)}
    checks = [f"{'Met' if each.met else 'Not met'}: {each.asks} ({each.figures})." for each in made.decision.checks]
    content = training_content(
        run.config,
        challenger,
        reviewed,
        drawn | made.figures,
        job="Retraining",
        now=run.now,
        frame=period.raw,
        source=f"{period.span}, compared on {len(period.compare):,} later rows" if found else period.span,
        seconds=time.monotonic() - run.begun,
        notes=[made.decision.reason, *checks],
        places={"Detector": str(run.registry.path_of(name))},
        drift=drift_of(run.config, made.champion, period.learn, challenger),
    )
    return render(content)


def _kept(run: _Run, name: str, page: str) -> str:
    """Keep the page about a challenger; where it is, or why it could not be written, which stops nothing."""
    try:
        return f"Report: {keep_page(run.config, name, page)}"
    except SinkError as error:
        return str(error)


def _fit(run: _Run, period: TrainingPeriod) -> Fitted:
    started = run.clock()
    with measured() as usage, phases("Training", unit="epochs") as on_step:
        failpoint("retrain.fitting")
        detector = fit_warm(KINDS[run.config.kind].detector(run.config, period.schema, on_step), period.learn)
        if period.labelled is not None:
            detector.scorer_ = train_head(detector.scorer_, period.labelled, run.config)
    detector.on_step = None
    failpoint("retrain.fitted")
    return Fitted(detector, usage, started, run.clock())


def _act(run: _Run, name: str, decision: Decision, *, over: str) -> Decision:
    """Do what was decided; the last thing done, and done at once.

    Only over the champion it was decided about: while a process was held up, another one may have been promoted.
    """
    with run.registry.locked():
        if decision.outcome != KEEP and run.registry.served() != over:
            decision = overtaken(decision)
            run.record("retrain: overtaken", decision)
        if decision.outcome == PROMOTE:
            run.registry.promote(name, why=decision.reason, now=run.now, notify=run.notify)
            return decision
        run.registry.note(name, f"{decision.outcome}: {decision.reason}", challenger=True)
    if decision.outcome == SHADOW:
        begin_shadow(run.config, name, reason=decision.reason, now=run.now)
    return decision


def _skipped(run: _Run, period: TrainingPeriod, until: str) -> RetrainReport:
    since = f" since {until[:16].replace('T', ' ')}, when the champion's rows end" if until else ""
    decision = Decision(
        KEEP,
        f"The champion stays, nothing was trained: {counted(len(period.compare))} to compare on{since}; "
        f"`retrain.least_rows` asks for {run.config.retrain.least_rows:,}.",
    )
    run.record("retrain: nothing trained", decision)
    return RetrainReport(decision, run.registry.state().champion or "", "", 0)


def _report_failure(run: _Run, error: Exception) -> None:
    reason = f"Training failed and the champion stays. {type(error).__name__}: {error}"
    try:
        run.record("retrain: failed", Decision(FAILED, reason), failed=True)
        flush_tracking(run.config)
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
