"""Files with a JSON object a line: what is read, what is quarantined, what is told."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pytest
from fastapi.exceptions import RequestValidationError

from benchmarks.soak import Site, draw
from detector.errors import SourceError
from pipelines.api.events import Events
from pipelines.config.data import SourceSection
from pipelines.config.formats import FormatSection
from pipelines.sources import Source, jsonlines, open_source
from tests.service_sites import back_date, score


def opened(file: Path, **settings: object) -> Source:
    return open_source(SourceSection(path=str(file), **settings))


def written(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_values_are_as_they_are_written(tmp_path: Path) -> None:
    """No digit is lost, fields within fields are columns, and a field that a line lacks is missing."""
    file = written(
        tmp_path / "a.jsonl",
        '{"id": 12345678901234567890, "amount": 1.50, "card": {"country": "DE", "open": {"since": null}}}',
        "",
        '{"id": 7, "ok": true, "tags": ["a"], "card": {}}\r',
    )

    found = opened(file).read()

    assert found.columns.tolist() == ["id", "amount", "card.country", "card.open.since", "ok", "tags"]
    assert found.iloc[0].dropna().to_dict() == {"id": "12345678901234567890", "amount": "1.50", "card.country": "DE"}
    assert found.iloc[1].dropna().to_dict() == {"id": "7", "ok": "true", "tags": '["a"]'}


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz"])
def test_names_of_json_lines(tmp_path: Path, name: str) -> None:
    """The name tells, compressed or not; of .json, the first line does. A byte order mark is no part of it."""
    content = b'\xef\xbb\xbf{"x": 1}\n{"x": 2}' if name != "a.json" else b'{"x": 1}\n{"x": 2}'
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    assert opened(tmp_path / name).read()["x"].tolist() == ["1", "2"]


def test_bad_lines_are_left_out_with_their_number(tmp_path: Path) -> None:
    """Lines that are no object are reported each time the file is read, and good ones keep their places."""
    source = opened(written(tmp_path / "a.jsonl", '{"x": 1}', "oops", "[1]", '{"x": 2}'))

    for _ in range(2):
        assert source.read()["x"].tolist() == ["1", "2"]
        assert source.rejected["reason"].tolist() == [
            "line 2: not JSON: Expecting value: line 1 column 1 (char 0)",
            "line 3: expected a JSON object, received list",
        ]


def test_line_in_another_encoding_is_left_out(tmp_path: Path) -> None:
    """Letters that are not in UTF-8 are not guessed; half a character that is escaped becomes the mark for none."""
    (tmp_path / "a.jsonl").write_bytes(b'{"x": "Kln"}\n{"x": "K\xf6ln"}\n{"x": "\xed\xa0\x80"}\n{"x": "\\ud83d"}\n')
    source = opened(tmp_path / "a.jsonl")

    assert source.read()["x"].tolist() == ["Kln", "\ufffd"]
    assert source.rejected["reason"].str.contains("not JSON: 'utf-8' codec can't decode byte").tolist() == [True] * 2


def test_file_that_is_mostly_bad(tmp_path: Path) -> None:
    """A file of something else is an error, not a quarantine of everything."""
    file = written(tmp_path / "a.jsonl", '{"x": 1}', *["oops"] * 20)

    with pytest.raises(SourceError, match=r"Most lines of .*a.jsonl are no JSON objects: not JSON: Expecting"):
        opened(file).read()


def test_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One array of everything is not read into memory in search of its end."""
    monkeypatch.setattr(jsonlines, "LONGEST_LINE", 100)
    file = written(tmp_path / "a.jsonl", '{"x": 1}', json.dumps([{"x": 1}] * 100))

    with pytest.raises(SourceError, match=r"a.jsonl line 2 is longer than .* Write one object a line"):
        opened(file)


def test_fields_of_first_and_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A field that producers added later is read; one between is named in the log, with its line."""
    monkeypatch.setattr(jsonlines, "LOOKED_AT", 2)
    file = written(tmp_path / "a.jsonl", *['{"x": 1}'] * 3, '{"x": 1, "rare": 2}', *['{"x": 1, "new": 3}'] * 3)

    with caplog.at_level(logging.WARNING, "detector.sources"):
        found = opened(file).read()

    assert found.columns.tolist() == ["x", "new"]
    assert found["new"].notna().sum() == 3
    assert "'rare' (line 4)" in caplog.text


def test_event_of_the_api_has_the_columns_of_the_file() -> None:
    """A program may send what it writes to its log; an object in a column that is read by itself stays a mistake."""
    body = json.dumps({"event": {"id": 7, "card": {"country": "DE", "open": {"since": 2}}, "tags": ["a"]}}).encode()

    nested = Events.read(body, {"id", "card.country"}).event

    assert nested == {"id": 7, "card.country": "DE", "card.open.since": 2}
    with pytest.raises(RequestValidationError):
        Events.read(body, {"id", "card"})


def test_numbers_as_text(tmp_path: Path) -> None:
    """Text in JSON can have decimal commas, and forms of its own."""
    file = written(tmp_path / "a.jsonl", '{"x": "1,5", "load": "7 %"}', '{"x": 2.5, "load": "8 %"}')
    source = opened(file, decimal=",", formats={"load": FormatSection(unit="%")})

    found = source.read(numeric=["x", "load"])

    assert found["x"].tolist() == [1.5, 2.5]
    assert found["load"].tolist() == [7.0, 8.0]


def test_appended_lines_are_scored_once(tiny_bundle: Path, tmp_path: Path) -> None:
    """A file that grows is read on from where it was."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files")
    file = site.input / "events.jsonl"
    lines = draw(12, first=0, seed=0).to_json(orient="records", lines=True, date_format="iso").splitlines(keepends=True)
    rows = []
    for upto in (5, 9, 12):
        file.write_text("".join(lines[:upto]))
        back_date(file, 10.0)
        rows.append(score(site).rows)

    assert rows == [5, 4, 3]
    assert sorted(site.scored().elements()) == list(range(12))
