"""What a report says first: the findings in sentences, and the tiles of figures."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.reports.content import ReportContent
from pipelines.reports.style import percent

FEW_FLAGS = 30
SURE = 1.63
"""A Kolmogorov-Smirnov distance that chance passes once in a hundred, times the square root of the rows."""


def findings_of(content: ReportContent) -> list[str]:
    """The findings, the most important first."""
    return [*_flags(content), *_ranking(content), *_calibration(content), *_members(content)]


def _flags(content: ReportContent) -> Iterator[str]:
    truth = content.truth or {}
    if "flagged" in truth and "anomalies" in truth:
        flags, anomalies = int(truth["flagged"]), int(truth["anomalies"])
        right, found = round(truth["precision"] * flags), round(truth["recall"] * anomalies)
        if not flags:
            yield f"Nothing was flagged of {_rows(content)}, so none of {anomalies:,} known anomalies was found."
        else:
            few = " Few flags: another sample may well differ." if flags < FEW_FLAGS else ""
            yield (
                f"{right:,} of {flags:,} flags {'was' if right == 1 else 'were'} right, and they found {found:,} of "
                f"{anomalies:,} known anomalies.{few}"
            )
    elif content.flagged is not None:
        share = f" ({percent(content.flagged / content.reviewed)})" if content.reviewed and content.flagged else ""
        yield f"{content.flagged:,} of {_rows(content)} {'is' if content.flagged == 1 else 'are'} flagged{share}."
    if "known_events" in truth:
        yield (
            f"{truth['found_events']:,.0f} of {truth['known_events']:,.0f} known events were found; of "
            f"{truth['flagged_events']:,.0f} flagged ones {truth['false_events']:,.0f} are false alarms."
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
    right = found["calibration_distance"] <= SURE / rows**0.5
    yield (
        f"p-values {'can be trusted' if right else 'are off'}: of {rows:,.0f} normal rows a threshold of 1 % flags "
        f"{percent(share)}."
    )


def _members(content: ReportContent) -> Iterator[str]:
    model = content.model or {}
    weights = {name: float(model[f"weight_{name}"]) for name in content.members if f"weight_{name}" in model}
    if len(weights) < 2:
        return
    ranked = sorted(weights, key=lambda name: -weights[name])
    counting = [f"{name} {percent(weights[name])}" for name in ranked if weights[name] > 0]
    nothing = [name for name in ranked if weights[name] <= 0]
    rest = f"; {' and '.join(nothing)} {'counts' if len(nothing) == 1 else 'count'} nothing here" if nothing else ""
    yield f"The risk is made of {', '.join(counting)}{rest}."


def tiles_of(content: ReportContent) -> list[tuple[str, str, str]]:
    """Name, value and note of each figure against known labels."""
    truth = content.truth or {}
    tiles = []
    if "ap" in truth:
        interval = content.ap_interval
        note = f"{interval.low:.2f} to {interval.high:.2f} with 95 % confidence; " if interval else ""
        tiles.append(("Average precision", f"{truth['ap']:.3f}", f"{note}a blind guess has {truth['prevalence']:.3f}"))
    if "auroc" in truth:
        tiles.append(("AUROC", f"{truth['auroc']:.3f}", "chance that an anomaly ranks above a normal row"))
    if "precision" in truth:
        tiles.append(
            (
                "Flags that are right",
                percent(truth["precision"]),
                f"of {_count(truth['flagged'])} labelled flags",
            )
        )
    if "recall" in truth:
        anomalies = f"of {_count(truth['anomalies'])} known anomalies" if "anomalies" in truth else "of known anomalies"
        tiles.append(("Anomalies flagged", percent(truth["recall"]), anomalies))
    if "known_events" in truth:
        note = f"of {_count(truth['known_events'])} known; {_count(truth['false_events'])} false alarms"
        tiles.append(("Events found", _count(truth["found_events"]), note))
    if "precision_at_budget" in truth:
        found = percent(truth["recall_at_budget"])
        name = f"Right among the {_count(truth['budget'])} riskiest"
        tiles.append((name, percent(truth["precision_at_budget"]), f"flagged or not; {found} of the anomalies"))
    if "false_alarm_rate" in truth:
        tiles.append(("False alarms", percent(truth["false_alarm_rate"]), "of normal rows are flagged"))
    return tiles


def _count(value: float) -> str:
    return f"{int(value):,}"
