"""What a report says of drift: rows now beside those that a detector learnt from, column by column, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from detector.features import Wording
from detector.metrics.drift import ALERTS, RISK, Profile, Reference, Shift
from pipelines.reports.style import BLUE, GREY, in_house_style, percent, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHIFTED, STRONGLY = 0.1, 0.25
"""From which stability index a column has shifted, and from which strongly: the customary limits of credit scoring
(Siddiqi, Credit Risk Scorecards, Wiley 2006; Yurdakul and Naranjo, J. Risk Model Validation 2020). A small batch passes
them by chance, so an index must also pass what chance explains at that number of rows."""
ANY_EFFECT = 10.0
MOST_DRAWN = 3
MOST_BARS = 8
WORTH_SAYING = 0.02
NAMED = 3


@dataclass(frozen=True)
class ColumnDrift:
    """How far one column is from what it was.

    - ``words``: what people call it.
    - ``psi``: the population stability index; ``chance`` what it passes by chance once in a thousand.
    - ``verdict``: "stable", "shifted" or "shifted strongly".
    - ``change``: what it was and is, in words.
    """

    name: str
    words: str
    psi: float
    chance: float
    verdict: str
    change: str

    @property
    def shifted(self) -> bool:
        """Whether it is not stable."""
        return self.verdict != "stable"


@dataclass(frozen=True)
class Drift:
    """Rows beside those that a detector learnt from.

    - ``against``: whose rows those were, as the end of "beside …".
    - ``rows``, ``rows_before``: how many were compared.
    - ``columns``: what shifted most first.
    - ``new``, ``gone``: columns that only one of the two has.
    - ``figure``: the columns that shifted most, then and now; None where all are stable.
    """

    against: str
    rows: int
    rows_before: int
    columns: tuple[ColumnDrift, ...]
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    figure: Figure | None = None

    def finding(self) -> str:
        """The same in a sentence."""
        shifted = [column for column in self.columns if column.shifted]
        beside = f"Compared with {self.against},"
        if not shifted:
            return f"{beside} none of {len(self.columns):,} columns has shifted."
        named = ", ".join(f"{each.words} ({each.change}; PSI {each.psi:.2f})" for each in shifted[:NAMED])
        more = f" and {len(shifted) - NAMED:,} more" if len(shifted) > NAMED else ""
        have = "has" if len(shifted) == 1 else "have"
        return f"{beside} {len(shifted):,} of {len(self.columns):,} columns {have} shifted: {named}{more}."


def drift_since(
    reference: Reference,
    rows: pd.DataFrame,
    *,
    against: str,
    features: Sequence[str] = (),
    scores: pd.DataFrame | None = None,
    wording: Wording | None = None,
) -> Drift | None:
    """Compare cleaned rows with a reference; None if there is no row, or no column in common.

    - ``against``: whose reference it is: "the version before", with its days.
    - ``features``: the columns that are learnt from now.
    - ``scores``: ``risk`` and ``p_value`` of the rows, where the detector of the reference gave them; risks of two
      detectors are on two scales.

    >>> from detector.schema import Schema
    >>> before = pd.DataFrame({"amount": np.arange(1000.0)})
    >>> kept = Reference.of(before, Schema(numeric=("amount",)), risk=np.arange(9.0), p_value=np.ones(9))
    >>> drift_since(kept, before + 450.0, against="the version before").finding()
    'Compared with the version before, 1 of 1 columns has shifted: amount (median 500, now 950; PSI 3.57).'
    """
    wording = wording or Wording()
    known = [profile for profile in reference.columns if profile.name in rows.columns]
    if not len(rows) or not known:
        return None
    limits = {"psi": SHIFTED, "effect": ANY_EFFECT}
    shifts = [(profile.shift(rows[profile.name], **limits), _change(profile, rows[profile.name])) for profile in known]
    if scores is not None and len(scores):
        whole = rows.reindex(columns=[profile.name for profile in reference.columns])
        risk, alerts = reference.compare(whole, risk=scores["risk"], p_value=scores["p_value"], **limits)[-2:]
        shifts.append((risk, _change(reference.profiles[-1], scores["risk"])))
        shifts.append((alerts, _alerts(reference, scores["p_value"])))
    named = {RISK: "risk", ALERTS: "rows worth an alert"}
    found = [_judged(shift, named.get(shift.name) or wording.column(shift.name), change) for shift, change in shifts]
    found.sort(key=lambda each: (not each.shifted, -each.psi))
    drawn = [each for each in found if each.shifted and each.name not in (RISK, ALERTS)][:MOST_DRAWN]
    profiles = {profile.name: profile for profile in known}
    before = {profile.name for profile in reference.columns}
    return Drift(
        against,
        len(rows),
        reference.rows,
        tuple(found),
        new=tuple(wording.column(name) for name in features if name not in before),
        gone=tuple(wording.column(name) for name in sorted(before - set(rows.columns))),
        figure=shifted_columns([(each, profiles[each.name], rows[each.name]) for each in drawn]) if drawn else None,
    )


@in_house_style
def shifted_columns(columns: Sequence[tuple[ColumnDrift, Profile, pd.Series]]) -> Figure:
    """How each of some columns was distributed and is now: the share of the rows in each bin or level."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 0.5 + 2.1 * len(columns)), layout="constrained", facecolor="white")
    every = figure.subplots(len(columns), 1, squeeze=False)[:, 0]
    for axes, (column, profile, values) in zip(every, columns, strict=True):
        _bars(axes, profile, values)
        axes.set_title(f"{shorten(column.words, 48)} {column.verdict}", fontsize=10)
    every[0].legend(fontsize=8)
    return figure


