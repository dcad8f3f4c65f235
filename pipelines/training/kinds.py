"""What differs between tables and sensors when a detector is trained: how rows are read, split, learnt and reviewed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from detector.errors import DataError
from detector.schema import Schema
from pipelines.factory.detector import detector_of, policy_of, sequence_detector_of
from pipelines.training.review import Review, figures, review

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detector.training.settings import OnStep
    from pipelines.config import Config
    from pipelines.sources import Source

MOST_REVIEW_ROWS = 20_000
EXAMPLE_ROWS = 5
WINDOWS_TO_LEARN = 8


class Kind(Protocol):
    """How one kind of rows is learnt from."""

    unit: str
    """What a report calls what was flagged."""

    def read(self, source: Source, config: Config, advance: Any) -> pd.DataFrame:
        """At most as many rows as are to be learnt from."""
        ...

    def split(self, rows: pd.DataFrame, config: Config, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Rows to learn from, and rows kept apart for the review."""
        ...

    def detector(self, config: Config, schema: Schema, on_step: OnStep) -> Any:
        """An unfitted one."""
        ...

    def enough(self, rows: pd.DataFrame, config: Config, schema: Schema) -> tuple[pd.DataFrame, list[str]]:
        """The rows that a retraining can learn from, and what is left out for now, with why."""
        ...

    def judgeable(self, rows: pd.DataFrame, scorer: Any) -> pd.DataFrame:
        """The cleaned rows that a detector can judge."""
        ...

    def review(
        self, scorer: Any, rows: pd.DataFrame, config: Config, history: dict[str, list[float]]
    ) -> tuple[Review, dict[str, Figure]]:
        """How good it is on rows kept apart, in figures and pictures."""
        ...

    def left_out(self, detector: Any) -> list[str]:
        """Columns that nothing is learnt from, each with why; and whatever else is to be said."""
        ...

    def example(self, rows: pd.DataFrame, scorer: Any) -> pd.DataFrame:
        """Some rows that can be scored by themselves."""
        ...


class Table:
    """Rows that are each judged by themselves."""

    unit = "rows"

    def read(self, source: Source, config: Config, advance: Any) -> pd.DataFrame:
        """A random sample; all rows if their past is to be measured, which a sample would tear apart."""
        if config.train.rows is None or config.features.wanted:
            return source.read(advance=advance)
        return source.sample(config.train.rows, random_state=config.random_state, advance=advance)

    def split(self, rows: pd.DataFrame, config: Config, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]:
        """At random; known anomalies are not learnt from."""
        order = np.random.default_rng(config.random_state).permutation(len(rows))
        apart = max(1, min(MOST_REVIEW_ROWS, round(config.train.review_share * len(rows))))
        kept_apart, learnt = rows.iloc[np.sort(order[:apart])], rows.iloc[np.sort(order[apart:])]
        if schema.label is not None:
            learnt = learnt[learnt[schema.label] != 1]
        if len(learnt) < 2:
            raise DataError(
                f"Expected at least 2 rows to learn from, received {len(learnt)}: {schema.label!r} calls the others "
                f"anomalous (1). Give normal rows (0, or empty for unknown) as well."
            )
        return learnt, kept_apart

    def detector(self, config: Config, schema: Schema, on_step: OnStep) -> Any:
        """A ``TabularDetector``."""
        return detector_of(config, schema, on_step=on_step)

    def enough(
        self,
        rows: pd.DataFrame,
        config: Config,  # noqa: ARG002 - as the others
        schema: Schema,  # noqa: ARG002 - as the others
    ) -> tuple[pd.DataFrame, list[str]]:
        """All of them."""
        return rows, []

    def judgeable(self, rows: pd.DataFrame, scorer: Any) -> pd.DataFrame:  # noqa: ARG002 - as the others
        """All of them."""
        return rows

    def review(
        self, scorer: Any, rows: pd.DataFrame, config: Config, history: dict[str, list[float]]
    ) -> tuple[Review, dict[str, Figure]]:
        """Row by row."""
        policy = policy_of(config.policy, scorer.schema)
        reviewed = review(scorer, rows, policy=policy)
        return reviewed, figures(scorer, rows, reviewed, policy=policy, history=history)

    def left_out(self, detector: Any) -> list[str]:
        """Columns that do not vary."""
        return [f"{name} ({reason})" for name, reason in detector.scorer_.columns.dropped.items()]

    def example(self, rows: pd.DataFrame, scorer: Any) -> pd.DataFrame:  # noqa: ARG002 - as the others
        """A few."""
        return rows.head(EXAMPLE_ROWS)


