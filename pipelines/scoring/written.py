"""Scores as they are written: reasons as a sentence for people, and as JSON for programs."""

from __future__ import annotations

import json

import pandas as pd

from detector.explain.reason import reasons_in_words

REASONS_JSON = "reasons_json"


def as_written(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with their lists of reasons as text, and beside it as JSON; empty where there is no reason.

    >>> from detector.explain.reason import Reason
    >>> scores = pd.DataFrame({"reasons": [[Reason("amount", "950.00", "about 42", 0.61)], ()]})
    >>> [
    ...     [Reason.from_dict(each).text for each in json.loads(text or "[]")]
    ...     for text in as_written(scores)[REASONS_JSON]
    ... ]
    [['amount 950.00, expected about 42; 61 % of the risk'], []]
    """
    place = scores.columns.get_loc("reasons")
    as_json = [
        json.dumps([reason.to_dict() for reason in each], ensure_ascii=False) if each else ""
        for each in scores["reasons"]
    ]
    written = reasons_in_words(scores)
    written.insert(place + 1, REASONS_JSON, pd.Series(as_json, index=scores.index, dtype="str"))
    return written
