"""What Spark reads, as rows with their positions: where each would stand if one machine read them all in order.

Among equal risks, and of rows with one key, the first counts. So each row gets the number that ``detector score`` would
give it, without a sort: the files' sizes are added up, and Parquet says where in its file a row stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from detector.errors import SchemaError, SettingError, SourceError, nearest
from pipelines.config.data import SourceSection
from pipelines.config.values import hide_password
from pipelines.row_files import CSV_SUFFIXES, JSON_SUFFIXES, data_suffix
from pipelines.sources import NoRowsError
from pipelines.sources.files import FileReader, find_files, name_of
from pipelines.sources.kinds import kind_of
from pipelines.spark.hadoop import Folders
from pipelines.spark.rows import POSITION, SourceColumns
from pipelines.spark.session import ROWS_A_BATCH, plain_errors
from pipelines.spark.text_rows import TextRows, text_columns

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/")
_INDEX = re.compile(r"__index_level_\d+__")
_JDBC = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mariadb", "mssql": "sqlserver", "oracle": "oracle"}


@dataclass(frozen=True)
class SparkRows:
    """Rows of a source.

    - ``frame``: ``position`` and the columns ``x0``, ``x1``, …
    - ``names``: what these are called in the source.
    - ``rows``: how many.
    - ``rejected``: why lines of files of text were left out, a row each; None for other sources.
    """

    frame: DataFrame
    names: tuple[str, ...]
    rows: int
    rejected: DataFrame | None = None


class SparkSource:
    """A source that Spark reads: files in Parquet, CSV or JSON lines, a Delta table, a database.

    Raises ``SourceError`` if it is not there or cannot be read; ``SettingError`` if it is a Kafka topic.
    """

    def __init__(self, spark: SparkSession, section: SourceSection) -> None:
        self.spark, self.section = spark, section
        if section.topic is not None:
            raise SettingError(
                "Spark reads files and databases, and `source` is a Kafka topic. Let detector serve score it, or name "
                "files: --input."
            )
        self._files: list[str] = []
        if section.path is None:
            self.kind = "jdbc"
        else:
            self.kind, self._files = _files_of(spark, section.path)
        with plain_errors(self.describe()):
            self._columns = self._read_columns()

    def describe(self) -> str:
        """Where the rows come from, without passwords."""
        if self.section.path is not None:
            return self.section.path
        return f"{self.section.table or 'a query'} of {hide_password(str(self.section.url))}"

    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        made = self.section.names_of_files
        return [*self._columns, *([made[0]] if made is not None else [])]

    def fingerprint(self) -> str:
        """A name for what is there now: files by name, size and time of change.

        Raises ``SettingError`` for what has no files.
        """
        if self.kind in ("jdbc", "delta"):
            raise SettingError(
                f"{self.describe()} does not say by itself which batch it holds. Name it: --batch 2026-03-01. Scoring "
                f"a batch again replaces it."
            )
        with plain_errors(self.describe()):
            files = self.spark.read.format("binaryFile").load(self._files)
            seen = files.select("path", "length", files["modificationTime"].cast("string")).collect()
        return blake2b(repr(sorted(map(tuple, seen))).encode(), digest_size=6).hexdigest()

    def rows(self, wanted: Sequence[str], *, staging: str) -> SparkRows:
        """The columns that are wanted, of all rows.

        - ``staging``: a folder for rows whose order could change when they are read again.

        Raises ``SourceError`` if rows cannot be read, or there are none; ``SchemaError`` if a column is not there.
        """
        for name in wanted:
            if name not in self.columns():
                raise SchemaError(f"Column {name!r} is not in {self.describe()}. {nearest(name, self.columns())}")
        made = self.section.names_of_files
        names = tuple(name for name in wanted if made is None or name != made[0])
        with plain_errors(self.describe()):
            if self.kind == "jdbc":
                found = self._database_rows(names, staging)
            elif self.kind == "text":
                found = self._text_rows(names, staging)
            else:
                found = self._parquet_rows(names)
        if not found.rows:
            raise NoRowsError(f"{self.describe()} has columns but no rows. Check what was to fill it.")
        return found

    def _read_columns(self) -> list[str]:
        path = self.section.path
        if path is not None and self.kind in ("text", "parquet") and not REMOTE.match(path):
            made = self.section.names_of_files
            return [name for name in FileReader.of(self.section, path).columns() if made is None or name != made[0]]
        if self.kind == "text":
            return text_columns(self.spark, self._files[0], self.section)
        names = self._load().columns
        if not names:
            raise SourceError(f"{self.describe()} has no columns. Check what was to fill it.")
        return [name for name in names if not _INDEX.fullmatch(name)]

    def _load(self) -> DataFrame:
        if self.kind == "jdbc":
            return self.spark.read.format("jdbc").options(**_jdbc_options(self.section)).load()
        if self.kind == "delta":
            return self.spark.read.format("delta").load(self._files[0])
        return self.spark.read.parquet(*self._files)

    def _parquet_rows(self, names: tuple[str, ...]) -> SparkRows:
        from pyspark.sql import functions as f

        frame = self._load().select(
            f.col("_metadata.file_path").alias("file"),
            f.col("_metadata.row_index").alias("at"),
            *_aliased(names),
        )
        return self._positioned(frame, names)

    def _text_rows(self, names: tuple[str, ...], staging: str) -> SparkRows:
        from pyspark.sql import functions as f

        files = self.spark.read.format("binaryFile").load(self._files)
        large = files.where(f.col("length") >= 2**31 - 1).select("path").head(1)
        if large:
            raise SourceError(
                f"{large[0][0]} has 2 GB or more, too much for one task. Split it, or save it as Parquet."
            )
        needed = [name for name in self._columns if self.section.needs(name)]
        reading = TextRows.of(self.section, names, tuple(dict.fromkeys([*names, *needed])))
        # One file a batch: several could be more than Arrow holds.
        self.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "1")
        try:
            files.select("path", "content").mapInArrow(reading, reading.types()).write.parquet(f"{staging}/text")
        finally:
            self.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(ROWS_A_BATCH))
        read = self.spark.read.parquet(f"{staging}/text")
        rejected = read.where("reason is not null").select("reason")
        found = self._positioned(read.where("reason is null").drop("reason"), names)
        return SparkRows(found.frame, found.names, found.rows, rejected)

    def _positioned(self, frame: DataFrame, names: tuple[str, ...]) -> SparkRows:
        """Rows by their file and place in it → by their position among all, with the column made of files' names."""
        from pyspark.sql import functions as f

        counted = [(row["file"], row["count"]) for row in frame.groupBy("file").count().collect()]
        counted.sort(key=lambda each: Path(_path_of(each[0])))
        made = self.section.names_of_files
        starts: list[tuple[Any, ...]] = []
        rows = 0
        for file, count in counted:
            name = () if made is None else (name_of(Path(_path_of(file)), made[1]),)
            starts.append((file, rows, *name))
            rows += count
        if not rows:
            return SparkRows(frame, names, 0)
        aliases = SourceColumns(names).columns
        types = "file string, start long" + (", made string" if made is not None else "")
        known = f.broadcast(self.spark.createDataFrame(starts, types))
        joined = frame.join(known, "file")
        kept = [f.col(alias) for alias in aliases]
        if made is not None:
            kept, names = [*kept, f.col("made").alias(f"x{len(aliases)}")], (*names, made[0])
        return SparkRows(joined.select((f.col("start") + f.col("at")).alias(POSITION), *kept), names, rows)

    def _database_rows(self, names: tuple[str, ...], staging: str) -> SparkRows:
        from pyspark.sql import functions as f

        read = self._load().select(
            f.monotonically_increasing_id().alias(POSITION),
            *_aliased(names),
        )
        read.write.parquet(f"{staging}/rows")
        frame = self.spark.read.parquet(f"{staging}/rows")
        return SparkRows(frame, names, frame.count())


