"""How files of rows are named; without what it takes to read them."""

from __future__ import annotations

from pathlib import Path

CSV_SUFFIXES = (".csv", ".tsv", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq")
JSON_SUFFIXES = (".jsonl", ".ndjson")
ROW_SUFFIXES = CSV_SUFFIXES + PARQUET_SUFFIXES + JSON_SUFFIXES
COMPRESSED = (".gz", ".bz2", ".zst")


def data_suffix(file: Path) -> str:
    """The ending of a file's name that says what rows are in it, without that of its compression.

    >>> data_suffix(Path("day.CSV.gz")), data_suffix(Path("README"))
    ('.csv', '')
    """
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def named_as_rows(file: Path) -> bool:
    """Whether the name is that of a file of rows.

    >>> named_as_rows(Path("today.jsonl.gz")), named_as_rows(Path("detector.yaml"))
    (True, False)
    """
    return data_suffix(file) in ROW_SUFFIXES
