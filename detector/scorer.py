"""What is left of a detector after training: all that scoring needs, without TensorFlow or scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector import explain
from detector.calibrate import Calibrator
from detector.clean import clean
from detector.columns import UNSEEN, Encoded, TableEncoder, from_cycle
from detector.errors import SettingError, ShapeError
from detector.event_window import EventWindow
from detector.explain import Reason
from detector.forest import Trees
from detector.fuse import Fusion
from detector.graph import Graph
from detector.head import Head
from detector.neighbours import References
from detector.parts import Parts, under
from detector.policy import Policy, severity
from detector.schema import Schema

DEFAULT_POLICY = Policy(quantile=0.99)
SPARE_REASONS = 2
UNSUPERVISED = "unsupervised_risk"


@dataclass(frozen=True)
class Verdicts:
    """What a detector says of a table.

    Parameters
    ----------
    frame : DataFrame
        One row a scored row: key, time and entity (or ``row``, the position), ``risk``, ``p_value``, ``flagged``,
        ``severity``, ``reasons``, each member's z-score, ``unsupervised_risk``, and ``decided_by``: "head" where
        ``risk`` is that of a head that learnt from labels, else "members".
    quarantine : DataFrame
        Rows that could not be scored, with ``row`` and ``reason``.
    """

    frame: pd.DataFrame
    quarantine: pd.DataFrame


@dataclass(frozen=True)
class TabularScorer:
    """A fitted detector for tables. Made by ``TabularDetector.fit`` or ``bundle.load``.

    Parameters
    ----------
    name : str
        What it is called.
    schema : Schema
        Columns the table must have.
    columns : TableEncoder
        How rows become numbers.
    graph : Graph
        Scaler, autoencoder, forest and neighbours as one ONNX graph: rows → members' scores.
    inside : Graph
        The same scaler and autoencoder, rows → what reasons are made of: prepared rows, code, reconstruction, surprise.
    decoder : Graph or None
        Code → row; None without an autoencoder.
    fusion : Fusion
        How the members' scores become one risk.
    calibrator : Calibrator
        How a risk becomes a p-value.
    trees : Trees or None
        The forest again, for reasons.
    references : dict of str to References
        The neighbours again, for reasons.
    window : EventWindow or None
        The row among the events before it, where a member reads these.
    usual : dict of str to array of shape (n_features,)
        What each feature adds to each member's score in rows the member was not fitted on: the level from which reasons
        count, or a column nobody can predict would be to blame for every row.
    weights : dict of str to array
        The autoencoder's, for a warm start of the next one; scoring does not use them.
    metrics : dict
        Facts recorded while fitting.
    head : Head or None
        What labels taught. If it serves, ``risk`` and ``p_value`` are its own.
    """

    name: str
    schema: Schema
    columns: TableEncoder
    graph: Graph
    inside: Graph
    decoder: Graph | None
    fusion: Fusion
    calibrator: Calibrator
    trees: Trees | None
    references: dict[str, References]
    window: EventWindow | None = None
    usual: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    head: Head | None = None

    @property
    def serving_head(self) -> Head | None:
        """The head, if it has proved itself."""
        return self.head if self.head is not None and self.head.serves else None

    @property
    def calibration(self) -> Calibrator:
        """How the risk that decides becomes a p-value: the serving head's calibrator, or the members'."""
        return self.calibrator if self.serving_head is None else self.serving_head.calibrator

    @property
    def members(self) -> tuple[str, ...]:
        """The members' names."""
        return self.fusion.members

    def judge(
        self,
        frame: pd.DataFrame,
        *,
        policy: Policy | None = None,
    ) -> Verdicts:
        """Clean, score, flag and explain a whole table at once.

        Parameters
        ----------
        frame : DataFrame
            The table as it comes.
        policy : Policy, optional
            Which rows to flag; without one, rows above the 99 % quantile of held-out normal rows.

        Raises
        ------
        SchemaError
            If a column is missing.
        """
        cleaned = clean(frame, self.schema)
        rows, measures = cleaned.rows, self.measure(cleaned.rows)
        day = rows[self.schema.time].to_numpy() if self.schema.time is not None else None
        flagged = (policy or DEFAULT_POLICY).decide(measures["p_value"], measures["risk"], day=day)
        verdicts = self.verdicts(rows, measures, flagged=flagged)
        verdicts.loc[flagged, "reasons"] = [explain.in_words(each) for each in self.explain(rows[flagged])]
        return Verdicts(verdicts.reset_index(drop=True), cleaned.quarantine)

    def verdicts(self, rows: pd.DataFrame, measures: pd.DataFrame, *, flagged: NDArray[np.bool_]) -> pd.DataFrame:
        """Measured rows as people read them, with severities; ``reasons`` is left empty.

        Parameters
        ----------
        rows : DataFrame
            With the key, time and entity columns, if the schema has them.
        measures : DataFrame
            As ``measure`` returns it.
        flagged : boolean array of shape (n_rows,)
            The policy's decision.
        """
        named = [name for role in ("key", "time", "entity") if (name := self.schema.roles.get(role))]
        frame = rows[named].copy() if named else pd.DataFrame({"row": rows.index}, index=rows.index)
        frame["risk"], frame["p_value"] = measures["risk"], measures["p_value"]
        frame["flagged"] = flagged
        frame["severity"] = self._severity(measures, flagged)
        frame["reasons"] = pd.Series("", index=frame.index, dtype="str")
        decided = "members" if self.serving_head is None else "head"
        return pd.concat(
            [
                frame,
                measures[[*self.members, UNSUPERVISED]],
                pd.Series(decided, index=frame.index, dtype="str", name="decided_by"),
            ],
            axis=1,
        )

    def measure(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Risk, p-value, each member's z-score and the unsupervised risk of cleaned rows; a function of each row alone.

        Without a serving head, the unsupervised risk is the risk.
        """
        measures, head = self.unsupervised(rows), self.serving_head
        alone = measures["risk"]
        if head is None:
            return measures.assign(**{UNSUPERVISED: alone})
        risk = head.risk(rows, measures)
        return measures.assign(risk=risk, p_value=head.calibrator.p_value(risk), **{UNSUPERVISED: alone})

    def unsupervised(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Risk, p-value and each member's z-score without the head, for cleaned rows."""
        z = self._member_z(self._encode(rows))
        risk = self.fusion.risk(z)
        measures = {"risk": risk, "p_value": self.calibrator.p_value(risk)}
        return pd.DataFrame(measures | {name: z[:, i] for i, name in enumerate(self.members)}, index=rows.index)

    def encode(self, rows: pd.DataFrame) -> NDArray[np.float32]:
        """The autoencoder's code of each cleaned row, shape (n_rows, n_code)."""
        return self._autoencoder("code", self._encode(rows))["code"]

    def decode(self, code: NDArray[np.floating[Any]]) -> pd.DataFrame:
        """Codes back as a frame in the units of the table."""
        if self.decoder is None:
            raise SettingError("This detector has no autoencoder, so it cannot decode. Train one with an autoencoder.")
        code = np.asarray(code, dtype=np.float32)
        width = int(self.metrics["code_size"])
        if code.ndim != 2 or code.shape[1] != width:
            raise ShapeError(f"Expected codes of shape (n_rows, {width}), received {code.shape}.")
        return self._as_frame(self.decoder.run({"code": code}))

    def reconstruct(self, rows: pd.DataFrame) -> pd.DataFrame:
        """What the autoencoder makes of cleaned rows, in the units of the table."""
        frame = self._as_frame(self._autoencoder("expected likelihood", self._encode(rows)))
        return frame.set_index(rows.index)

    def feature_errors(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The autoencoder's surprise about each feature of cleaned rows, in nats."""
        surprise = self._autoencoder("surprise", self._encode(rows))["surprise"]
        summed = _sum_by(surprise, self.columns.input_features, len(self.columns.features))
        return pd.DataFrame(summed, index=rows.index, columns=[feature.name for feature in self.columns.features])

    def explain(self, rows: pd.DataFrame, *, top: int = 3) -> list[list[Reason]]:
        """Reasons for cleaned rows, most important first.

        Parameters
        ----------
        rows : DataFrame
            As ``clean`` returns them.
        top : int
            Reasons a row at most; left out are those under 2 % of the risk and those where what was observed is, as
            written, what was expected.

        Notes
        -----
        If a head serves, a share is of how far the head's log-odds fall when one of its inputs is replaced by a typical
        value; what falls with the members' scores is shared among the features as the members see them.
        """
        if rows.empty:
            return []
        encoded = self._encode(rows)
        shares = self._shares(encoded)
        if self.serving_head is not None:
            shares = self._shares_of_head(self.serving_head, rows, shares)
        chosen = explain.top_features(shares, top + SPARE_REASONS)
        told = self._reasons(encoded, shares, [row[:top] for row in chosen])
        quiet = [not all(reason.telling for reason in each) for each in told]
        short = [i for i, row in enumerate(chosen) if quiet[i] and len(row) > top]
        spare = self._reasons(encoded.take(short), shares[short], [chosen[i][top:] for i in short]) if short else []
        for i, more in zip(short, spare, strict=True):
            told[i] += more
        return [explain.tell(each, top) for each in told]

    def with_name(self, name: str) -> TabularScorer:
        """The same scorer under another name."""
        return replace(self, name=name)

    def with_head(self, head: Head | None) -> TabularScorer:
        """The same scorer with a head, or without one."""
        return replace(self, head=head)

    def to_parts(self) -> Parts:
        """Everything, as a bundle keeps it."""
        columns, column_arrays = self.columns.state()
        arrays = under("columns", column_arrays) | under("calibrator", self.calibrator.state())
        if self.trees is not None:
            arrays |= under("trees", self.trees.state())
        for name, references in self.references.items():
            arrays |= under(name, references.state())
        arrays |= under("usual", self.usual) | under("weights", self.weights)
        graphs = {"graph": self.graph.content, "inside": self.inside.content}
        if self.decoder is not None:
            graphs["decoder"] = self.decoder.content
        head = None if self.head is None else self.head.to_parts()
        if head is not None:
            arrays |= under("head", head.arrays)
            graphs |= head.graphs
        facts = {
            "name": self.name,
            "schema": self.schema.to_dict(),
            "columns": columns,
            "fusion": self.fusion.state(),
            "window": None if self.window is None else self.window.state(),
            "metrics": self.metrics,
            "head": None if head is None else head.facts,
        }
        return Parts(facts, arrays, graphs)

    @classmethod
    def from_parts(cls, parts: Parts) -> TabularScorer:
        """The inverse of ``to_parts``."""
        facts, graphs, trees = parts.facts, parts.graphs, parts.part("trees")
        references = {name: parts.part(name) for name in ("neighbours", "novelty")}
        head = facts.get("head")
        return cls(
            name=facts["name"],
            schema=Schema.from_dict(facts["schema"]),
            columns=TableEncoder.from_state(facts["columns"], parts.part("columns")),
            graph=Graph(graphs["graph"]),
            inside=Graph(graphs["inside"]),
            decoder=Graph(graphs["decoder"]) if "decoder" in graphs else None,
            fusion=Fusion.from_state(facts["fusion"]),
            calibrator=Calibrator.from_state(parts.part("calibrator")),
            trees=Trees.from_state(trees) if trees else None,
            references={name: References.from_state(part) for name, part in references.items() if part},
            window=EventWindow.from_state(facts["window"]) if facts.get("window") else None,
            usual=parts.part("usual"),
            weights=parts.part("weights"),
            metrics=facts["metrics"],
            head=None if head is None else Head.from_parts(Parts(head, parts.part("head"), graphs)),
        )

    def _severity(self, measures: pd.DataFrame, flagged: NDArray[np.bool_]) -> NDArray[np.object_]:
        """From p-values that go on beyond the calibration rows where a tail could be fitted: severities need them."""
        p_value = measures["p_value"].to_numpy().copy()
        if self.calibration.pareto is not None and flagged.any():
            p_value[flagged] = self.calibration.p_value(measures["risk"].to_numpy()[flagged], tail="pareto")
        return severity(p_value, flagged)

    @property
    def _feature_names(self) -> list[str]:
        """What reasons may name: the features of the row, then the columns that only its window has."""
        own = [feature.name for feature in self.columns.features]
        beside = () if self.window is None else self.window.steps.columns
        return own + [name for name in dict.fromkeys(beside) if name is not None and name not in own]

    def _encode(self, rows: pd.DataFrame) -> Encoded:
        encoded = self.columns.encode(rows)
        return encoded if self.window is None else replace(encoded, window=self.window.encode(rows))

    def _member_z(self, encoded: Encoded) -> NDArray[np.float64]:
        scores = self.graph.run(encoded.inputs(), self.members)
        return self.fusion.standardise(np.hstack([scores[name] for name in self.members]))

    def _autoencoder(self, outputs: str, encoded: Encoded) -> dict[str, NDArray[np.float32]]:
        if "autoencoder" not in self.members:
            raise SettingError("This detector has no autoencoder. Train one with an autoencoder.")
        return self.inside.run(encoded.inputs(), [name for name in outputs.split() if name in self.inside.outputs])

    def attributions(self, rows: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
        """How much each feature adds to each member's score, on the member's own scale, shape (n_rows, n_features)."""
        return self._attributions(self._encode(rows))

    def _attributions(self, encoded: Encoded) -> dict[str, NDArray[np.float64]]:
        n_features = len(self.columns.features)
        wanted = {
            "surprise": "autoencoder" in self.members,
            "table": self.trees is not None,
            "space": self.references,
            "blame": self.window is not None,
        }
        found = self.inside.run(encoded.inputs(), [name for name, is_needed in wanted.items() if is_needed])
        attributions = {}
        if "autoencoder" in self.members:
            attributions["autoencoder"] = _sum_by(found["surprise"], self.columns.input_features, n_features)
        if self.trees is not None:
            parts = self.trees.contributions(found["table"])
            attributions["forest"] = _sum_by(parts, self.columns.table_features, n_features)
        for name, member in self.references.items():
            attributions[name] = _sum_by(member.differences(found["space"]), self.columns.space_features, n_features)
        if self.window is None:
            return attributions
        names = self._feature_names
        beside = ((0, 0), (0, len(names) - n_features))
        attributions = {name: np.pad(parts, beside) for name, parts in attributions.items()}
        owner = {name: f for f, name in enumerate(names)}
        known = [place for place, name in enumerate(self.window.steps.columns) if name is not None]
        owners = np.array([owner[str(self.window.steps.columns[place])] for place in known])
        return attributions | {"sequence": _sum_by(found["blame"][:, known], owners, len(names))}

    def _foreseen(self, encoded: Encoded) -> dict[str, Callable[[int], tuple[str, str]]]:
        """For each column that only the window has, what was observed of a row, and what the events lead to expect."""
        if self.window is None or encoded.window is None:
            return {}
        expected = self.window.unscale(self.inside.run(encoded.inputs(), ["foreseen"])["foreseen"])
        return {
            name: partial(_told, encoded.window[:, place], expected[:, place])
            for place, name in enumerate(self.window.steps.columns)
            if name is not None
        }

    def _shares(self, encoded: Encoded) -> NDArray[np.float64]:
        """Each feature's share of the risk: what it adds beyond what it adds to a usual row."""
        attributions = self._attributions(encoded)
        beyond = {name: parts - self.usual.get(name, 0.0) for name, parts in attributions.items()}
        risk = self.fusion.contributions(self._member_z(encoded))
        return explain.risk_shares(beyond, {name: risk[:, i] for i, name in enumerate(self.members)})

    def _shares_of_head(self, head: Head, rows: pd.DataFrame, members: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each feature's share of the head's risk; what the members' scores add is shared as the members share it."""
        falls = np.maximum(head.contributions(rows, self.unsupervised(rows)), 0.0)
        places = {feature.name: place for place, feature in enumerate(self.columns.features)}
        shares = np.zeros(members.shape)
        for fall, name in zip(falls.T, head.columns, strict=True):
            if name in places:
                shares[:, places[name]] += fall
            else:
                shares += fall[:, None] * members
        total = shares.sum(axis=1, keepdims=True)
        return np.where(total > 0, shares / np.where(total > 0, total, 1.0), members)

    def _reasons(
        self, encoded: Encoded, shares: NDArray[np.float64], chosen: Sequence[Sequence[int]]
    ) -> list[list[Reason]]:
        """The chosen features of each row in words."""
        row = np.repeat(np.arange(len(chosen)), [len(each) for each in chosen])
        feature = np.array([f for each in chosen for f in each], dtype=np.int64)
        names, n_features = self._feature_names, len(self.columns.features)
        own = feature < n_features
        seen = Encoded(encoded.numeric[row[own]], encoded.codes[row[own]])
        expected, foreseen = self._expected(seen, feature[own]), self._foreseen(encoded)
        reasons: list[list[Reason]] = [[] for _ in chosen]
        levels = [self.columns.level_names(code) for code in range(len(self.columns.levels))]
        place = np.cumsum(own) - 1
        for n, i, f, share in zip(
            place.tolist(), row.tolist(), feature.tolist(), shares[row, feature].tolist(), strict=True
        ):
            said = self._describe(seen, expected, n, f, levels) if f < n_features else foreseen[names[f]](i)
            reasons[i].append(Reason(names[f], *said, share))
        return reasons

    def _expected(self, seen: Encoded, feature: NDArray[np.int64]) -> Encoded:
        """What the given feature of each row should have been: the row's reconstruction with that feature hidden."""
        hidden = Encoded(seen.numeric.copy(), seen.codes.copy())
        if "autoencoder" not in self.members:
            hidden.numeric[:] = self.columns.centre
            hidden.codes[:] = [np.argmax(seen[2:]) + 2 for seen in self.columns.counts]
            return hidden
        for f in np.unique(feature):
            at, what = feature == f, self.columns.features[f]
            for column in what.numeric:
                hidden.numeric[at, column] = np.nan
            if what.code is not None:
                hidden.codes[at, what.code] = UNSEEN
        found = self._autoencoder("expected likelihood", hidden)
        numeric, codes = hidden.numeric, hidden.codes
        if "expected" in found:
            numeric = np.clip(self.columns.unscale(found["expected"]), self.columns.least, self.columns.most)
        if "likelihood" in found:
            codes = self.columns.likeliest(found["likelihood"])
        return Encoded(numeric, codes)

    def _describe(
        self, seen: Encoded, expected: Encoded, row: int, f: int, levels: Sequence[NDArray[Any]]
    ) -> tuple[str, str]:
        feature = self.columns.features[f]
        if (code := feature.code) is not None:
            return str(levels[code][seen.codes[row, code]]), str(levels[code][expected.codes[row, code]])
        at = list(feature.numeric)
        if feature.kind == "datetime":
            part = feature.name.rsplit(" ", 1)[1]
            say = explain.clock if part == "hour" else explain.weekday
            pair = np.stack([seen.numeric[row, at], expected.numeric[row, at]])
            observed, usual = from_cycle(pair, part)
            return say(float(observed)), say(float(usual))
        decimals, column = self.columns.decimals[at[0]], at[0]
        observed, usual = float(seen.numeric[row, column]), float(expected.numeric[row, column])
        return explain.number(observed, decimals), explain.about(usual, decimals)

    def _as_frame(self, found: dict[str, NDArray[np.float32]]) -> pd.DataFrame:
        n_rows = len(next(iter(found.values())))
        values = found.get("expected", np.empty((n_rows, 0), dtype=np.float32))
        codes = (
            self.columns.likeliest(found["likelihood"]) if "likelihood" in found else np.empty((n_rows, 0), np.int64)
        )
        return self.columns.decode(values, codes)


def _told(observed: NDArray[np.float64], expected: NDArray[np.float64], row: int) -> tuple[str, str]:
    return explain.number(float(observed[row]), 2), explain.about(float(expected[row]), 2)


def _sum_by(parts: NDArray[Any], groups: NDArray[np.int64], n_groups: int) -> NDArray[np.float64]:
    summed = np.zeros((len(parts), n_groups))
    for column, group in enumerate(groups):
        summed[:, group] += parts[:, column]
    return summed
