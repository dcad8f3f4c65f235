"""Attribution of a row's risk to its features: what each member found, shared out and described in reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.detectors.table.model import TableModel
from detector.encoding.clocks import from_cycle
from detector.encoding.encoded import SPAN, UNSEEN, Encoded
from detector.encoding.relations import LEAST
from detector.encoding.spans import undamped
from detector.encoding.table import TableEncoder
from detector.explain import reason as explain
from detector.explain.reason import Reason
from detector.features.feature import is_rising
from detector.head.events import EVENTS, EventScore
from detector.head.model import Head
from detector.members.rare_values import RARE_VALUES

SPARE_REASONS = 2
WHOLE_DAYS = 10
LONGEST_VALUE = 40
AS_EXPECTED = 0.1
"""In deviations of a column: a number that is no farther from what was expected explains nothing, however much of a
distance it adds. Larger, and small but odd differences are not said."""


@dataclass(frozen=True)
class TableExplainer:
    """What stands behind the risks of a model."""

    model: TableModel

    @property
    def _columns(self) -> TableEncoder:
        return self.model.columns

    @property
    def feature_names(self) -> list[str]:
        """What reasons may name: the features of the row, then the columns that only its window has."""
        own = [feature.name for feature in self._columns.features]
        beside = () if self.model.window is None else self.model.window.steps.columns
        return own + [name for name in dict.fromkeys(beside) if name is not None and name not in own]

    def explain(self, rows: pd.DataFrame, *, top: int) -> list[list[Reason]]:
        """Reasons for cleaned rows, most important first; see ``TabularScorer.explain``."""
        if rows.empty:
            return []
        encoded = self.model.encoded(rows)
        reasons, steps = self._of_values(rows, encoded, top=top), self.model.steps_lifted(encoded)
        lifted = np.flatnonzero(steps > 0)
        risk = self.model.measure(rows.iloc[lifted])["risk"].to_numpy() if len(lifted) else ()
        for row, own in zip(lifted.tolist(), risk, strict=True):
            step = self.model.step_of_moved / (own - self.model.calibration.median)
            first = self._of_constants(rows, encoded, row)
            first += self._of_relations(encoded, row, steps[row] - len(first))
            first = [replace(each, share=each.share * step) for each in first]
            left = max(0.0, 1.0 - steps[row] * step)
            names = {each.feature for each in first}
            others = [replace(each, share=each.share * left) for each in reasons[row]]
            rest = [each for each in others if each.share >= explain.LEAST_SHARE]
            rest = [each for each in rest if not names & {each.feature, *each.columns}]
            reasons[row] = [*first, *rest][:top]
        for each in self._columns.features:
            unseen = () if each.code is None else np.flatnonzero(encoded.codes[:, each.code] == UNSEEN).tolist()
            for row in unseen:
                value = str(rows[each.name].iloc[row])
                reasons[row] = [_with_value(own, value) if own.feature == each.name else own for own in reasons[row]]
        return reasons

    def _of_constants(self, rows: pd.DataFrame, encoded: Encoded, row: int) -> list[Reason]:
        """The columns that never varied and now do, each with the steps that it lifts the risk by as its share."""
        if encoded.moved is None:
            return []
        chosen = [self._columns.constants.columns[place] for place in np.flatnonzero(encoded.moved[row]).tolist()]
        return [Reason(each.name, each.say(rows[each.name].iloc[row]), each.expected, 1.0) for each in chosen]

    def _of_relations(self, encoded: Encoded, row: int, steps: float) -> list[Reason]:
        """The column that explains most of the relations that a row breaks, with the steps as its share."""
        if encoded.broken is None or not steps:
            return []
        places, relations = self._columns.places, self._columns.relations
        relation, column = relations.at_fault(encoded.broken[row])
        at = places[column]
        if relation.kind == LEAST:
            observed = days(float(undamped(encoded.numeric[row, at])))
            said = f"at least {relation.constant:.6g} as in nearly all rows"
            return [Reason(column, observed, said, steps, self._made_of[column])]
        observed = explain.number(float(encoded.numeric[row, at]), self._columns.decimals[at])
        values = encoded.numeric[[row]][:, [places[name] for name in relation.columns]]
        expected = explain.number(float(relation.expected(values, column)[0]), self._columns.decimals[at])
        said = f"{expected} by {relation.formula}" if expected != "missing" else relation.formula
        return [Reason(column, observed, said, steps, relation.columns)]

    def _of_values(self, rows: pd.DataFrame, encoded: Encoded, *, top: int) -> list[list[Reason]]:
        """The reasons by what the members read."""
        shares = self._shares(encoded)
        if self.model.serving_head is not None:
            shares = self._shares_of_head(self.model.serving_head, rows, shares)
        chosen = explain.top_features(self._suspicious(encoded, shares), top + SPARE_REASONS)
        reasons = self._reasons(encoded, shares, [row[:top] for row in chosen])
        missed = [len(each) < len(row[:top]) for each, row in zip(reasons, chosen, strict=True)]
        quiet = [missed[i] or not all(reason.telling for reason in each) for i, each in enumerate(reasons)]
        short = [i for i, row in enumerate(chosen) if quiet[i] and len(row) > top]
        spare = self._reasons(encoded.take(short), shares[short], [chosen[i][top:] for i in short]) if short else []
        for i, more in zip(short, spare, strict=True):
            reasons[i] += more
        if none := [i for i, each in enumerate(reasons) if not any(reason.telling for reason in each)]:
            # then what there is, however little it adds and however it deviates; first what the table never holds
            every = [np.argsort(-shares[i], kind="stable").tolist() for i in none]
            for i, found in zip(
                none, self._reasons(encoded.take(none), shares[none], every, any_way=True), strict=True
            ):
                reasons[i] = explain.most_telling(sorted(found, key=lambda reason: not reason.lacks_value), 1)
        return [explain.most_telling(each, top) for each in reasons]

    def attributions(self, encoded: Encoded) -> dict[str, NDArray[np.float64]]:
        """How much each feature adds to each member's score, shape (n_rows, n_features)."""
        n_features = len(self._columns.features)
        wanted = {
            "surprise": "autoencoder" in self.model.members,
            "table": self.model.trees is not None,
            "space": self.model.references or self.model.known,
            "far": self.model.known is not None and len(self._columns.centre),
            "blame": self.model.window is not None,
        }
        found = self.model.inside.run(encoded.inputs(), [name for name, is_needed in wanted.items() if is_needed])
        attributions = {}
        if "autoencoder" in self.model.members:
            attributions["autoencoder"] = sum_by(found["surprise"], self._columns.input_features, n_features)
        if self.model.trees is not None:
            parts = self.model.trees.contributions(found["table"])
            attributions["forest"] = sum_by(parts, self._columns.table_features, n_features)
        for name, member in self.model.references.items():
            attributions[name] = sum_by(member.differences(found["space"]), self._columns.space_features, n_features)
        if self.model.known is not None:
            far = found.get("far", np.zeros((len(encoded), 0), dtype=np.float32))
            for name, parts in self.model.known.differences(far, found["space"]).items():
                attributions[name] = sum_by(parts, self._columns.space_features, n_features)
        if self.model.known is not None and RARE_VALUES in self.model.members:
            parts = self.model.known.rare.contributions(found["space"][:, len(self._columns.centre) :])
            owners = self._columns.space_features[len(self._columns.centre) :]
            attributions[RARE_VALUES] = sum_by(parts, owners, n_features)
        if self.model.window is None:
            return attributions
        names = self.feature_names
        beside = ((0, 0), (0, len(names) - n_features))
        attributions = {name: np.pad(parts, beside) for name, parts in attributions.items()}
        owner = {name: f for f, name in enumerate(names)}
        known = [place for place, name in enumerate(self.model.window.steps.columns) if name is not None]
        owners = np.array([owner[str(self.model.window.steps.columns[place])] for place in known])
        return attributions | {"sequence": sum_by(found["blame"][:, known], owners, len(names))}

    def _foreseen(self, encoded: Encoded) -> dict[str, Callable[[int], tuple[str, str]]]:
        """For each column that only the window has, what was observed of a row, and what the events lead to expect."""
        if self.model.window is None or encoded.window is None:
            return {}
        expected = self.model.window.unscale(self.model.inside.run(encoded.inputs(), ["foreseen"])["foreseen"])
        return {
            name: partial(_described, encoded.window[:, place], expected[:, place])
            for place, name in enumerate(self.model.window.steps.columns)
            if name is not None
        }

    def _shares(self, encoded: Encoded) -> NDArray[np.float64]:
        """Each feature's share of the risk: what it adds beyond what it adds to a typical row."""
        attributions = self.attributions(encoded)
        beyond = {name: parts - self.model.usual.get(name, 0.0) for name, parts in attributions.items()}
        risk = self.model.fusion.contributions(self.model.standardised(encoded))
        return explain.risk_shares(beyond, {name: risk[:, i] for i, name in enumerate(self.model.members)})

    def _shares_of_head(self, head: Head, rows: pd.DataFrame, members: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each feature's share of the head's risk; what the members' scores add is shared as the members share it."""
        falls = np.maximum(head.contributions(rows, self.model.for_head(rows, self.model.unsupervised(rows))), 0.0)
        places = {feature.name: place for place, feature in enumerate(self._columns.features)}
        shares = np.zeros(members.shape)
        for fall, name in zip(falls.T, head.columns, strict=True):
            if name in places:
                shares[:, places[name]] += fall
            elif name == EVENTS and head.events is not None:
                shares += fall[:, None] * self._shares_of_events(head.events, rows, members, places)
            else:
                shares += fall[:, None] * members
        total = shares.sum(axis=1, keepdims=True)
        return np.where(total > 0, shares / np.where(total > 0, total, 1.0), members)

    def _shares_of_events(
        self, events: EventScore, rows: pd.DataFrame, members: NDArray[np.float64], places: dict[str, int]
    ) -> NDArray[np.float64]:
        """The same of the score of the events before: of the columns they are known by, else as the members share."""
        falls, shares = events.falls(rows), np.zeros(members.shape)
        total = falls.sum(axis=1, keepdims=True)
        for channel, fall in zip(events.window.steps.channels, falls.T, strict=True):
            if channel.said_as in places:
                shares[:, places[str(channel.said_as)]] += fall
            else:
                shares += fall[:, None] * members
        return np.where(total > 0, shares / np.where(total > 0, total, 1.0), members)

    @cached_property
    def _made_of(self) -> dict[str, tuple[str, ...]]:
        """The columns that each feature is made of."""
        return {feature.name: feature.columns for feature in self._columns.features}

    @cached_property
    def _rising(self) -> dict[int, int]:
        """The features of which only more than usual is suspicious, and the numeric column of each."""
        return {
            f: feature.numeric[0]
            for f, feature in enumerate(self._columns.features)
            if feature.kind != "datetime" and feature.numeric and is_rising(feature.name)
        }

    def _suspicious(self, encoded: Encoded, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """The shares without those of features that deviate in a direction that raises no suspicion."""
        if not self._rising:
            return shares
        columns, kept = list(self._rising.values()), shares.copy()
        falls = encoded.numeric[:, columns] <= self._columns.centre[columns]
        kept[:, list(self._rising)] *= ~falls
        return np.where(kept.sum(axis=1, keepdims=True) > 0, kept, shares)

    def _reasons(
        self,
        encoded: Encoded,
        shares: NDArray[np.float64],
        chosen: Sequence[Sequence[int]],
        *,
        any_way: bool = False,
    ) -> list[list[Reason]]:
        """The chosen features of each row as reasons, without those that raise no suspicion unless ``any_way``."""
        features, names = self._columns.features, self.feature_names
        own = [(row, f) for row, each in enumerate(chosen) for f in each if f < len(features)]
        observed = encoded.take(np.array([row for row, _ in own], dtype=np.int64))
        expected = self._expected(observed, np.array([f for _, f in own], dtype=np.int64))
        as_expected = self._as_expected(observed, expected, np.array([f for _, f in own], dtype=np.int64))
        levels = [self._columns.level_names(code) for code in range(len(self._columns.levels))]
        place, foreseen = {pair: n for n, pair in enumerate(own)}, self._foreseen(encoded)
        reasons: list[list[Reason]] = [[] for _ in chosen]
        for row, each in enumerate(chosen):
            for f in each:
                at = place.get((row, f), -1)
                if not any_way and f < len(features) and as_expected[at]:
                    continue
                if not any_way and f in self._rising:
                    column = self._rising[f]
                    if observed.numeric[at, column] <= expected.numeric[at, column]:
                        continue
                if f < len(features):
                    described = self._describe(observed, expected, at, f, levels)
                else:
                    described = foreseen[names[f]](row)
                columns = features[f].columns if f < len(features) else (names[f],)
                reasons[row].append(Reason(names[f], *described, float(shares[row, f]), columns))
        return reasons

    def _expected(self, seen: Encoded, feature: NDArray[np.int64]) -> Encoded:
        """What the given feature of each row should have been: the row's reconstruction with that feature hidden."""
        hidden = replace(seen, numeric=seen.numeric.copy(), codes=seen.codes.copy())
        if "autoencoder" not in self.model.members:
            hidden.numeric[:] = self._columns.centre
            hidden.codes[:] = [np.argmax(seen[2:]) + 2 for seen in self._columns.counts]
            return hidden
        for f in np.unique(feature):
            at, what = feature == f, self._columns.features[f]
            for column in what.numeric:
                hidden.numeric[at, column] = np.nan
            if what.code is not None:
                hidden.codes[at, what.code] = UNSEEN
        found = self.model.autoencoder("expected likelihood", hidden)
        numeric, codes = hidden.numeric, hidden.codes
        if "expected" in found:
            numeric = np.clip(self._columns.unscale(found["expected"]), self._columns.least, self._columns.most)
        if "likelihood" in found:
            codes = self._columns.likeliest(found["likelihood"])
        return Encoded(numeric, codes)

    def _as_expected(self, seen: Encoded, expected: Encoded, feature: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the given feature of each row, a number or a point on the clock, is where it was expected.

        A category never is, nor a gap.
        """
        found = np.zeros(len(feature), dtype=bool)
        for f in np.unique(feature):
            at, what = np.flatnonzero(feature == f), self._columns.features[f]
            columns = list(what.numeric)
            typical = expected.numeric[np.ix_(at, columns)]
            if what.kind == "datetime":  # what is expected lies within the circle, not on it
                typical = typical / np.maximum(np.hypot(*typical.T), 1e-9)[:, None]
            with np.errstate(over="ignore"):  # so far away that it is infinitely many deviations
                away = np.abs(seen.numeric[np.ix_(at, columns)] - typical) / self._columns.scale[columns]
            found[at] = bool(columns) and (away < AS_EXPECTED).all(axis=1)
        return found

    def _describe(
        self, seen: Encoded, expected: Encoded, row: int, f: int, levels: Sequence[NDArray[Any]]
    ) -> tuple[str, str]:
        feature = self._columns.features[f]
        if (code := feature.code) is not None:
            return str(levels[code][seen.codes[row, code]]), str(levels[code][expected.codes[row, code]])
        at = list(feature.numeric)
        if feature.kind == "datetime":
            part = feature.name.rsplit(" ", 1)[1]
            say = explain.clock if part == "hour" else explain.weekday
            pair = np.stack([seen.numeric[row, at], expected.numeric[row, at]])
            observed, typical = from_cycle(pair, part)
            return say(float(observed)), say(float(typical))
        if feature.kind == SPAN:
            observed, typical = undamped(np.stack([seen.numeric[row, at], expected.numeric[row, at]]))[:, 0].tolist()
            return days(observed), explain.about(typical, 0 if abs(typical) >= WHOLE_DAYS else 1)
        decimals, column = self._columns.decimals[at[0]], at[0]
        observed, typical = float(seen.numeric[row, column]), float(expected.numeric[row, column])
        return explain.number(observed, decimals), explain.about(typical, decimals)


def _with_value(reason: Reason, value: str) -> Reason:
    """A reason that shows the category that training never had, or too seldom to know it."""
    shown = value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 1]}…"
    return replace(reason, observed=f"{shown} ({reason.observed})")


def _described(observed: NDArray[np.float64], expected: NDArray[np.float64], row: int) -> tuple[str, str]:
    return explain.number(float(observed[row]), 2), explain.about(float(expected[row]), 2)


def days(observed: float) -> str:
    """Days that were observed; whole where there are many.

    >>> days(0.25), days(-2.0), days(400.25)
    ('0.2', '-2', '400')
    """
    observed = round(observed, 6)
    return explain.number(observed, 0 if abs(observed) >= WHOLE_DAYS or observed.is_integer() else 1)


def sum_by(parts: NDArray[Any], groups: NDArray[np.int64], n_groups: int) -> NDArray[np.float64]:
    """The columns of each group summed.

    >>> sum_by(np.array([[1.0, 2.0, 4.0]]), np.array([0, 1, 0]), 2)
    array([[5., 2.]])
    """
    summed = np.zeros((len(parts), n_groups))
    for column, group in enumerate(groups):
        summed[:, group] += parts[:, column]
    return summed
