"""Scores as they are written: reasons as a sentence for people, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from detector.explain.reason import Reason, reasons_in_words

REASONS_JSON = "reasons_json"


def as_written(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with their lists of reasons as text, and beside it as JSON; empty where there is no reason.

    >>> scores = pd.DataFrame({"reasons": [[Reason("amount", "950.00", "about 42", 0.61)], ()]})
    >>> as_written(scores)["reasons_json"].tolist()
    ['[{"feature": "amount", "observed": "950.00", "expected": "about 42", "share": 0.61}]', '']
    """
    place = scores.columns.get_loc("reasons")
    as_json = [to_json(each) if each else "" for each in scores["reasons"]]
    written = reasons_in_words(scores)
    written.insert(place + 1, REASONS_JSON, pd.Series(as_json, index=scores.index, dtype="str"))
    return written


def to_json(reasons: Sequence[Reason]) -> str:
    """Reasons as a JSON list; names and values are the strings they are."""
    names = ("feature", "observed", "expected")
    found = [{name: getattr(each, name) for name in names} | {"share": round(each.share, 4)} for each in reasons]
    return json.dumps(found, ensure_ascii=False)
