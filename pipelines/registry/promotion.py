"""Shall the challenger serve? The rules, in order, each with its reason; the answer without a reason is "keep"."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.config import RetrainSection
from pipelines.progress import percent
from pipelines.registry.comparison import Comparison

KEEP, PROMOTE, SHADOW, FAILED = "keep", "promote", "shadow", "failed"
TITLES = {PROMOTE: "Promoted", KEEP: "Kept the champion", SHADOW: "In the shadow", FAILED: "Training failed"}
TRIAL_TITLES = {
    PROMOTE: "A retraining would promote the challenger",
    KEEP: "A retraining would keep the champion",
    SHADOW: "A retraining would try the challenger in the shadow",
}


@dataclass(frozen=True)
class Check:
    """One rule: what it asks, whether it is met, and the figures."""

    asks: str
    met: bool
    figures: str


@dataclass(frozen=True)
class Decision:
    """What was decided, and why.

    - ``outcome``: "promote", "keep", "shadow", "failed". "shadow": it would be promoted, and first scores beside the
      champion.
    - ``checks``: the rules, in order.
    """

    outcome: str
    reason: str
    checks: tuple[Check, ...] = ()


def decide(found: Comparison, settings: RetrainSection) -> Decision:
    """Decide from a comparison.

    The challenger serves if it surely finds more; or if the champion's p-values no longer mean what they say, the
    challenger's do, and it loses little: not surely, as a champion whose p-values are wrong helps nobody, and on few
    anomalies nothing is sure. Beside a champion whose p-values are right it must also not flood
    people with alerts, and must rank rows much as the champion does.
    """
    gain, limit = found.gain, max(settings.most_calibration_distance, found.noise)
    sure = percent(settings.confidence)
    gains = f"{gain.estimate:+.3f} ({sure} interval {gain.low:+.3f} to {gain.high:+.3f})"
    broken = found.champion.calibration > limit
    better = Check(
        f"It reliably gains more than {settings.least_gain:g} in {found.figure_of_merit}",
        gain.low > settings.least_gain,
        gains,
    )
    sound = Check(
        f"Its p-values are right: distance from uniform at most {limit:.3f}",
        found.challenger.calibration <= limit,
        f"{found.challenger.calibration:.3f}; champion {found.champion.calibration:.3f}",
    )
    repairs = Check(
        f"Or it repairs the champion's p-values (distance beyond {limit:.3f}) and loses at most "
        f"{settings.most_loss:g} in {found.figure_of_merit}",
        broken and sound.met and gain.estimate >= -settings.most_loss,
        f"champion {found.champion.calibration:.3f}; {gains}",
    )
    most = settings.most_alert_change * max(found.champion.alerts, 1.0)
    calm = Check(
        f"It raises at most {settings.most_alert_change:g} times the champion's alerts, known anomalies not counted, "
        f"or the champion's p-values are wrong",
        broken or found.challenger.alerts - found.challenger.right <= most,
        f"{found.challenger.alerts:.1f} {found.alert_unit}, {found.challenger.right:.1f} of them right; champion "
        f"{found.champion.alerts:.1f}",
    )
    steady = Check(
        f"It ranks rows as the champion does (correlation at least {settings.least_stability:g}), or the champion's "
        f"p-values are wrong",
        broken or found.stability >= settings.least_stability,
        f"{found.stability:.2f}",
    )
    checks = (better, repairs, sound, calm, steady)
    outcome, reason = _outcome(checks, found, settings)
    return Decision(outcome, reason, checks)


def _outcome(checks: tuple[Check, ...], found: Comparison, settings: RetrainSection) -> tuple[str, str]:
    better, repairs, *others = checks
    gain = found.gain
    if not better.met and not repairs.met:
        word = "a gain is not sure" if gain.estimate > settings.least_gain else "there is no gain"
        return KEEP, f"The champion stays: {word}, {gain.estimate:+.3f} in {found.figure_of_merit}."
    failed = [check for check in others if not check.met]
    if failed:
        return KEEP, f"The champion stays: not met: {failed[0].asks[0].lower()}{failed[0].asks[1:]}."
    because = (
        f"it finds more, {gain.estimate:+.3f} in {found.figure_of_merit}"
        if better.met
        else f"the champion's p-values were off by {found.champion.calibration:.2f}, and its own are right"
    )
    if settings.promote == "never":
        return KEEP, f"The champion stays, because `retrain.promote` is never. The challenger has won: {because}."
    if settings.shadow_days:
        return SHADOW, f"The challenger scores in the shadow for {settings.shadow_days:g} days: {because}."
    return PROMOTE, f"The challenger serves: {because}."


def overtaken(decision: Decision) -> Decision:
    """Where the champion changed while the challenger was compared with the earlier one, or tried beside it: keep."""
    reason = f"The champion stays: another detector serves than the one it was compared with. {decision.reason}"
    return replace(decision, outcome=KEEP, reason=reason)


def note_of(decision: Decision, found: Comparison | None, *, facts: dict[str, str], is_trial: bool = False) -> str:
    """The decision as Markdown, for a person who reads the run.

    - ``is_trial``: whether it is only what would be decided.
    """
    title = (TRIAL_TITLES if is_trial else TITLES)[decision.outcome]
    lines = [f"## {title}", "", decision.reason, ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    if found is not None:
        span = f" over {found.days:.1f} days" if found.days else ""
        kind = "known" if found.basis == "labels" else "injected"
        rows = f"{found.rows:,} rows{span} that neither learnt from"
        lines.append(f"- compared on: {rows}, {found.anomalies:,} {kind} anomalies")
        lines += ["", "| | champion | challenger |", "|---|---|---|"]
        shown = [
            ("average precision", "precision", ".3f"),
            (f"recall, {found.budget:,} rows looked at", "recall", ".3f"),
            ("calibration distance", "calibration", ".3f"),
            (f"alerts {found.alert_unit}", "alerts", ".1f"),
        ]
        for words, name, form in shown:
            lines.append(
                f"| {words} | {getattr(found.champion, name):{form}} | {getattr(found.challenger, name):{form}} |"
            )
    if decision.checks:
        lines += ["", "| rule | met | figures |", "|---|---|---|"]
        lines += [f"| {check.asks} | {'yes' if check.met else 'no'} | {check.figures} |" for check in decision.checks]
    return "\n".join(lines)