def _files_of(spark: SparkSession, path: str) -> tuple[str, list[str]]:
    """What kind of files a path stands for, and which they are, as Spark takes them."""
    if REMOTE.match(path):
        with plain_errors(path):
            folders = Folders(spark)
            names = folders.names(path)
        if not names:
            raise SourceError(f"There is no file or folder {path}, or it is empty.")
        if "_delta_log" in names:
            return "delta", [path]
        return (
            "text" if any(data_suffix(Path(name)) in CSV_SUFFIXES + JSON_SUFFIXES for name in names) else "parquet"
        ), [path]
    if (Path(path) / "_delta_log").is_dir():
        return "delta", [Path(path).absolute().as_uri()]
    files = find_files(path)
    kinds = {"parquet" if kind_of(file) == "parquet" else "text" for file in files}
    if len(kinds) > 1:
        raise SourceError(f"{path} stands for Parquet files and others. Name the ones to read with a pattern.")
    # Backslashes and brackets would be patterns to Hadoop.
    return kinds.pop(), [re.sub(r"([\[\]{}*?\\,])", r"\\\1", f"file://{file.absolute()}") for file in files]


def _aliased(names: Sequence[str]) -> list[Column]:
    from pyspark.sql import functions as f

    aliases = SourceColumns(tuple(names)).columns
    quoted = [f"`{name.replace('`', '``')}`" for name in names]
    return [f.col(name).alias(alias) for name, alias in zip(quoted, aliases, strict=True)]


def _path_of(uri: str) -> str:
    return unquote(urlsplit(uri).path)


def _jdbc_options(section: SourceSection) -> dict[str, str]:
    """How Spark asks a database, from an SQLAlchemy URL or one of JDBC.

    >>> _jdbc_options(SourceSection(url="postgresql+psycopg://ann:secret@host:5432/name", table="payments"))
    {'url': 'jdbc:postgresql://host:5432/name', 'dbtable': 'payments', 'user': 'ann', 'password': 'secret'}
    """
    what = {"dbtable": section.table} if section.table is not None else {"query": section.query}
    url = str(section.url)
    if url.startswith("jdbc:"):
        return {"url": url, **{name: str(value) for name, value in what.items()}}
    parts = urlsplit(url)
    kind = _JDBC.get(parts.scheme.partition("+")[0])
    if kind is None:
        raise SettingError(
            f"Spark reads databases by JDBC, and `source.url` is {hide_password(url)!r}. Give an address such as "
            f"jdbc:postgresql://host/name, with the driver in spark.jars.packages."
        )
    host = f"{parts.hostname or 'localhost'}{f':{parts.port}' if parts.port else ''}"
    found = {"url": f"jdbc:{kind}://{host}{parts.path}", **{name: str(value) for name, value in what.items()}}
    if parts.username:
        found |= {"user": unquote(parts.username), "password": unquote(parts.password or "")}
    return found
