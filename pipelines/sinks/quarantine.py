"""Where rows that could not be used go: a CSV file with each row's reason, and one line that counts them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.errors import SettingError
from pipelines.config import Config
from pipelines.escaping import for_spreadsheet, one_line
from pipelines.progress import counted
from pipelines.sinks.files import CSV_SUFFIXES, FileSink

Span = tuple[str, int, int]
FILE = "file"
REASONS = 3
MOST_KINDS = 50
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_KEY = r"(?<=\bkey )\S.*?(?= appears again)"
_VALUE = re.compile(rf"{_QUOTED}|{_KEY}|\b(?<!at most )(?!\d+(?:s|m|h|d|min)\b)\d[\w.:,+-]*")
"""Values in quotes, keys, and numbers; but no limits and no times such as 5m, which are the same for all rows."""
_SECRET = re.compile(
    rf"(?P<named>\b(?:column|mean) )?(?:{_QUOTED})|{_KEY}|(?<![\w/.-])[\w-]*\d{{6}}[\w-]*(?![\w.-]*\.[a-z])",
    re.IGNORECASE,
)
"""The same, but for what is named as a column, or as one that may have been meant, and for short numbers."""


def count_quarantined(reasons: Mapping[str, int], *, of: int) -> list[str]:
    """How many rows could not be used, and why; nothing if there are none.

    >>> count_quarantined({"time: missing time": 1, "amount: not a number": 3}, of=50)
    ['4 of 50 rows could not be used: amount: not a number (3 rows); time: missing time (1 row).']
    """
    total = sum(reasons.values())
    return [f"{total:,} of {counted(of)} could not be used: {why(reasons)}."] if total else []


def why(reasons: Mapping[str, int]) -> str:
    """The most frequent reasons, each with the number of its rows."""
    most = sorted(reasons.items(), key=lambda item: -item[1])
    listed = "; ".join(f"{reason} ({counted(count)})" for reason, count in most[:REASONS])
    return listed + (f"; and {counted(len(most) - REASONS, 'other reason')}" if len(most) > REASONS else "")


def kind_of(reason: str, *, columns: Collection[str] = ()) -> str:
    """A reason without the values in it, so that rows with the same fault can be counted.

    - ``columns``: Names that stay, whatever is in them.

    >>> kind_of("3d_secure: '1.234,50' is not a number", columns=["3d_secure"])
    '3d_secure: … is not a number'
    >>> kind_of("at: lies in the future by more than 5m"), kind_of("id: key P-17 appears again (scored before)")
    ('at: lies in the future by more than 5m', 'id: key … appears again (scored before)')
    """
    head = next((f"{name}: " for name in columns if reason.startswith(f"{name}: ")), "")
    return (head + _without(_VALUE, reason[len(head) :], columns).replace("… …", "…"))[:200]


def without_values(error: str, config: Config) -> str:
    """An error as people may read it who are not to see values: names of columns and files stay, and short numbers.

    >>> config = Config.model_validate({"source": {"path": "in"}, "columns": {"numeric": ["amount"]}})
    >>> without_values("p-20260801.csv line 3: column 'amount' holds 'Ann' and 4111111111111111", config)
    "p-20260801.csv line 3: column 'amount' holds … and …"
    """
    section = config.columns
    known = {section.key, section.time, section.entity, section.label, *section.names}
    known.update(*(getattr(section, part) for part in ("numeric", "categorical", "boolean", "datetime", "for_rules")))
    return _without(_SECRET, error, known)


def _without(values: re.Pattern[str], text: str, names: Collection[str | None]) -> str:
    """A text whose values are left out, but for names of columns and paths in quotes."""

    def shown(found: re.Match[str]) -> str:
        quoted = found[0][1:-1] if found[0][0] in "'\"" else ""
        stays = quoted in names or quoted.startswith("/") if quoted else bool(found.groupdict().get("named"))
        return found[0] if stays else "…"

    return values.sub(shown, text)


def shown_columns(columns: Sequence[str]) -> list[str]:
    """The columns of a quarantine of rows with these.

    >>> shown_columns(["amount", "reason"])
    ['row', 'reason', 'amount', 'source_reason']
    """
    taken = ("row", "reason")
    return [*taken, *(f"source_{name}" if name in taken else name for name in columns)]


class QuarantineSink:
    """A CSV file of rows that could not be used: ``row``, ``reason``, then the original columns.

    There is no file when there was no such row; one left by an earlier run is removed, so that it is not
    taken for this one's.

    - ``escape``: Put a ' before text that a spreadsheet would take for a formula, and say in the reason which columns
      have one.
    - ``spans``: Of a batch of files, as in ``ReadFacts``, filled while rows are read: ``file`` then comes first, and
      ``row`` is the number in that file.
    - ``adds``: Rows of a file that is there stay, and others come behind them; none comes twice.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with QuarantineSink(Path(folder) / "bad.csv", columns=["amount"]) as sink:
    ...         sink.write(pd.DataFrame({"row": [3], "reason": ["amount: 'x' is not a number"], "amount": ["x"]}))
    ...     print((Path(folder) / "bad.csv").read_text().splitlines()[1])
    "3","amount: 'x' is not a number","x"
    """

    def __init__(
        self,
        path: Path,
        *,
        columns: Sequence[str] = (),
        escape: bool = True,
        spans: Sequence[Span] | None = None,
        adds: bool = False,
    ) -> None:
        if path.suffix.lower() not in CSV_SUFFIXES:
            raise SettingError(f"The quarantine is a .csv file, received {str(path)!r}. Rename it.")
        self.path = path
        self._spans = None if FILE in columns else spans
        self.columns = [*([FILE] if self._spans is not None else []), *shown_columns(columns)]
        self.reasons: Counter[str] = Counter()
        """Rows by the kind of their reason."""
        self._escape = escape
        self._file: FileSink | None = None
        self._earlier = _earlier(path) if adds else None
        self._labels: list[NDArray[np.int64]] = []

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels of the rows taken so far, as the batch numbers them; lines that could not be read have none."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *self._labels])

    @property
    def rows(self) -> int:
        """Rows taken so far, and those that were there and stay."""
        if self._file is not None:
            return self._file.rows
        return 0 if self._earlier is None else len(self._earlier)

    def describe(self) -> str:
        """The path."""
        return str(self.path)

    def __enter__(self) -> Self:
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Take some rows; columns that are missing stay empty."""
        if frame.empty:
            return
        self._labels.append(frame["row"].dropna().to_numpy(dtype=np.int64))
        placed = frame if self._spans is None else in_files(frame, self._spans)
        texts = as_texts(placed.reindex(columns=self.columns))
        texts = escaped(texts) if self._escape else texts
        if self._earlier is not None:
            texts = as_texts(texts.reindex(columns=self._earlier.columns))
            is_new = _are_new(texts, self._earlier)
            if not is_new.any():
                return
            texts, frame = texts[is_new], frame[is_new]
        if self._file is None:
            self._file = FileSink(self.path).__enter__()
            if self._earlier is not None:
                self._file.write(self._earlier)
        self._file.write(texts)
        kinds = frame["reason"].map(lambda reason: kind_of(reason, columns=self.columns))
        for kind, count in kinds.value_counts().items():
            known = kind in self.reasons or len(self.reasons) < MOST_KINDS
            self.reasons[str(kind) if known else "other reasons"] += int(count)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.__exit__(kind, error, trace)
        elif kind is None and self._earlier is None and self.path.is_file():
            self.path.unlink()


