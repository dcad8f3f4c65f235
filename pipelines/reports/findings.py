"""What a report says first: the findings in sentences, and the tiles of figures."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.reports.content import ReportContent
from pipelines.reports.style import percent

FEW_FLAGS = 30
SURE, NEAR = 2.58, 0.005
"""How many standard deviations chance passes once in a hundred, and how far off 1 % may be for any use."""


def findings_of(content: ReportContent) -> list[str]:
    """The findings, the most important first."""
    drift = [content.drift.finding()] if content.drift is not None else []
    found = [*_events(content), *_flags(content), *_ranking(content), *_calibration(content)]
    return [*found, *drift, *_members(content)]


def _flags(content: ReportContent) -> Iterator[str]:
    truth = content.truth or {}
    if "flagged" in truth and "anomalies" in truth:
        flags, anomalies = int(truth["flagged"]), int(truth["anomalies"])
        right, found = round(truth["precision"] * flags), round(truth["recall"] * anomalies)
        if not flags:
            yield f"Nothing was flagged of {_rows(content)}, so none of {anomalies:,} known anomalies was found."
        else:
            few = " Few flags: another sample may well differ." if flags < FEW_FLAGS else ""
            what = "flagged rows" if "known_events" in truth else "flags"
            yield (
                f"{right:,} of {flags:,} {what} {'was' if right == 1 else 'were'} right, and they found {found:,} of "
                f"{anomalies:,} known anomalies.{few}"
            )
    elif content.flagged is not None:
        share = f" ({percent(content.flagged / content.reviewed)})" if content.reviewed and content.flagged else ""
        yield f"{content.flagged:,} of {_rows(content)} {'is' if content.flagged == 1 else 'are'} flagged{share}."


def _events(content: ReportContent) -> Iterator[str]:
    truth = content.truth or {}
    if "known_events" in truth:
        wrong, flagged = int(truth["false_events"]), int(truth["flagged_events"])
        alarms = f"{wrong:,} {'is a false alarm' if wrong == 1 else 'are false alarms'}"
        yield (
            f"{truth['found_events']:,.0f} of {truth['known_events']:,.0f} known events were found; of {flagged:,} "
            f"flagged {'one' if flagged == 1 else 'ones'} {alarms}."
        )


def _rows(content: ReportContent) -> str:
    rows = content.rows if content.reviewed is None else content.reviewed
    return f"{rows:,} {'row' if rows == 1 else 'rows'}"


def _ranking(content: ReportContent) -> Iterator[str]:
    truth = content.truth or {}
    if "ap" in truth and truth.get("prevalence"):
        interval = content.ap_interval
        spread = f" ({interval.low:.2f} to {interval.high:.2f} with 95 % confidence)" if interval else ""
        times = truth["ap"] / truth["prevalence"]
        yield (
            f"By risk, anomalies rank {times:,.0f} times as high as by a blind guess: average precision "
            f"{truth['ap']:.2f}{spread}."
        )


def _calibration(content: ReportContent) -> Iterator[str]:
    found = content.calibration or {}
    rows, share = found.get("calibration_rows"), found.get("share_below_0.01")
    if not rows or share is None:
        return
    near = abs(share - 0.01) <= max(SURE * (0.01 * 0.99 / rows) ** 0.5, NEAR)
    yield (
        f"p-values {'hold what they promise' if near else 'are off'}: of {rows:,.0f} normal rows a threshold of 1 % "
        f"flags {percent(share)}."
    )


def weights_of(content: ReportContent) -> dict[str, float]:
    """What each member counts in the risk, also those that have no score of their own for each row."""
    model, start = content.model or {}, "weight_"
    names = [name.removeprefix(start) for name in model if name.startswith(start) and "_spread_" not in name]
    return {name: float(model[f"{start}{name}"]) for name in names}


def _members(content: ReportContent) -> Iterator[str]:
    weights = weights_of(content)
    if len(weights) < 2:
        return
    ranked = sorted(weights, key=lambda name: -weights[name])
    counting = [f"{_spaced(name)} {percent(weights[name])}" for name in ranked if weights[name] > 0]
    nothing = [_spaced(name) for name in ranked if weights[name] <= 0]
    rest = f"; {' and '.join(nothing)} {'counts' if len(nothing) == 1 else 'count'} nothing here" if nothing else ""
    what = "The head decides. Without it, the risk would be" if has_head(content) else "The risk is"
    yield f"{what} made of {', '.join(counting)}{rest}."


def has_head(content: ReportContent) -> bool:
    """Whether a head that learnt from labels decided, so that there are figures of the members alone."""
    return "ap_unsupervised_risk" in (content.truth or {})


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def tiles_of(content: ReportContent) -> list[tuple[str, str, str]]:
    """Name, value and note of each figure against known labels."""
    truth = content.truth or {}
    tiles = []
    if "ap" in truth:
        interval = content.ap_interval
        note = f"{interval.low:.2f} to {interval.high:.2f} with 95 % confidence; " if interval else ""
        note += f"a blind guess has {truth['prevalence']:.3f}"
        if "flagged_members" in truth and "ap_unsupervised_risk" in truth:
            note += f"; the members alone {truth['ap_unsupervised_risk']:.3f}"
        tiles.append(("Average precision", f"{truth['ap']:.3f}", note))
    if "auroc" in truth:
        tiles.append(("AUROC", f"{truth['auroc']:.3f}", "chance that an anomaly ranks above a normal row"))
    if "precision" in truth:
        note = f"of {_count(truth['flagged'])} labelled flags"
        if "flagged_members" in truth:
            note += f"; the members alone: {percent(truth['precision_members'])} of {_count(truth['flagged_members'])}"
        tiles.append(("Flags that are right", percent(truth["precision"]), note))
    if "recall" in truth:
        anomalies = f"of {_count(truth['anomalies'])} known anomalies" if "anomalies" in truth else "of known anomalies"
        if "recall_members" in truth:
            anomalies += f"; the members alone: {percent(truth['recall_members'])}"
        tiles.append(("Anomalies flagged", percent(truth["recall"]), anomalies))
    if "known_events" in truth:
        note = f"of {_count(truth['known_events'])} known; {_count(truth['false_events'])} false alarms"
        tiles.append(("Events found", _count(truth["found_events"]), note))
    if "precision_at_budget" in truth:
        found = percent(truth["recall_at_budget"])
        name = f"Right among the {_count(truth['budget'])} riskiest"
        note = f"flagged or not; {found} of the anomalies"
        if "precision_at_budget_members" in truth:
            found = percent(truth["recall_at_budget_members"])
            note += f"; the members alone: {percent(truth['precision_at_budget_members'])}, {found}"
        tiles.append((name, percent(truth["precision_at_budget"]), note))
    if "false_alarm_rate" in truth:
        tiles.append(("False alarms", percent(truth["false_alarm_rate"]), "of normal rows are flagged"))
    return tiles


def _count(value: float) -> str:
    return f"{int(value):,}"
