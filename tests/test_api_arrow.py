"""Events and scores as Arrow streams: the numbers of JSON, and a refusal that names what is wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import requests

from benchmarks.soak import Site, draw
from pipelines.api.arrow_stream import frame_of
from pipelines.api.events import ARROW
from pipelines.api.problems import ProblemError
from pipelines.store import open_store
from tests import payment_sites, web
from tests.payment_sites import PAYMENTS, settle
from tests.web import Served, events, fields_of, is_problem, served, with_api

home, trained = payment_sites.home, payment_sites.trained
service, site = web.service, web.site

NEW = PAYMENTS.iloc[750:830]


def stream(table: pa.Table, **options: Any) -> bytes:
    """A table as a body."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def ask(service: Served, table: pa.Table | bytes, *, query: str = "", **headers: str) -> requests.Response:
    """What is answered to a body of Arrow."""
    body = stream(table) if isinstance(table, pa.Table) else table
    named = {"Content-Type": ARROW} | {name.replace("_", "-"): value for name, value in headers.items()}
    return service.ask("POST", f"/v1/score{query}", data=body, headers=named)


def drawn(rows: int) -> pa.Table:
    """Events of the site's columns."""
    return pa.Table.from_pandas(draw(rows, first=0, seed=0), preserve_index=False)


def test_scores_are_those_of_json(site: Site, service: Served) -> None:
    """To the last bit, whether the answer is JSON or Arrow; with reasons by the address."""
    rows = draw(40, first=0, seed=0)
    wanted = service.ask("POST", "/v1/score", json={"events": events(rows), "reasons": True}).json()

    as_json = ask(service, drawn(40), query="?reasons=true")
    as_arrow = ask(service, drawn(40), query="?reasons=true&dry_run=true", Accept=f"{ARROW}, application/json;q=0.5")
    found = pa.ipc.open_stream(as_arrow.content).read_all()

    assert as_json.json() == wanted
    assert as_arrow.headers["content-type"] == ARROW
    for name in ("risk", "p_value", "flagged", "severity", "reasons", "rules"):
        assert found[name].to_pylist() == [score[name] for score in wanted["scores"]]
    assert found["key"].to_pylist() == [str(score["key"]) for score in wanted["scores"]]
    assert found.schema.metadata[b"model_version"].decode() == wanted["model_version"]


@pytest.fixture
def past(home: Path) -> Iterator[Served]:
    """A service whose detector knows a card's past."""
    config = settle(home)
    with served(config, open_store(config.service.store)) as found:
        yield found


def test_text_times_and_held_events_are_those_of_json(past: Served) -> None:
    """Dictionary-encoded text, views, times with and without zones; also once they are held."""
    rows = NEW.drop(columns="is_fraud")
    table = pa.Table.from_pandas(rows, preserve_index=False)
    places = {name: table.schema.get_field_index(name) for name in table.column_names}
    at = table["time"].cast(pa.timestamp("ms")).cast(pa.int64())
    others = {
        "time": at.cast(pa.timestamp("ms", "Europe/Berlin")),
        "card_id": pc.dictionary_encode(table["card_id"]),
        "merchant_category": table["merchant_category"].cast(pa.string_view()),
    }
    odd = table
    for name, column in others.items():
        odd = odd.set_column(places[name], name, column)
    plain = json.loads(rows.to_json(orient="records", date_format="iso", date_unit="us"))

    dry = past.ask("POST", "/v1/score", json={"events": plain, "dry_run": True}).json()["scores"]
    found = ask(past, odd, query="?dry_run=true").json()["scores"]
    held = ask(past, odd.slice(0, 40)).json()
    after = ask(past, table.slice(40), query="?dry_run=true").json()["scores"]
    same = past.ask("POST", "/v1/score", json={"events": plain[40:], "dry_run": True}).json()["scores"]

    assert found == dry
    assert held["held"] == 40
    assert after == same
    assert [each["risk"] for each in after] == [each["risk"] for each in dry[40:]]  # those held are in their past


def test_numbers_and_gaps_are_those_of_json(service: Served) -> None:
    """Whole numbers with gaps keep their digits as keys, decimals and narrow floats their value."""
    table = pa.table(
        {
            "id": pa.array([2**60 + 1, 2**60 + 2, None], pa.int64()),
            "at": pa.array(["2026-01-01T10:00:00+02:00"] * 3),
            "amount": pa.array([4000, 55, 3], pa.int16()),
            "fee": pa.array([1, None, 2], pa.decimal128(9, 2)),
        }
    )
    found = ask(service, table).json()
    wanted = service.ask(
        "POST",
        "/v1/score",
        json={
            "events": [
                {"id": key, "at": "2026-01-01T08:00:00", "amount": amount, "fee": fee}
                for key, amount, fee in ((2**60 + 1, 4000, 1), (2**60 + 2, 55, None), (None, 3, 2))
            ]
        },
    ).json()

    assert [str(each["key"]) for each in found["scores"]] == [str(2**60 + 1), str(2**60 + 2)]
    assert [each["risk"] for each in found["scores"]] == [each["risk"] for each in wanted["scores"]]
    assert (
        [each["field"] for each in found["refused"]] == ["events.2.id"] == [each["field"] for each in wanted["refused"]]
    )


