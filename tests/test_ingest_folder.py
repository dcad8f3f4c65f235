"""A folder that grows: what is scored, what waits, what is quarantined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
import yaml

from benchmarks.soak import Site, draw
from detector.detectors.table.detector import TabularDetector
from detector.errors import BundleError, SinkError, SourceError, StoreError
from detector.schema import Schema
from pipelines.scoring import batch_transaction
from pipelines.scoring.job import score_new
from pipelines.store import DayFlags
from pipelines.store.alert_tables import Alert, Delivery
from tests.service_sites import back_date, context, opened, put, score, states

Build = Callable[..., Site]


@pytest.fixture
def build(tiny_bundle: Path, tmp_path: Path) -> Build:
    def _build(way: str = "files to files", *, bundle: Path = tiny_bundle, **given: Any) -> Site:
        return Site(tmp_path / "site", bundle, way, **given)

    return _build


def keys(site: Site) -> list[int]:
    return sorted(int(key) for key in site.scored().elements())


def test_files_are_scored_once(build: Build) -> None:
    """A second run finds nothing new; a file that comes later is scored alone."""
    site = build()
    put(site, "a.csv", 0, 30)

    first, second = score(site), score(site)
    put(site, "b.parquet", 30, 10)
    third = score(site)

    assert (first.rows, second.outcome, third.rows) == (30, "skipped", 10)
    assert keys(site) == list(range(40))


def test_an_empty_folder_is_no_error(build: Build) -> None:
    """Before the first file comes there is nothing to do."""
    assert score(build()).note == "nothing new"


def test_file_is_left_until_it_has_settled(build: Build) -> None:
    """A file that was written a moment ago may still be written to."""
    site = build(settings={"settle": 60})
    put(site, "a.parquet", 0, 30, age=10)

    early = score(site)
    late = score(site, now=datetime.now(UTC) + timedelta(seconds=60))

    assert early.outcome == "skipped"
    assert late.rows == 30


def test_incomplete_parquet_waits_and_is_then_quarantined(build: Build) -> None:
    """Half a Parquet file holds up nothing; it is scored once it is whole, and quarantined if it never is."""
    site = build(settings={"broken_after": 100})
    put(site, "whole.parquet", 0, 30)
    put(site, "half.parquet", 30, 30)
    content = (site.input / "half.parquet").read_bytes()
    (site.input / "half.parquet").write_bytes(content[:500])
    back_date(site.input / "half.parquet", 50)

    assert score(site).rows == 30
    assert states(site)["half.parquet"][0] == "waiting"
    found = score(site, now=datetime.now(UTC) + timedelta(seconds=200))
    assert "half.parquet" in found.note
    assert states(site)["half.parquet"][0] == "broken"
    assert "not a whole Parquet file" in states(site)["half.parquet"][1]

    (site.input / "half.parquet").write_bytes(content)
    assert score(site).rows == 30
    assert keys(site) == list(range(60))


def test_csv_without_a_last_line_end_waits_longer(build: Build) -> None:
    """Its last line may be half a line; after ten times the settling time it is taken as it is."""
    site = build(settings={"settle": 5})
    put(site, "a.csv", 0, 3)
    text = (site.input / "a.csv").read_text().rstrip("\n")
    (site.input / "a.csv").write_text(text)
    back_date(site.input / "a.csv", 10)

    assert score(site).outcome == "skipped"
    assert score(site, now=datetime.now(UTC) + timedelta(seconds=50)).rows == 3


def test_appended_rows_are_scored_alone(build: Build) -> None:
    """A CSV that grows at its end has its new rows scored, and no other."""
    site = build()
    put(site, "a.csv", 0, 30)
    score(site)
    more = draw(12, first=30, seed=1).to_csv(index=False, header=False)
    with (site.input / "a.csv").open("a") as stream:
        stream.write(more)

    found = score(site)

    assert found.rows == 12
    assert keys(site) == list(range(42))
    assert states(site)["a.csv"][2] == 42


@pytest.mark.parametrize(("rows", "word"), [(5, "truncated"), (30, "replaced")])
def test_changed_file_keeps_its_scores_and_is_reported(build: Build, rows: int, word: str) -> None:
    """A file that was scored and is then another one is not scored again: its scores stand, and people are told."""
    site = build()
    put(site, "a.csv", 0, 20)
    score(site)
    put(site, "a.csv", 100, rows, age=5)

    found = score(site)

    assert word in found.note
    assert "detector backfill CONFIG --file a.csv" in found.note
    assert keys(site) == list(range(20))
    assert score(site).note == "nothing new"


def test_replaced_file_is_scored_if_so_set(build: Build) -> None:
    """``replaced: rescore`` takes it as a new file."""
    site = build(settings={"replaced": "rescore"})
    put(site, "a.csv", 0, 20)
    score(site)
    put(site, "a.csv", 100, 30, age=5)

    assert score(site).rows == 30
    assert keys(site) == [*range(20), *range(100, 130)]


def test_touched_file_is_not_scored_again(build: Build) -> None:
    """Only its time has changed."""
    site = build()
    put(site, "a.csv", 0, 20)
    score(site)
    back_date(site.input / "a.csv", 3)

    assert score(site).note == "nothing new"


def test_file_replaced_while_it_is_read(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is not what is there: nothing is kept, and the next run takes the file as it is."""
    site = build()
    put(site, "a.csv", 0, 20)
    reached = batch_transaction.failpoint

    def replace(point: str) -> None:
        reached(point)
        if point == "score.computed":
            put(site, "a.csv", 50, 25, age=5)

    monkeypatch.setattr(batch_transaction, "failpoint", replace)
    with pytest.raises(SourceError, match="changed while it was read; none of this batch was kept"):
        score(site)
    monkeypatch.undo()

    assert site.scored() == {}
    assert score(site).rows == 25
    assert keys(site) == list(range(50, 75))


