"""A Spark session as scoring needs it, and what goes wrong there in plain words."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from detector import errors
from detector.errors import DetectorError, MissingExtraError, SettingError, SinkError, SourceError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS_A_BATCH = 65_536
"""Rows that Spark hands to Python at once. Fewer, and calls cost more than work; more, and a task needs more memory."""
SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(ROWS_A_BATCH),
}
"""What rows are read the same with everywhere; of this session alone, not of others of the application."""
_RAISED = re.compile(r"detector\.errors\.(\w+): (.+?)(?=\n\n|\n\s*at |\n\tat |\Z)", re.DOTALL)
_DELTA = re.compile(r"delta\.DefaultSource|DATA_SOURCE_NOT_FOUND.*delta", re.IGNORECASE)
_NANOSECONDS = re.compile(r"TIMESTAMP\(NANOS", re.IGNORECASE)


def open_session(name: str) -> SparkSession:
    """A session of the application that runs already, as under ``spark-submit``, or of one on this machine.

    Raises ``MissingExtraError`` if there is no pyspark or no Java; ``SettingError`` if the session is one of Spark
    Connect, which has no executors to send files to.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    # Its own ways to pandas are older than pandas 3; here rows go to and fro as Arrow.
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    try:
        found = SparkSession.builder.appName(f"detector score {name}").getOrCreate()
    except PySparkException as error:
        if "JAVA" in str(error.getCondition() or error):
            raise MissingExtraError(
                "Spark did not start: it needs Java 17 or later, and there is none, or JAVA_HOME names another. "
                "Install it (Debian: apt-get install openjdk-17-jre-headless)."
            ) from None
        raise
    if not isinstance(found, SparkSession) or not hasattr(found, "newSession"):
        raise SettingError("Scoring needs a classic Spark session, received one of Spark Connect. Use spark-submit.")
    session = found.newSession()
    context = session.sparkContext
    if context.master.startswith("local") and "PYSPARK_PYTHON" not in os.environ:
        context.pythonExec = sys.executable  # else whatever python3 is on the path
    for key, value in SETTINGS.items():
        session.conf.set(key, value)
    return session


@contextmanager
def plain_errors(place: str, kind: type[SourceError | SinkError] = SourceError) -> Iterator[None]:
    """Raise what executors raised on purpose as it was; of Spark's own errors the first line, with the place."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        raise _as_ours(str(error), place, kind) from error


def _as_ours(text: str, place: str, kind: type[SourceError | SinkError]) -> DetectorError:
    r"""The error that stands in what Spark says.

    >>> said = "Traceback\n  detector.errors.SchemaError: There is no column 'x'.\n\n\tat org.apache"
    >>> _as_ours(said, "rows", SourceError)
    SchemaError("There is no column 'x'.")
    """
    raised = _RAISED.findall(text)
    if raised:
        name, message = raised[-1]
        found = getattr(errors, name, DetectorError)
        return found(message.strip()) if issubclass(found, DetectorError) else DetectorError(message.strip())
    if _NANOSECONDS.search(text):
        return SourceError(
            f"{place} holds times in nanoseconds, which Spark does not read. Write them in microseconds."
        )
    if _DELTA.search(text):
        return SourceError(
            f"{place} is a Delta table, and this Spark does not know Delta. Start it with the package: "
            f"--packages io.delta:delta-spark_2.13:4.0.0, or the version that fits."
        )
    if "Python worker" in text:
        lines = [line for line in text.partition("SQLSTATE")[0].splitlines() if re.match(r"\w[\w.]*: ", line)]
        return kind(f"{place}: a task failed: {(lines or ['no reason given'])[-1][:300]}")
    causes = [line.strip() for line in text.splitlines() if line.strip().startswith("Caused by:")]
    said = (
        causes[-1].removeprefix("Caused by: ") if causes else next(iter(text.strip().splitlines()), "no reason given")
    )
    return kind(f"{place}: Spark failed: {said[:300]}")
