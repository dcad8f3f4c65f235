"""Scores as they are written: reasons as a sentence for people, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from detector.explain.reason import Reason, as_text, reasons_in_words

REASONS_JSON = "reasons_json"


def as_written(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with their lists of reasons as text, and beside it as JSON; empty where there is no reason.

    >>> scores = pd.DataFrame({"reasons": [[Reason("amount", "950.00", "about 42", 0.61)], ()]})
    >>> [
    ...     [Reason.from_dict(each).text for each in json.loads(text or "[]")]
    ...     for text in as_written(scores)[REASONS_JSON]
    ... ]
    [['amount 950.00, expected about 42; 61 % of the risk'], []]
    """
    place = scores.columns.get_loc("reasons")
    written = reasons_in_words(scores)
    written.insert(place + 1, REASONS_JSON, as_text(scores["reasons"], _as_json))
    return written


def _as_json(reasons: Sequence[Reason]) -> str:
    return json.dumps([reason.to_dict() for reason in reasons], ensure_ascii=False)
