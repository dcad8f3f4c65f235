"""How a CSV file is written: its encoding, its separator, its header."""

from __future__ import annotations

import codecs
import csv
import io
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from detector.errors import SourceError

HEAD_BYTES = 1 << 18
SEPARATORS = (",", ";", "\t", "|")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_SEP = re.compile(r'"?sep=(.)"?[ \t]*(\r\n|\n|\r)', re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|\n|\r")
MOST_ABOVE, MOSTLY_ALIKE = 100, 0.7
"""Lines that are looked at for a header, and the share of those from it on that must have as many fields."""
_LONE_RETURN = re.compile(r"\r(?!\n)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class UndecodableError(SourceError):
    """A file that is text in another encoding."""


@dataclass(frozen=True)
class Dialect:
    """How one CSV file is written.

    - ``encoding``, ``separator``: how characters are written, and what separates the fields.
    - ``columns``: the names in the header; one without a name is called after its position.
    - ``lines_above``: how many lines above the header are none: a title, empty ones, and Excel's ``sep=;``.
    - ``record_bytes``: mean length of the first records, zero if there is nothing but a header.
    """

    encoding: str
    separator: str
    columns: tuple[str, ...]
    lines_above: int
    record_bytes: float


def open_bytes(path: Path) -> pa.NativeFile:
    """The bytes of a file, decompressed if its name ends in .gz, .bz2 or .zst."""
    return pa.input_stream(str(path), compression="detect", buffer_size=1 << 20)


def read_dialect(path: Path, *, separator: str | None, encoding: str, header: int | None = None) -> Dialect:
    """Look at the head of a CSV file.

    - ``separator``: what separates the fields, or None to find out.
    - ``encoding``: how characters are written, unless the file begins with a byte order mark.
    - ``header``: the line of the header, counted from 1; by default the first that is not empty.

    Raises ``SourceError`` if the file is empty, unreadable, not text in that encoding, or has no header.
    """
    head, encoding, text = _head(path, encoding)
    body = text.lstrip("\r\n") if header is None else _from_line(path, text, header)
    if (said := _SEP.match(body)) is not None:
        separator, body = separator or said[1], body[said.end() :].lstrip("\r\n")
    if not body.strip():
        raise SourceError(f"{path} is empty: it has no header and no rows. Check what was to fill it.")
    if "\0" in body[:4096]:
        raise SourceError(f"{path} is not text. Expected CSV, Parquet or JSON lines; save it as one of these.")
    found = separator or _find_separator(body)
    records = _records(body, found, whole=len(head) < HEAD_BYTES)
    columns = tuple(name.strip() or f"column_{n}" for n, name in enumerate(records[0], start=1))
    _check_header(path, columns)
    lines_above = len(_LINE_END.findall(text[: len(text) - len(body)]))
    only_header = len(head) < HEAD_BYTES and not body.partition("\n")[2].strip()
    size = 0.0 if only_header else len(head) / len(records)
    return Dialect(encoding, found, columns, lines_above, size)


def find_header(path: Path, *, encoding: str) -> int:
    """The line that names the columns, counted from 1: above it stand lines with fewer fields, such as a title.

    1 where the first line may be it. Raises as ``read_dialect`` does.
    """
    lines = _LINE_END.split(_head(path, encoding)[2])[:MOST_ABOVE]
    found = [(*_header_of([_fields(line, separator) for line in lines]), n) for n, separator in enumerate(SEPARATORS)]
    alike, line, _ = max(found, key=lambda each: (each[0], -each[1], -each[2]))
    return line if alike >= MOSTLY_ALIKE else 1


def _header_of(records: list[list[str]]) -> tuple[float, int]:
    """The share of the records from a header on that have its width, and its line.

    All columns have a name in it, but the first, of an index, if it is the first line.
    """
    widths = Counter(len(record) for record in records if len(record) > 1)
    usual = widths.most_common(1)[0][0] if widths else 0
    full = [at for at, record in enumerate(records) if len(record) == usual and all(record[at == 0 :])]
    first = full[0] if full else 0
    if not usual or any(map(_NUMBER.fullmatch, records[first])):
        return 0.0, 1
    alike = [len(record) == usual for record in records[first:] if record]
    return sum(alike) / len(alike), first + 1


def _fields(line: str, separator: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


def _head(path: Path, encoding: str) -> tuple[bytes, str, str]:
    """The beginning of a file: as bytes, the encoding it says it has, and as text."""
    try:
        with open_bytes(path) as stream:
            head = stream.read(HEAD_BYTES)
    except PermissionError as error:
        raise SourceError(f"{path} may not be read by this user. Change its permissions.") from error
    except (OSError, pa.ArrowException, zlib.error) as error:
        raise SourceError(f"{path} cannot be read, or is not compressed as its name says: {error}") from error
    encoding = next((name for mark, name in _BOMS if head.startswith(mark)), encoding)
    return head, encoding, _with_line_ends(_decode(path, head, encoding))


def _from_line(path: Path, text: str, number: int) -> str:
    """The text from a line on, counted from 1."""
    ends = [end.end() for end in _LINE_END.finditer(text)]
    if number - 1 > len(ends):
        raise SourceError(f"{path} has no line {number:,}, which `source.header` calls its header. Correct it.")
    return text[0 if number == 1 else ends[number - 2] :]


def _decode(path: Path, head: bytes, encoding: str) -> str:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        return decoder.decode(head, final=len(head) < HEAD_BYTES).removeprefix("\ufeff")
    except UnicodeError:
        raise undecodable(path, encoding) from None


def _with_line_ends(text: str) -> str:
    """The text with line feeds where it has carriage returns alone, as old Macs wrote them and csv reads them not."""
    lone = len(_LONE_RETURN.findall(text))
    return _LONE_RETURN.sub("\n", text) if lone > text.count("\n") else text


def undecodable(path: Path, encoding: str) -> UndecodableError:
    """The error for bytes that are no characters, with the line of the first one."""
    where = ""
    if codecs.lookup(encoding).name == "utf-8":
        with open_bytes(path) as stream:
            for number, line in enumerate(io.BufferedReader(stream), start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    where = f" line {number} holds the byte 0x{line[error.start]:02X}."
                    break
    return UndecodableError(
        f"{path} is not text in {encoding}:{where or ' some bytes are no characters.'} "
        f"Set `source.encoding` to how it was written, often cp1252, latin-1 or utf-16."
    )


def _records(text: str, separator: str, *, whole: bool) -> list[list[str]]:
    """The first records; if the text is cut off, without the last one."""
    records: list[list[str]] = []
    try:
        records.extend(record for record in csv.reader(io.StringIO(text), delimiter=separator) if record)
    except csv.Error:  # a quote that is never closed: what comes before it is enough
        return records or [text.splitlines()[0].split(separator)]
    return records if whole or len(records) == 1 else records[:-1]


def _find_separator(text: str) -> str:
    """The separator by which most of the first records have as many fields as the header, two at least."""
    best, best_rank = ",", (0.0, 0)
    lines = "\n".join(text.splitlines()[:100])
    for candidate in SEPARATORS:
        widths = [len(record) for record in _records(lines, candidate, whole=True)]
        if widths[0] > 1:
            rank = (sum(width == widths[0] for width in widths) / len(widths), widths[0])
            best, best_rank = max((best, best_rank), (candidate, rank), key=lambda pair: pair[1])
    return best


def _check_header(path: Path, columns: tuple[str, ...]) -> None:
    numbers = [name for name in columns if _NUMBER.fullmatch(name)]
    if len(numbers) == len(columns) and not all(name.isdecimal() for name in numbers):
        raise SourceError(
            f"{path} has no header: its first line is {', '.join(columns[:5])}… "
            f"Add a first line with the names of the columns."
        )
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise SourceError(f"{path} has two columns named {twice!r}. Rename one, or add the missing header.")