def test_file_that_vanishes_after_its_claim_is_let_go(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim on files that are gone is given up, and the others are scored."""
    site = build()
    put(site, "a.csv", 0, 20)
    put(site, "b.csv", 20, 20)

    def stop(point: str) -> None:
        if point == "score.claimed":
            raise RuntimeError(point)

    monkeypatch.setattr(batch_transaction, "failpoint", stop)
    with pytest.raises(RuntimeError, match="score.claimed"):
        score(site)
    monkeypatch.undo()
    (site.input / "a.csv").unlink()

    assert score(site).rows == 20
    assert keys(site) == list(range(20, 40))
    assert site.count()["open"] == 0


def test_unreadable_file_does_not_hold_up_the_others(build: Build) -> None:
    """A file without a needed column is quarantined with the reason; the others are scored."""
    site = build()
    put(site, "a.csv", 0, 20)
    frame = draw(20, first=20, seed=1).drop(columns="amount")
    frame.to_csv(site.input / "b.csv", index=False)
    (site.input / "c.csv").write_bytes(b"id,at,amount,fee\n1,2026-01-01,\xff\xfe,1\n" * 3)
    back_date(site.input / "b.csv", 10)
    back_date(site.input / "c.csv", 10)

    found = score(site)

    assert found.rows == 20
    assert states(site)["b.csv"][:1] == ("broken",)
    assert "amount" in states(site)["b.csv"][1]
    assert states(site)["c.csv"][:1] == ("broken",)
    assert keys(site) == list(range(20))


def test_file_that_fails_while_it_is_read_is_quarantined(build: Build) -> None:
    """An error deep in a file shows only while reading; the rest of its batch is scored without it."""
    site = build()
    put(site, "a.csv", 0, 20)
    head = draw(20_000, first=100, seed=1).to_csv(index=False)
    (site.input / "b.csv").write_bytes(head.encode() + b"9,2026-01-01,\xff\xfe,1\n")
    back_date(site.input / "b.csv", 10)

    found = score(site)

    assert "b.csv is quarantined" in found.note
    assert keys(site) == list(range(20))
    assert site.count()["open"] == 0


def test_header_without_rows_is_scored_as_nothing(build: Build) -> None:
    """A file with a header only is done with."""
    site = build()
    (site.input / "a.csv").write_text("id,at,amount,fee\n")
    back_date(site.input / "a.csv", 10)

    assert score(site).rows == 0
    assert states(site)["a.csv"][0] == "scored"


def test_clock_set_back_holds_up_nothing(build: Build) -> None:
    """Files from the future, as they look after the clock was set back, are read once they are found unchanged."""
    site = build(settings={"settle": 60})
    put(site, "a.csv", 0, 20, age=-3_600)
    now = datetime.now(UTC)

    first = score(site, now=now)
    second = score(site, now=now + timedelta(seconds=5))

    assert first.outcome == "skipped"
    assert second.rows == 20
    assert score(site, now=now - timedelta(hours=2)).outcome == "skipped"
    assert site.count()["doubled"] == 0


def test_batches_are_cut_at_files(build: Build) -> None:
    """A batch takes whole files until it has enough rows."""
    site = build(settings={"batch_rows": 50})
    for number in range(4):
        put(site, f"{number}.parquet", 20 * number, 20)

    found = score(site)

    assert found.facts["batches"] == 2
    assert keys(site) == list(range(80))


def test_file_that_is_sent_twice_is_scored_once(build: Build) -> None:
    """Under two names, at once or later: the copy is set aside and named."""
    site = build()
    frame = put(site, "a.csv", 0, 30)
    for name in ("b.csv", "c.csv"):
        frame.to_csv(site.input / name, index=False)
        back_date(site.input / name, 10.0)
        said = score(site)
        assert f"{name}: it holds the same as a.csv, byte for byte" in said.note
        assert keys(site) == list(range(30))


def test_file_that_is_renamed_is_not_scored_again(build: Build) -> None:
    """Archived under another name that the pattern takes too, it stays scored; new rows at its end are scored."""
    site = build()
    frame = put(site, "a.csv", 0, 30)
    score(site)
    (site.input / "a.csv").rename(site.input / "old-a.csv")

    assert score(site).note == "nothing new"
    assert states(site)["old-a.csv"] == ("scored", "it was scored as a.csv", 30)
    pd.concat([frame, draw(5, first=30, seed=30)]).to_csv(site.input / "old-a.csv", index=False)
    back_date(site.input / "old-a.csv", 10.0)
    score(site)
    assert keys(site) == list(range(35))


def test_budget_a_day_counts_all_batches(build: Build) -> None:
    """Rows flagged by earlier batches of a day use up its budget; a day never has more than its budget."""
    site = build(policy={"quantile": 0.5, "budget": {"rows": 5, "per": "day"}})
    for number in range(3):
        put(site, f"{number}.parquet", 200 * number, 200)
        score(site)

    frame = pd.read_parquet(site.folder / "scores")
    flagged = frame[frame["flagged"]].groupby(frame["at"].dt.date).size()

    assert flagged.to_dict() == dict.fromkeys(flagged.index, 5)
    with opened(site) as store, store.read() as session:
        assert session.scalar(sa.select(sa.func.sum(DayFlags.flagged))) == flagged.sum()


def test_key_that_comes_again_is_quarantined_in_a_table(build: Build) -> None:
    """A file sent twice under two names has its rows scored once."""
    site = build("files to table", shares=True)
    put(site, "a.parquet", 0, 20)
    score(site)
    put(site, "b.parquet", 10, 20)

    found = score(site)

    assert (found.rows, found.facts["scored"], found.facts["quarantined"]) == (20, 10, 10)
    assert keys(site) == list(range(30))
    aside = pd.read_csv(site.folder / "scores.quarantine" / "batch-00000002.csv")
    assert aside["reason"].str.contains("appears again \\(scored before\\)").all()


def test_quarantined_rows_of_several_files_are_named_by_file_and_number(build: Build) -> None:
    """The position in a batch is none in any file, and a row may have no key to find it by."""
    site = build()
    for name, first in (("a.csv", 0), ("b.csv", 10)):
        frame = draw(10, first=first, seed=first).astype({"id": object})
        frame.loc[[2, 7], "id"] = None
        frame.to_csv(site.input / name, index=False)
        back_date(site.input / name, 10.0)
    with (site.input / "b.csv").open("a") as stream:
        stream.write("half a line\n")
    back_date(site.input / "b.csv", 10.0)

    assert score(site).facts["quarantined"] == 5

    (file,) = (site.folder / "scores.quarantine").glob("*.csv")
    aside = pd.read_csv(file)
    named = aside.dropna(subset="row")
    assert list(zip(named["file"], named["row"], strict=True)) == [
        ("a.csv", 2),
        ("a.csv", 7),
        ("b.csv", 2),
        ("b.csv", 7),
    ]
    assert aside["reason"].str.contains("b.csv line 12").sum() == 1


def test_rows_without_a_key_are_named_by_file_and_number(build: Build, tmp_path: Path) -> None:
    """Without a key column each row says where it came from, also after the file has grown."""
    detector = TabularDetector(schema=Schema(numeric=("amount", "fee")), members=("forest",), trees=5)
    from detector.persist.bundle import save

    bundle = save(detector.fit(draw(300, first=0, seed=0)).scorer_, tmp_path / "keyless")
    site = build(bundle=bundle)
    put(site, "a.csv", 0, 3)
    put(site, "b.csv", 3, 2)
    score(site)
    with (site.input / "a.csv").open("a") as stream:
        stream.write(draw(1, first=9, seed=1).to_csv(index=False, header=False))
    score(site)

    frame = pd.read_parquet(site.folder / "scores")

    names = list(zip(frame["file"], frame["row"], strict=True))
    assert names == [("a.csv", 0), ("a.csv", 1), ("a.csv", 2), ("b.csv", 0), ("b.csv", 1), ("a.csv", 3)]


def test_full_database_keeps_nothing(build: Build) -> None:
    """A database that is full takes neither scores nor cursor; with room again all are scored."""
    site = build("files to table", shares=True)
    put(site, "a.parquet", 0, 3_000)
    with opened(site) as store:

        @sa.event.listens_for(store.engine, "connect")
        def limit(connection: Any, _: object) -> None:
            connection.execute("PRAGMA max_page_count=60")

        store.engine.dispose()
        with pytest.raises((SinkError, StoreError), match="full"):
            score_new(context(site, store))

    assert site.scored() == {}
    assert score(site).rows == 3_000
    assert keys(site) == list(range(3_000))


def test_leader_that_lost_its_term_keeps_nothing(build: Build) -> None:
    """A run that was held up while another instance took over cannot commit."""
    site = build()
    put(site, "a.parquet", 0, 20)

    def fence(_: object) -> None:
        raise StoreError("Another instance has taken over.")

    with pytest.raises(StoreError, match="taken over"):
        score(site, fence=fence)

    assert site.scored() == {}
    assert score(site).rows == 20


@pytest.mark.parametrize("meanwhile", ["scored", "given up"])
def test_batch_that_another_run_has_dealt_with_is_not_committed(
    build: Build, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """A leader that was paused in the middle of a batch, and leads again, keeps nothing of it and doubles nothing."""
    site = build("files to table", shares=True, policy={"quantile": 0.9})
    settings = yaml.safe_load((site.folder / "detector.yaml").read_text(encoding="utf-8"))
    settings["alerts"] = {"enabled": True, "file": {"path": "alerts.jsonl"}}
    (site.folder / "detector.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    put(site, "a.parquet", 0, 200)
    reached, paused = batch_transaction.failpoint, []

    def pause(point: str) -> None:
        reached(point)
        if point == "score.staged" and not paused:
            paused.append(point)
            if meanwhile == "given up":  # and its number taken by the next batch
                put(site, "a.parquet", 0, 100)
            assert score(site).outcome == "done"

    monkeypatch.setattr(batch_transaction, "failpoint", pause)

    with pytest.raises(StoreError, match="done already, by another run"):
        score(site)

    assert keys(site) == list(range(200 if meanwhile == "scored" else 100))
    with opened(site) as store, store.read() as session:
        labels = session.scalars(sa.select(Alert.label)).all()
        alerts = session.scalar(sa.select(sa.func.count()).select_from(Delivery).where(Delivery.target == "file"))
    assert 0 < alerts == len(set(labels)) == len(labels)


def test_unknown_score_files_are_moved_away(build: Build) -> None:
    """A file of scores that no batch knows of is left over from a crash, and does not count."""
    site = build()
    put(site, "a.parquet", 0, 20)
    score(site)
    known = next((site.folder / "scores").glob("batch-*.parquet"))
    known.with_name("batch-00000099-abc.parquet").write_bytes(known.read_bytes())

    score(site)

    assert keys(site) == list(range(20))
    assert (site.folder / "scores" / ".orphans" / "batch-00000099-abc.parquet").is_file()


def test_without_a_detector_nothing_is_scored(build: Build, tmp_path: Path) -> None:
    """The message says what to do."""
    with pytest.raises(BundleError, match="Run `detector train` first"):
        score(build(bundle=tmp_path / "nothing"))


@pytest.mark.parametrize("failure", [SourceError("gone"), ValueError("no column"), MemoryError()])
def test_challenger_that_fails_in_the_shadow_harms_nothing(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    """The champion's scores are kept, and the run goes on with the next batch."""

    class Failing:
        def watch(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            return frames

        def score(self, *_: object, **__: object) -> None:
            raise failure

    monkeypatch.setattr("pipelines.scoring.batch_transaction.ShadowTrial.of", lambda *_, **__: Failing())
    site = build(settings={"batch_rows": 20})
    put(site, "a.parquet", 0, 20)
    put(site, "b.parquet", 20, 20)

    found = score(site)

    assert (found.outcome, found.rows, found.facts["batches"]) == ("done", 40, 2)
    assert caplog.text.count("the challenger could not score batch") == 2
