"""What a period of a backtest shows, in rows, cards and money."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.metrics import ranking

Floats = NDArray[np.float64]
LEAST_ROWS = 50
SUPERVISED, UNSUPERVISED = "with_labels_", "unsupervised_"
ORDER = (
    *("begin", "seed", "rows", "anomalies", "prevalence", "auroc", "ap", "flagged", "alerts_per_day", "recall"),
    *("precision_realised", "precision_predicted", "amount_caught", "amount_missed"),
)


def card_precision(entity: pd.Series, day: pd.Series, truth: pd.Series, score: Floats, *, k: int) -> float:
    """Share of the k riskiest entities of a day that are anomalous, averaged over days; caught ones leave later days.

    >>> cards, days = pd.Series(["a", "b", "a", "c"]), pd.Series([1, 1, 2, 2])
    >>> card_precision(cards, days, pd.Series([1, 0, 1, 0]), np.array([0.9, 0.1, 0.8, 0.2]), k=1)
    0.5
    """
    table = pd.DataFrame({"entity": entity, "day": day, "truth": truth.fillna(0), "score": score})
    caught: set[Any] = set()
    daily = []
    for _, rows in table.groupby("day", sort=True):
        entities = rows[~rows["entity"].isin(caught)].groupby("entity")[["score", "truth"]].max()
        top = entities.nlargest(k, "score")
        found = top.index[top["truth"] == 1]
        caught |= set(found)
        daily.append(len(found) / k)
    return float(np.mean(daily)) if daily else float("nan")


@dataclass(frozen=True)
class ScoredPeriod:
    """The rows of a period and what a detector decided of them.

    - ``entity``, ``amount``, ``scenario``: columns of ``rows``; what needs one that is not there is left out.
    - ``day``, ``truth``: the day of each row, and what it turned out to be (missing: unknown).
    - ``k``: entities a day that people can look at.
    """

    rows: pd.DataFrame
    day: pd.Series
    truth: pd.Series
    flagged: NDArray[np.bool_]
    p_value: Floats
    k: int
    entity: str | None = None
    amount: str | None = None
    scenario: str | None = None


def period_metrics(period: ScoredPeriod, risk: Floats) -> dict[str, float]:
    """All numbers of one period, ranked by a risk."""
    rows, day, truth, flagged, k = period.rows, period.day, period.truth, period.flagged, period.k
    days = max(day.nunique(), 1)
    found = {
        "rows": float(len(rows)),
        "anomalies": float((truth == 1).sum()),
        "flagged": float(flagged.sum()),
        "alerts_per_day": float(flagged.sum()) / days,
    }
    if ranking.has_both_classes(truth):
        ranked = ranking.ranking_metrics(truth, risk)
        found |= {"auroc": ranked["auroc"], "ap": ranked["ap"], "prevalence": ranked["prevalence"]}
    if period.entity is not None:
        perfect = truth.fillna(0).to_numpy(dtype=np.float64)
        found[f"card_precision_{k}"] = card_precision(rows[period.entity], day, truth, risk, k=k)
        found[f"card_precision_{k}_ceiling"] = card_precision(rows[period.entity], day, truth, perfect, k=k)
    found |= _precision(truth, flagged, period.p_value)
    fraud = (truth == 1).to_numpy()
    if fraud.any():
        found["recall"] = float(flagged[fraud].mean())
    if period.amount is not None:
        money = rows[period.amount].to_numpy(dtype=np.float64, na_value=0.0)
        found["amount_caught"] = float(money[fraud & flagged].sum())
        found["amount_missed"] = float(money[fraud & ~flagged].sum())
    if period.scenario is not None:
        for name in sorted(rows.loc[fraud, period.scenario].dropna().astype("str").unique()):
            own = fraud & (rows[period.scenario].astype("str") == name).to_numpy()
            found[f"anomalies_{name}"] = float(own.sum())
            found[f"recall_{name}"] = float(flagged[own].mean())
    return found


def in_order(periods: pd.DataFrame) -> pd.DataFrame:
    """The numbers in the order of ``period_metrics``, whatever the first period lacked; scenarios last, by name.

    >>> list(in_order(pd.DataFrame(columns=["begin", "recall_b", "anomalies_b", "recall_a", "recall", "flagged"])))
    ['begin', 'flagged', 'recall', 'recall_a', 'anomalies_b', 'recall_b']
    """

    def place(name: str) -> tuple[int, str, str]:
        kind, _, scenario = name.partition("_")
        if scenario and kind in ("anomalies", "recall"):
            return len(ORDER) + 1, scenario, kind
        return (ORDER.index(name) if name in ORDER else len(ORDER)), "", ""

    return periods[sorted(periods, key=place)]


def _precision(truth: pd.Series, flagged: NDArray[np.bool_], p_value: Floats) -> dict[str, float]:
    """Precision as the p-values promise it (Benjamini and Hochberg's estimate), and as it turned out."""
    count = int(flagged.sum())
    if not count:
        return {}
    expected = min(1.0, len(p_value) * float(p_value[flagged].max()) / count)
    known = flagged & truth.notna().to_numpy()
    realised = {"precision_realised": float((truth[known] == 1).mean())} if known.any() else {}
    return {"precision_predicted": 1 - expected} | realised