def _bars(axes: Axes, profile: Profile, values: pd.Series) -> None:
    before, now = np.array(profile.counts, dtype=float), profile.count(values)
    shares = np.column_stack([before / max(before.sum(), 1.0), now / max(now.sum(), 1.0)])
    names = np.array(_names(profile), dtype=object)
    keep = np.flatnonzero(shares.max(axis=1) > 0)
    if not profile.edges and len(keep) > MOST_BARS:
        keep = np.sort(keep[np.argsort(-np.abs(shares[keep, 1] - shares[keep, 0]))[:MOST_BARS]])
    place = np.arange(len(keep))
    for offset, at, colour, label in ((-0.2, 0, GREY, "before"), (0.2, 1, BLUE, "now")):
        axes.bar(place + offset, shares[keep, at], width=0.4, color=colour, label=label)
    axes.set_xticks(place, names[keep].tolist(), fontsize=7.5)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.grid(visible=False, axis="x")


def _names(profile: Profile) -> list[str]:
    if not profile.edges:
        return [*(shorten(level, 10) for level in profile.levels), "others", "missing"]
    bounds = [f"{edge:.3g}" for edge in profile.edges]
    return [*(f"to {bound}" for bound in bounds), f"above\n{bounds[-1]}", "missing"]


def _span(profile: Profile, place: int) -> str:
    """A bin in words."""
    edges = [f"{edge:.3g}" for edge in profile.edges]
    if place == 0:
        return f"up to {edges[0]}"
    return f"above {edges[-1]}" if place == len(edges) else f"{edges[place - 1]} to {edges[place]}"


def _judged(shift: Shift, words: str, change: str) -> ColumnDrift:
    strongly = shift.psi > max(STRONGLY, shift.psi_limit)
    verdict = "shifted strongly" if strongly else "shifted" if shift.psi > shift.psi_limit else "stable"
    return ColumnDrift(shift.name, words, shift.psi, shift.psi_limit, verdict, change)


def _change(profile: Profile, values: pd.Series) -> str:
    """What changed most, as it was and as it is."""
    return ", ".join(_changes(profile, values)) or "as before"


def _changes(profile: Profile, values: pd.Series) -> Iterator[str]:
    before, now = np.array(profile.counts, dtype=float), profile.count(values)
    before, now = before / max(before.sum(), 1.0), now / max(now.sum(), 1.0)
    if profile.edges:
        known = values.to_numpy(dtype=np.float64, na_value=np.nan)
        known = known[np.isfinite(known)]
        if len(known) and before[:-1].sum():
            middle = profile.edges[min(np.searchsorted(before.cumsum(), before[:-1].sum() / 2), len(profile.edges) - 1)]
            was, now_is = f"{middle:.3g}", f"{np.median(known):.3g}"
            most = int(np.argmax(np.abs(now - before)[:-1]))
            span = f"{_span(profile, most)} {percent(before[most])}, now {percent(now[most])}"
            yield f"median {was}, now {now_is}" if was != now_is else span
    else:
        names = [*profile.levels, "other levels"]
        for place in np.argsort(-np.abs(now - before)[:-1], kind="stable")[:1]:
            yield f"{names[place]} {percent(before[place])}, now {percent(now[place])}"
    if abs(now[-1] - before[-1]) > WORTH_SAYING:
        yield f"missing {percent(before[-1])}, now {percent(now[-1])}"


def _alerts(reference: Reference, p_value: pd.Series) -> str:
    before, now = reference.alerts / max(reference.alert_rows, 1), float((p_value <= reference.alert_level).mean())
    return f"{percent(before)} of the rows, now {percent(now)}"
