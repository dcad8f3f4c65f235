"""One run of the rules over the rows of a batch: what each hits, what is flagged in the end, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.values import naive_utc
from detector.decide.days import Used
from detector.decide.overrides import Override
from detector.decide.policy import Decision
from detector.decide.severity import SEVERITIES
from detector.detectors.table.scoring import TableScoring
from detector.errors import DetectorError
from detector.explain.reason import Reason
from pipelines.rules.book import Rule, RuleBook, hash_of
from pipelines.rules.lists import ValueList
from pipelines.rules.names import FOR_ALERTS, typed
from pipelines.rules.values import Values

log = logging.getLogger("detector.rules")

COLUMNS = ("rules_hit", "hidden_by", "rules_version")
(TAGS,) = FOR_ALERTS
MANY_ROWS, THREADS = 10_000, 2
_TOP = np.array(["", *SEVERITIES], dtype=object)


@dataclass(frozen=True)
class Tally:
    """What a rule came to on one day of a batch.

    - ``hits``: Rows that it hit.
    - ``model``: Those of them that the policy flags, or would.
    - ``flagged``: Rows that are flagged because of it: the policy alone would not have.
    - ``hidden``: Rows that it keeps from being flagged.
    """

    rule: str
    hash: str
    state: str
    day: date
    hits: int
    model: int
    flagged: int
    hidden: int


class RuleRun:
    """The rules over the rows of one batch, part by part, then all at once; see ``detector.decide.overrides``.

    A rule that fails is left out of the whole batch, and ``failed`` says why. Once it is decided, ``model`` are the
    rows that the policy flags, and ``flagged`` those that are flagged in the end, (n_rows,).
    """

    def __init__(self, book: RuleBook, *, now: datetime) -> None:
        self.book = book
        self.now = now
        self.failed: dict[str, str] = {}
        self.rules = list(book.rules)
        self._lists: dict[str, ValueList] = {}
        self._hits: list[NDArray[np.uint8]] = []  # of each part, (n_rules, n_rows), packed
        self._sizes: list[int] = []
        self._tallies: list[Tally] = []
        self.model = self.flagged = self._whole = np.zeros(0, dtype=bool)
        for rule in self.rules:
            self._read_lists(rule)

    def with_columns(self, rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
        """Cleaned rows with the columns that only rules need, read from the ``frame`` they came in."""
        return rows.assign(**typed(frame.loc[rows.index], self.book.names.extra))

    def override(self, rows: pd.DataFrame, measures: pd.DataFrame) -> Override:
        """Which rows of a part each rule hits."""
        scores = {name: measures[name].to_numpy() for name in ("risk", "p_value")}
        values = Values(rows, scores, lists=self._lists, time=self.book.time, now=naive_utc(self.now))
        hits = np.zeros((len(self.rules), len(rows)), dtype=bool)
        for number, found in enumerate(self._looked_up(values)):
            if isinstance(found, Exception):
                self._fail(self.rules[number], found)
            elif found is not None:
                hits[number] = found
        self._hits.append(np.packbits(hits, axis=0))
        self._sizes.append(len(rows))
        raises = self._acting("score_up", hits)
        risk = None
        if any(each.any() for _, each in raises):
            risk = scores["risk"].astype(np.float64).copy()
            for rule, each in raises:
                risk[each] += rule.section.by
        return Override(
            risk, _any(self._acting("alert", hits), len(rows)), _any(self._acting("never", hits), len(rows))
        )

    def _looked_up(self, values: Values) -> list[NDArray[np.bool_] | Exception | None]:
        """What each rule hits, or how it failed; None of those that have failed before. Many rows on two threads."""

        def look(rule: Rule) -> NDArray[np.bool_] | Exception | None:
            if rule.name in self.failed:
                return None
            try:
                return rule.condition.hits(values)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong in a rule, scoring goes on
                return error

        if len(values) < MANY_ROWS or len(self.rules) < 2:
            return [look(rule) for rule in self.rules]
        with ThreadPoolExecutor(THREADS) as pool:  # Arrow works without Python's lock
            return list(pool.map(look, self.rules))

    def decide(self, scoring: TableScoring, used: Used | None) -> tuple[Decision, NDArray[np.bool_]]:
        """The policy's decision, and which rows are flagged in the end: never goes before alert.

        What a failed rule said of earlier parts is of no account, but for risks that it had raised.
        """
        decision = scoring.decision(used)
        hits = self._all()
        alert, never = (_any(self._acting(action, hits), hits.shape[1]) for action in ("alert", "never"))
        flagged = (decision.flagged | alert) & ~never
        # what would be flagged if nothing were hidden; asked only where something is
        whole = scoring.decision(used, barred=False).flagged if never.any() else decision.flagged
        self._tallies = self._tallied(hits, whole, alert=alert, flagged=flagged, day=scoring.day)
        self.model, self.flagged, self._whole = decision.flagged, flagged, whole | alert
        return decision, flagged

    def annotate(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Scores with what the rules say of each row: columns, severities, reasons."""
        hits, start = self._all(), 0
        for frame in frames:
            part = slice(start, start + len(frame))
            start += len(frame)
            yield self._annotated(frame, hits[:, part], part)

    @property
    def left_out(self) -> dict[str, str]:
        """Why rules say nothing of this batch: they do not fit the columns, or have failed."""
        return {**self.book.broken, **self.failed}

    @property
    def tallies(self) -> list[Tally]:
        """What each rule came to, by day; of failed ones nothing."""
        return [each for each in self._tallies if each.rule not in self.failed]

    @property
    def hits(self) -> dict[str, NDArray[np.bool_]]:
        """Which of all rows each rule hits, by its name."""
        return {rule.name: each for rule, each in zip(self.rules, self._all(), strict=True)}

    def _annotated(self, frame: pd.DataFrame, hits: NDArray[np.bool_], part: slice) -> pd.DataFrame:
        live = [number for number, rule in enumerate(self.rules) if rule.is_live]
        names = [self.rules[number].name for number in live]
        flagged, model = self.flagged[part], self.model[part]
        hidden = self._whole[part] & ~flagged
        never = [number for number in live if self.rules[number].section.action == "never"]
        found = frame.assign(
            rules_hit=_joined(hits[live], names, frame.index),
            hidden_by=_joined(hits[never] & hidden, [self.rules[number].name for number in never], frame.index),
            rules_version=pd.Series(self.book.version, index=frame.index, dtype="str"),
        )
        acting = [number for number in live if self.rules[number].section.action == "alert"]
        tags = [self.rules[number].section.tag for number in acting]
        tagged = [number for number, tag in zip(acting, tags, strict=True) if tag]
        words = [self.rules[number].section.tag for number in tagged]
        if "explored" in found:  # nobody is to hear of what is hidden, by chance neither
            found["explored"] = found["explored"].to_numpy(dtype=bool) & ~hidden
        found[TAGS] = _joined(hits[tagged] & flagged, words, frame.index)
        if not acting or not (hits[acting] & flagged).any():
            return found
        severities, reasons = (
            found["severity"].to_numpy(dtype=object).copy(),
            found["reasons"].to_numpy(dtype=object).copy(),
        )
        level = np.array([SEVERITIES.index(each) + 1 if each else 0 for each in severities])
        level[~model] = 0  # what the policy does not flag is as severe as the rules say
        for number in reversed(acting):
            section = self.rules[number].section
            at = np.flatnonzero(hits[number] & flagged)
            level[at] = np.maximum(level[at], SEVERITIES.index(section.severity) + 1)
            reason = Reason.of_rule(section.name, section.said)
            for place in at.tolist():
                reasons[place] = [reason, *reasons[place]]
        severities[flagged] = _TOP[level[flagged]]
        found["severity"] = pd.Series(severities, index=frame.index).astype(frame["severity"].dtype)
        found["reasons"] = pd.Series(reasons, index=frame.index, dtype=object)
        return found

    def _tallied(
        self,
        hits: NDArray[np.bool_],
        model: NDArray[np.bool_],
        *,
        alert: NDArray[np.bool_],
        flagged: NDArray[np.bool_],
        day: NDArray[np.datetime64] | None,
    ) -> list[Tally]:
        days = np.full(hits.shape[1], np.datetime64(naive_utc(self.now), "D")) if day is None else day
        found = []
        for rule, hit in zip(self.rules, hits, strict=True):
            if rule.name in self.failed:
                continue
            section = rule.section
            for moment in np.unique(days[hit]):
                here = hit & (days == moment)
                because = here & ~model if section.action == "alert" else np.zeros(len(here), dtype=bool)
                hides = here & (model | alert) if section.action == "never" else np.zeros(len(here), dtype=bool)
                if rule.is_live:
                    because, hides = because & flagged, hides & ~flagged
                found.append(
                    Tally(
                        section.name,
                        hash_of(section),
                        section.state,
                        moment.astype("datetime64[D]").item(),
                        int(here.sum()),
                        int((here & model).sum()),
                        int(because.sum()),
                        int(hides.sum()),
                    )
                )
        return found

    def _acting(self, action: str, hits: NDArray[np.bool_]) -> list[tuple[Rule, NDArray[np.bool_]]]:
        """Live rules of an action that have not failed, with the rows that they hit."""
        return [
            (rule, each)
            for rule, each in zip(self.rules, hits, strict=True)
            if rule.is_live and rule.section.action == action and rule.name not in self.failed
        ]

    def _all(self) -> NDArray[np.bool_]:
        """Which row each rule hits, (n_rules, n_rows); nothing of those that have failed."""
        parts = [np.unpackbits(part, axis=0, count=len(self.rules)).astype(bool) for part in self._hits]
        found = np.concatenate(parts, axis=1) if parts else np.zeros((len(self.rules), 0), dtype=bool)
        for number, rule in enumerate(self.rules):
            if rule.name in self.failed:
                found[number] = False
        return found

    def _read_lists(self, rule: Rule) -> None:
        try:
            self._lists |= self.book.lists(rule.condition.lists)
        except DetectorError as error:
            self._fail(rule, error)

    def _fail(self, rule: Rule, error: Exception) -> None:
        said = str(error) if isinstance(error, DetectorError) else f"{type(error).__name__}: {error}"
        self.failed[rule.name] = said[:500]
        log.warning("the rule %s is left out: %s", rule.name, self.failed[rule.name])


def _any(acting: Sequence[tuple[Rule, NDArray[np.bool_]]], n_rows: int) -> NDArray[np.bool_]:
    found = np.zeros(n_rows, dtype=bool)
    for _, each in acting:
        found |= each
    return found


def _joined(hits: NDArray[np.bool_], names: Sequence[str], index: pd.Index) -> pd.Series:
    """The names of the rules that hit each row, in one text; empty for most."""
    found = np.full(len(index), "", dtype=object)
    at = np.flatnonzero(hits.any(axis=0)) if len(names) else np.zeros(0, dtype=np.int64)
    if len(at):
        patterns, which = np.unique(hits[:, at], axis=1, return_inverse=True)
        texts = [", ".join(dict.fromkeys(np.array(names, dtype=object)[pattern])) for pattern in patterns.T]
        found[at] = np.array(texts, dtype=object)[which.ravel()]
    return pd.Series(found, index=index, dtype="str")
