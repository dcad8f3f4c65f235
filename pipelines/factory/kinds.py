"""Tables and sensors: all that differs between rows that stand alone and readings that belong to a series.

Whatever must know which of the two it has asks here: `KINDS` by the setting `kind`, `kind_of` by a detector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.values import read_dates
from detector.decide.calibrate import Calibrator
from detector.detectors.series.reasons import duration
from detector.detectors.table.scorer import TabularScorer
from detector.errors import DataError
from detector.persist.bundle import Scorer
from detector.schema import Schema
from pipelines.factory.detector import detector_of, sequence_detector_of
from pipelines.factory.loud import loud_notes
from pipelines.progress import percent

if TYPE_CHECKING:
    from detector.training.settings import OnStep
    from pipelines.config import Config
    from pipelines.config.learning import TrainingSection
    from pipelines.sources import Source

MOST_REVIEW_ROWS = 20_000
EXAMPLE_ROWS = 5
MOST_SAID = 8
WINDOWS_TO_LEARN = 8
LEAST_WINDOWS = 20


class Table:
    """Rows that are each scored by themselves."""

    unit = "rows"
    """What a report calls what was flagged."""
    rows_stand_alone = True
    """Whether some of the rows can be left out without harm to the others."""
    sampled = "{learnt:,} rows drawn at random from {rows:,}"
    """What is said if more rows were there than are to be learnt from."""
    without_risk = 0.0
    """The share of rows that may have no risk."""
    encoders: tuple[str, ...] = ("dense", "sparse", "variational")
    """The encoders that can be compared on such rows."""

    def read(self, source: Source, config: Config, advance: Any) -> pd.DataFrame:
        """At most as many rows as are to be learnt from, a random sample; all if their past is to be measured."""
        if config.train.rows is None or config.features.wanted:
            return source.read(advance=advance)
        return source.sample(config.train.rows, random_state=config.random_state, advance=advance)

    def split(self, rows: pd.DataFrame, config: Config, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Rows to learn from, without known anomalies, and rows kept apart for the review: at random."""
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

    def schema(self, frame: pd.DataFrame, config: Config) -> Schema:
        """What the columns mean, as configured and guessed."""
        return config.columns.schema_of(frame)

    def sample(self, rows: int, most: int | None, random_state: int) -> NDArray[np.intp]:
        """Positions of at most so many rows, in order: at random."""
        if most is None or rows <= most:
            return np.arange(rows)
        return np.sort(np.random.default_rng(random_state).permutation(rows)[:most])

    def detector(self, config: Config, schema: Schema, on_step: OnStep) -> Any:
        """An unfitted ``TabularDetector``."""
        return detector_of(config, schema, on_step=on_step)

    def check(
        self,
        rows: pd.DataFrame,
        kept_apart: pd.DataFrame,  # noqa: ARG002 - as the others
        config: Config,  # noqa: ARG002 - as the others
        schema: Schema,
    ) -> list[str]:
        """Raise what training would find out of cleaned rows before it fits anything: that no column varies.

        What there is to say of time is returned: nothing.
        """
        from detector.encoding.table import TableEncoder

        TableEncoder.fit(rows, schema)
        return []

    def trainable(
        self,
        rows: pd.DataFrame,
        config: Config,  # noqa: ARG002 - as the others
        schema: Schema,  # noqa: ARG002 - as the others
    ) -> tuple[pd.DataFrame, list[str]]:
        """The rows that a retraining can learn from, and what is left out for now, with why: all, nothing."""
        return rows, []

    def calibration(self, scorer: Any) -> Calibrator:
        """How the risk that decides becomes a p-value."""
        calibration: Calibrator = scorer.calibration
        return calibration

    def steady(self, scorer: Any) -> Schema:
        """The columns that later rows are compared with those of training by: all."""
        schema: Schema = scorer.schema
        return schema

    def has_head(self, scorer: Any) -> bool:
        """Whether labels have a say in the risk that decides."""
        return scorer.serving_head is not None

    def left_out(self, detector: Any) -> list[str]:
        """What nothing is learnt from, each with why: columns that do not vary, of which another value is news."""
        return [f"{name} ({reason})" for name, reason in detector.scorer_.columns.dropped.items()]

    def noticed(self, detector: Any) -> list[str]:
        """Exact relations between columns: a row that breaks one is news."""
        found = detector.scorer_.columns.relations.found
        if not found:
            return []
        said = [
            each.formula + (f" ({100 * each.broken:.2g} % of the rows break it)" if each.broken else "")
            for each in found[:MOST_SAID]
        ]
        more = f"; and {len(found) - MOST_SAID} more" if len(found) > MOST_SAID else ""
        return [f"A row that breaks one of these lies beyond nearly all others: {'; '.join(said)}{more}."]

    def delay_note(self, scorer: Any) -> str | None:  # noqa: ARG002 - as the others
        """How long the service waits before it scores a row, in a sentence: not at all."""
        return None

    def example(self, rows: pd.DataFrame, scorer: Any) -> pd.DataFrame:  # noqa: ARG002 - as the others
        """Some rows that can be scored by themselves."""
        return rows.head(EXAMPLE_ROWS)

    def normal_rows(self, rows: pd.DataFrame, scorer: Any) -> pd.DataFrame:
        """The rows that encoders are compared on: those not known to be anomalous."""
        label = scorer.schema.label
        return rows if label is None or label not in rows else rows[rows[label] != 1]

    def encoder_settings(self, config: Config, scorer: Any) -> tuple[TrainingSection, int | None]:  # noqa: ARG002 - as the others
        """How an encoder is trained, and how many time steps a row of its input holds, if it holds several."""
        return config.train.autoencoder.training, None

    def encoder_input(self, rows: pd.DataFrame, scorer: Any, most: int, random_state: int) -> NDArray[np.float32]:
        """About so many rows as an encoder reads them: what the members read."""
        few = rows.sample(min(len(rows), most), random_state=random_state)
        table: NDArray[np.float32] = scorer.inside.run(scorer.columns.encode(few).inputs(), ["table"])["table"]
        return table