def _earlier(path: Path) -> pd.DataFrame | None:
    """The rows that a quarantine holds; None if there is none."""
    if not path.is_file():
        return None
    return as_texts(pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""]))


def _are_new(texts: pd.DataFrame, earlier: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows are not among earlier ones, wherever they were in their file."""
    same = [name for name in earlier.columns if name not in (FILE, "row")]
    rows, known = (pd.MultiIndex.from_frame(each[same].fillna("")) for each in (texts, earlier))
    return np.asarray(~rows.isin(known), dtype=bool)


def in_files(frame: pd.DataFrame, spans: Sequence[Span]) -> pd.DataFrame:
    """Rows of a batch with the file that each came from, and its number there in the place of that in the batch.

    >>> rows = pd.DataFrame({"row": [7, pd.NA], "reason": ["the time is missing", "b.csv line 3: 1 field"]})
    >>> in_files(rows.astype({"row": "Int64"}), [("a.csv", 0, 0), ("b.csv", 5, 100)])[["file", "row"]].values.tolist()
    [['b.csv', 102], [<NA>, <NA>]]
    """
    row = frame["row"].astype("Int64")
    known = row.notna().to_numpy()
    at = np.searchsorted([start for _, start, _ in spans], row[known].to_numpy(dtype=np.int64), side="right") - 1
    if not known.any() or (at < 0).any():
        return frame
    files = pd.Series(pd.NA, index=frame.index, dtype="string")
    files[known] = [spans[place][0] for place in at]
    row[known] += np.array([number - start for _, start, number in spans], dtype=np.int64)[at]
    return frame.assign(**{FILE: files, "row": row})


def as_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Values as a person reads them; what is missing stays missing."""
    return frame.apply(_as_text)


def escaped(texts: pd.DataFrame) -> pd.DataFrame:
    """Rows of a quarantine with a ' before text that is a formula to spreadsheets; the reason says where."""
    changed = {}
    for name in texts.columns:
        escaped = texts[name].map(for_spreadsheet, na_action="ignore").astype("str")
        if (differs := escaped.notna() & (escaped != texts[name])).any():
            changed[name], texts[name] = differs, escaped
    for name, differs in changed.items():
        texts.loc[differs, "reason"] += f"; a ' was put before {one_line(name)}, or a spreadsheet would compute it"
    return texts.rename(columns=for_spreadsheet)


def _as_text(column: pd.Series[Any]) -> pd.Series[str]:
    return column.astype(object).map(str, na_action="ignore").astype("str")


def quarantine_folder(config: Config) -> Path:
    """The folder for rows that cannot be used, one file a batch."""
    path = config.output.quarantine_path.with_suffix("")
    # Beside the configuration, not in whatever folder the service was started from.
    return path if path.is_absolute() or config.file is None else config.file.parent / path