def test_refusals_name_the_row_and_the_column(service: Served) -> None:
    """A value that cannot be read, by its row; a column that is missing or of the wrong type, by its name."""
    good = drawn(3)
    at = good.schema.get_field_index("amount")
    text = good.set_column(at, "amount", pa.array(["1", "much", "2"]))

    wrong = ask(service, text, Accept=ARROW)
    lacking = ask(service, good.rename_columns(["amuont" if name == "amount" else name for name in good.column_names]))
    nested = ask(service, good.set_column(at, "amount", pa.array([[1.0], [2.0], []])))
    binary = ask(service, good.set_column(at, "amount", pa.array([b"1", b"2", b"3"])))
    moment = ask(service, good.set_column(at, "amount", pa.array([0, 1, 2], pa.timestamp("us"))))
    twice = ask(service, pa.table([*good.columns, good["fee"]], names=[*good.column_names, "fee"]))
    far = ask(
        service,
        good.set_column(good.schema.get_field_index("at"), "at", pa.array([2**62, 0, 0], pa.timestamp("s"))),
    )

    found = pa.ipc.open_stream(wrong.content).read_all().to_pylist()
    assert [(each["place"], each["field"], each["risk"] is None) for each in found] == [
        (0, None, False),
        (1, "events.1.amount", True),
        (2, None, False),
    ]
    assert "Did you mean 'amuont'" in fields_of(lacking)["events.amount"]
    for refused, name in ((nested, "amount"), (binary, "amount"), (moment, "amount"), (twice, "fee"), (far, "at")):
        assert is_problem(refused, 422)
        assert set(fields_of(refused)) == {f"events.{name}"}


def test_bodies_that_are_no_stream_get_a_problem(service: Served) -> None:
    """Cut off anywhere, changed anywhere, of another kind: the service says so and goes on."""
    body = stream(drawn(3))
    random = np.random.default_rng(0)
    bodies = [
        b"",
        b"\xff" * 100,
        b"ARROW1\0\0" + body,
        json.dumps({"events": []}).encode(),
        *(body[:n] for n in (3, 200, 700)),
    ]
    for _ in range(150):
        changed = bytearray(body)
        for place in random.integers(0, len(body), 3):
            changed[place] = int(random.integers(0, 256))
        bodies.append(bytes(changed))

    found = [ask(service, each, query="?dry_run=true") for each in bodies]

    assert {each.status_code for each in found} <= {200, 422}
    assert [each.status_code for each in found[:6]] == [422] * 6
    assert service.ask("GET", "/v1/health").status_code == 200


def test_other_kinds_of_bodies_are_named(service: Served) -> None:
    """Neither JSON nor Arrow is 415, with what is expected."""
    found = service.ask("POST", "/v1/score", data="id,amount\n1,2", headers={"Content-Type": "text/csv"})

    assert is_problem(found, 415)
    assert ARROW in found.json()["detail"]


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_packed_streams_are_refused_before_they_are_unpacked(compression: str) -> None:
    """A small body could become any size."""
    table = pa.table({"amount": np.zeros(10_000_000)})
    body = stream(table, compression=compression)
    assert len(body) < 1_000_000
    before = pa.total_allocated_bytes()

    with pytest.raises(ProblemError) as error:
        frame_of(body, {"amount"}, most=10**9, most_columns=10)

    assert "without compression" in error.value.fields["body"]
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_long_text_that_is_named_many_times_is_refused() -> None:
    """A dictionary, or views, may say a megabyte ten thousand times."""
    long = pa.array(["x" * 1_000_000])
    packed = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int16()), long)
    view, text = long.cast(pa.string_view()).buffers()[1:]
    views = pa.Array.from_buffers(pa.string_view(), 10_000, [None, pa.py_buffer(view.to_pybytes() * 10_000), text])

    for column in (packed, views):
        with pytest.raises(ProblemError) as error:
            frame_of(stream(pa.table({"shop": column})), {"shop"}, most=10_000, most_columns=10)

        assert "10,000,000,000 bytes" in error.value.fields["events.shop"]


def test_limits_are_those_of_json(site: Site) -> None:
    """The number of events, the size of the body, and at least one row."""
    config = with_api(site, most_events=2, most_megabytes=0.01)
    with served(config, open_store(config.service.store)) as service:
        many = ask(service, drawn(3))
        large = ask(service, drawn(1_000))
        none = ask(service, drawn(2).slice(0, 0))

    assert "service.api.most_events" in fields_of(many)["events"]
    assert is_problem(large, 413)
    assert "at least one row" in fields_of(none)["events"]


def test_request_that_comes_again_is_answered_again(past: Served) -> None:
    """Under one name, in the form that is asked for; another body under that name is refused."""
    table = pa.Table.from_pandas(NEW.drop(columns="is_fraud"), preserve_index=False)

    first = ask(past, table, Idempotency_Key="a", Accept=ARROW)
    again = ask(past, table, Idempotency_Key="a", Accept=ARROW)
    other = ask(past, table.slice(1), Idempotency_Key="a")

    assert again.headers["idempotent-replay"] == "true"
    assert again.content == first.content
    assert is_problem(other, 422)


def test_description_has_both_kinds(service: Served) -> None:
    """OpenAPI names the bodies that are taken and given, and what they hold."""
    found = service.ask("GET", "/v1/openapi.json").json()["paths"]["/score"]["post"]

    assert set(found["requestBody"]["content"]) == {"application/json", ARROW}
    assert "events" in found["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(found["responses"]["200"]["content"]) == {"application/json", ARROW}
    assert {each["name"] for each in found["parameters"]} == {"reasons", "dry_run"}


def test_frames_hold_what_was_sent() -> None:
    """Only the columns that are wanted, typed as ``clean`` reads them."""
    table = pa.table({"a": pa.array([1, None], pa.int8()), "b": ["x", None], "c": [[1], [2]]})

    frame, names = frame_of(stream(table), {"a", "b"}, most=10, most_columns=10)

    assert names == ["a", "b", "c"]
    assert frame["a"].astype(object).where(frame["a"].notna(), None).tolist() == [1, None]
    assert frame["b"].tolist()[0] == "x"
    assert pd.isna(frame["b"].tolist()[1])