class Sensors:
    """Readings in the order of time, judged as whole series."""

    unit = "events"

    def read(self, source: Source, config: Config, advance: Any) -> pd.DataFrame:
        """The latest rows: a sample would tear the series apart."""
        frame = source.read(advance=advance)
        most, time = config.train.rows, config.columns.time
        if most is None or len(frame) <= most:
            return frame
        if time is None or time not in frame:
            return frame.tail(most)
        when = pd.to_datetime(frame[time], errors="coerce", utc=True)
        latest = when.rank(method="first", ascending=False, na_option="bottom") <= most
        return frame[latest.to_numpy()]

    def split(self, rows: pd.DataFrame, config: Config, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The last part of each series is kept apart."""
        if schema.time is not None:
            rows = rows.sort_values(schema.time, kind="stable")
        whose = rows[schema.entity] if schema.entity is not None else pd.Series("", index=rows.index)
        place = whose.groupby(whose, sort=False).cumcount(ascending=False)
        length = whose.groupby(whose, sort=False).transform("size")
        apart = (place < np.maximum(1, config.train.review_share * length)).to_numpy()
        return rows[~apart], rows[apart]

    def detector(self, config: Config, schema: Schema, on_step: OnStep) -> Any:
        """A ``SequenceDetector``."""
        return sequence_detector_of(config, schema, on_step=on_step)

    def enough(self, rows: pd.DataFrame, config: Config, schema: Schema) -> tuple[pd.DataFrame, list[str]]:
        """Where each machine has a model, those of which there are eight windows: a new one waits until there are."""
        if schema.entity is None or config.series.models == "shared":
            return rows, []
        least = WINDOWS_TO_LEARN * config.series.window
        size = rows.groupby(schema.entity, sort=False)[schema.entity].transform("size")
        few = rows[schema.entity][size < least].value_counts(sort=False)
        if not len(few) or (size < least).all():
            return rows, []
        words = f"rows to learn from, {least} are needed."
        notes = [f"{name!r} has no model yet: {count} {words}" for name, count in few.items()]
        return rows[size >= least], notes

    def judgeable(self, rows: pd.DataFrame, scorer: Any) -> pd.DataFrame:
        """Those of machines that it knows, and of which there is a window."""
        return rows[scorer.can_judge(rows)]

    def review(
        self, scorer: Any, rows: pd.DataFrame, config: Config, history: dict[str, list[float]]
    ) -> tuple[Review, dict[str, Figure]]:
        """By row and by event."""
        from pipelines.training.series_review import review_series, series_figures

        policy = policy_of(config.policy, scorer.schema)
        reviewed, judged = review_series(scorer, rows, policy=policy, join=config.series.join)
        return reviewed, series_figures(reviewed, judged, history=history)

    def left_out(self, detector: Any) -> list[str]:
        """What was noticed while fitting, such as an encoder that was not kept."""
        return [message.rstrip(".") for message in detector.messages_]

    def example(self, rows: pd.DataFrame, scorer: Any) -> pd.DataFrame:
        """The first windows of the first series."""
        entity = scorer.schema.entity
        if entity is not None:
            rows = rows[rows[entity] == rows[entity].iloc[0]]
        longest = max(model.length for model in scorer.models.values())
        return rows.head(2 * longest)


KINDS: dict[str, Kind] = {"table": Table(), "sensors": Sensors()}