class Sensors:
    """Readings in the order of time, scored as whole series; its methods are those of ``Table``."""

    unit = "events"
    rows_stand_alone = False
    sampled = "the latest {learnt:,} of {rows:,} rows"
    without_risk = 0.2  # the second row of one time has no step of its own
    encoders: tuple[str, ...] = ("dense", "conv1d", "lstm", "gru", "transformer", "variational")

    def read(self, source: Source, config: Config, advance: Any) -> pd.DataFrame:
        """The latest rows: a sample would tear the series apart."""
        frame = source.read(advance=advance)
        most, time = config.train.rows, config.columns.time
        if most is None or len(frame) <= most:
            return frame
        if time is None or time not in frame:
            return frame.tail(most)
        when = read_dates(frame[time])[0]
        latest = when.rank(method="first", ascending=False, na_option="bottom") <= most
        return frame[latest.to_numpy()]

    def split(self, rows: pd.DataFrame, config: Config, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The last part of each series is kept apart, at least a window: less could not be scored."""
        if schema.time is not None:
            rows = rows.sort_values(schema.time, kind="stable")
        whose = rows[schema.entity] if schema.entity is not None else pd.Series("", index=rows.index)
        place = whose.groupby(whose, sort=False).cumcount(ascending=False)
        length = whose.groupby(whose, sort=False).transform("size")
        window = np.minimum(config.series.window, length // 2)
        apart = (place < np.maximum(config.train.review_share * length, window)).to_numpy()
        return rows[~apart], rows[apart]

    def schema(self, frame: pd.DataFrame, config: Config) -> Schema:
        """Numbers and truths; others are no readings, unless they are named."""
        found = config.columns.schema_of(frame)
        named = {*config.columns.categorical, *config.columns.datetime}
        return found.without([name for name in found.categorical + found.datetime if name not in named])

    def sample(self, rows: int, most: int | None, random_state: int) -> NDArray[np.intp]:  # noqa: ARG002 - as the others
        """The latest: a sample would tear the series apart."""
        return np.arange(0 if most is None else max(0, rows - most), rows)

    def detector(self, config: Config, schema: Schema, on_step: OnStep) -> Any:
        """A ``SequenceDetector``."""
        return sequence_detector_of(config, schema, on_step=on_step)

    def check(self, rows: pd.DataFrame, kept_apart: pd.DataFrame, config: Config, schema: Schema) -> list[str]:
        """Raise what training would find out of cleaned rows before it fits anything: that they are no series.

        Which period each model would see, and what its window covers, is returned in words, the same once.
        """
        from detector.detectors.series.check import check_fit

        found: dict[str, list[str]] = {}
        for seen in check_fit(sequence_detector_of(config, schema), rows, kept_apart):
            share = (
                f", which foretells {percent(seen.foretells)} of the sensor that follows it most" if seen.period else ""
            )
            period = f"readings repeat after {seen.period}{share}" if seen.period else "no period is seen"
            covers = f"a window covers {seen.window} rows, a long one {seen.long_window}"
            if schema.time is not None:
                lengths = (duration(pd.Timedelta(seconds=n * seen.seconds)) for n in (seen.window, seen.long_window))
                covers = "a window covers {}, a long one {}".format(*lengths)
            found.setdefault(f"{period}; {covers}", []).append(seen.name)
        return [f"{', '.join(names)}: {said}" if len(found) > 1 else said for said, names in found.items()]

    def trainable(self, rows: pd.DataFrame, config: Config, schema: Schema) -> tuple[pd.DataFrame, list[str]]:
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

    def calibration(self, scorer: Any) -> Calibrator:
        """That of all series together."""
        calibrator: Calibrator = scorer.calibrator
        return calibrator

    def steady(self, scorer: Any) -> Schema:
        """All but counters, which always lie above what was."""
        schema: Schema = scorer.schema
        return schema.without(scorer.sampling.counters)

    def has_head(self, scorer: Any) -> bool:  # noqa: ARG002 - as the others
        """Never: no head learns from series."""
        return False

    def left_out(self, detector: Any) -> list[str]:  # noqa: ARG002 - as the others
        """Nothing: a sensor that did not move in training is expected to stay so."""
        return []

    def noticed(self, detector: Any) -> list[str]:
        """Such as an encoder that was not kept, or a stretch that makes a threshold high."""
        return [*detector.messages_, *loud_notes(detector.loud_stretches_)]

    def delay_note(self, scorer: Any) -> str | None:
        """How many later steps a reading's score hangs on; nothing where only earlier ones count."""
        steps = max(model.ahead for model in scorer.models.values())
        least = max(model.recipe.rows_around(model.length) for model in scorer.models.values())
        every = scorer.sampling.every
        if not steps:
            return None
        long = "" if every is None else f", {duration(steps * pd.Timedelta(every))}"
        shorter = (
            f"`series.wait` shortens that, to {least} at least"
            if steps > least
            else "A shorter `series.window` shortens that"
        )
        return (
            f"In the service a reading is scored when the {steps} after it have come{long}. {shorter}, "
            f"and `series.trailing: true` waits for none; both find less."
        )

    def example(self, rows: pd.DataFrame, scorer: Any) -> pd.DataFrame:
        """The first windows of the first series."""
        entity = scorer.schema.entity
        if entity is not None:
            rows = rows[rows[entity] == rows[entity].iloc[0]]
        return rows.head(2 * self._length(scorer))

    def normal_rows(self, rows: pd.DataFrame, scorer: Any) -> pd.DataFrame:  # noqa: ARG002 - as the others
        """All of them: without some, windows would have gaps."""
        return rows

    def encoder_settings(self, config: Config, scorer: Any) -> tuple[TrainingSection, int | None]:
        """The training settings of the member, and the length of the longest window."""
        return config.series.encoder.training, self._length(scorer)

    def encoder_input(
        self,
        rows: pd.DataFrame,
        scorer: Any,
        most: int,
        random_state: int,  # noqa: ARG002 - as the others
    ) -> NDArray[np.float32]:
        """Windows without a gap, flattened, of steps that lie in one segment."""
        series, length = scorer.score_steps(rows).series, self._length(scorer)
        values = np.asarray(series.values, dtype=np.float32)
        whole = [
            start
            for start in np.arange(0, len(values) - length + 1, max(1, len(values) // most))
            if series.segment[start] == series.segment[start + length - 1]
            and not np.isnan(values[start : start + length]).any()
        ]
        if len(whole) < LEAST_WINDOWS:
            raise DataError(
                f"Expected at least {LEAST_WINDOWS} windows of {length} rows without a gap, received {len(whole)}."
            )
        return np.stack([values[start : start + length].ravel() for start in whole])

    def _length(self, scorer: Any) -> int:
        return max(int(model.length) for model in scorer.models.values())


Kind = Table | Sensors
TABLE, SENSORS = Table(), Sensors()
KINDS: dict[str, Kind] = {"table": TABLE, "sensors": SENSORS}


def sample_note(kind: Kind, rows: int, most: int | None) -> str | None:
    """What to say where there were more rows than the setting lets be learnt from; ``None`` where there were not.

    >>> sample_note(KINDS["sensors"], 566_000, 200_000)
    'Learnt from the latest 200,000 of 566,000 rows; `train.rows` sets how many, and left empty takes all.'
    """
    if most is None or rows <= most:
        return None
    sampled = kind.sampled.format(learnt=most, rows=rows)
    return f"Learnt from {sampled}; `train.rows` sets how many, and left empty takes all."


def kind_of(scorer: Scorer) -> Kind:
    """The kind of rows that a detector scores."""
    return TABLE if isinstance(scorer, TabularScorer) else SENSORS
