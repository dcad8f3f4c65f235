"""Alerts of the service about itself: too many unusable rows, files set aside, a job that keeps failing."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

import detector
import pipelines
from benchmarks.soak import Site, draw
from detector.errors import DataError, SourceError, StoreError
from pipelines.alerts.delivery.deliver import deliver
from pipelines.alerts.feedback.answers import answer
from pipelines.alerts.grouping.silences import silence
from pipelines.alerts.message.message import message_of
from pipelines.alerts.outbox.views import alert_text, alerts_table
from pipelines.config import load_config
from pipelines.jobs import catalogue
from pipelines.jobs.context import Context, JobOutcome
from pipelines.scoring.job import score_new
from pipelines.scoring.unusable import WAYS_OUT, trouble_of_rows
from pipelines.service.runs import run_job
from pipelines.sinks.quarantine import QuarantineSink, without_values
from pipelines.store import Batch, Store
from pipelines.store.alert_tables import Alert, AlertDay
from tests.service_sites import back_date, context, opened, put

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
ALERTS: dict[str, Any] = {"file": {"path": "alerts.jsonl"}, "log": {"enabled": False}}


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    return site_with(tiny_bundle, tmp_path)


def site_with(bundle: Path, folder: Path, *, service: dict[str, Any] | None = None, **alerts: Any) -> Site:
    import yaml

    site = Site(folder / "site", bundle, "files to files", settings=service)
    file = site.folder / "detector.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump(values | {"alerts": ALERTS | alerts}), encoding="utf-8")
    return site


def bad(site: Site, name: str, first: int, rows: int, unusable: int) -> None:
    """A file of which some amounts have a currency behind them."""
    frame = draw(rows, first=first, seed=first)
    amounts = [f"{value} EUR" if place < unusable else f"{value}" for place, value in enumerate(frame["amount"])]
    frame.assign(amount=amounts).to_csv(site.input / name, index=False)
    back_date(site.input / name, 10.0)


def scored(site: Site, store: Store, *, now: datetime = NOW) -> JobOutcome:
    """Files written by the tests are of today, so the clock of files is not the one given."""
    return score_new(context(site, store, now=max(now, datetime.now(UTC)) if now is NOW else now))


def told(store: Store, *kinds: str) -> list[Alert]:
    """Alerts of some kinds, or all, in order."""
    with store.read() as session:
        found = session.scalars(sa.select(Alert).order_by(Alert.created_at, Alert.kind.desc())).all()
        session.expunge_all()
    return [alert for alert in found if not kinds or alert.kind in kinds]


def test_too_many_unusable_rows_are_told_once_until_they_are_over(site: Site) -> None:
    """One alert for two such batches, with count, share, reasons, file and what to do; and one when it is over."""
    with opened(site) as store:
        for number, unusable in enumerate((30, 60, 0)):
            bad(site, f"day-{number}.csv", 60 * number, 60, unusable)
            scored(site, store)
        alerts = [alert for alert in told(store) if "service" in alert.facts]
        deliver(context(site, store))

    assert [alert.kind for alert in alerts] == ["service", "recovered"]
    assert alerts[0].incident == alerts[1].incident
    lines = [json.loads(line) for line in (site.folder / "alerts.jsonl").read_text().splitlines()]
    opened_, over = [line for line in lines if "service" in line]
    assert opened_["text"] == (
        "30 of 60 rows (50 %) of batch 1 of soak could not be used, more than the 5 % of `service.most_quarantined`; "
        "mainly amount: … is not a number."
    )
    assert {name: opened_["service"][name] for name in ("cause", "batch", "quarantined", "rows", "share", "files")} == {
        "cause": "unusable rows",
        "batch": 1,
        "quarantined": 30,
        "rows": 60,
        "share": 0.5,
        "files": ["day-0.csv"],
    }
    assert opened_["service"]["reasons"] == ["amount: … is not a number (30 rows)"]
    assert "batch-00000001.csv" in opened_["columns"]["Quarantine"]
    assert "`source: {formats: {amount: …}}`" in opened_["columns"]["What to do"]
    assert opened_["links"] == {}
    assert over["title"] == "Recovered: rows that cannot be used in soak"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("amount: … is not a number", "`source: {formats: {amount: …}}`"),
        ("at: too late, the latest row is of … … already", "`features: {lateness: SECONDS}`. These, sent again, are"),
        ("at: … … is more than … min before … …, the newest reading of its series", "was set back. Readings that"),
        ("id: key … appears again (scored before)", "were sent before; then nothing is lost"),
        (
            "amount: … is not a number",
            "Then `detector backfill --file 'day 1.csv' …` scores the rows that have no scores.",
        ),
        ("at: lies in the future by more than 5m", "Then `detector backfill --file 'day 1.csv' …` scores"),
    ],
)
def test_what_to_do_fits_the_reason(reason: str, words: str, site: Site) -> None:
    """Rows that come too late are in no other form, and coming in again they are later still."""
    files = {"files": [{"name": "day 1.csv"}, {"name": "day 2.csv"}]}
    batch = Batch(id=1, rows=10, quarantined=9, repeated=0, window=files)

    trouble = trouble_of_rows(batch, Counter({reason: 9}), site.folder, load_config(site.folder))

    assert words in trouble.todo
    assert "If so many are usual" not in trouble.todo


@pytest.mark.parametrize("part", WAYS_OUT)
def test_reasons_with_a_way_out_of_their_own_are_given(part: str) -> None:
    """The words are those of the reasons, wherever these are made."""
    made = "".join(
        file.read_text(encoding="utf-8")
        for package in (detector, pipelines)
        for file in Path(package.__path__[0]).rglob("*.py")
        if file.name != "unusable.py"
    )

    assert part in made


def test_share_is_the_configured_one(tiny_bundle: Path, tmp_path: Path) -> None:
    """Up to it, nothing is told."""
    site = site_with(tiny_bundle, tmp_path, service={"most_quarantined": 0.5})
    with opened(site) as store:
        bad(site, "a.csv", 0, 60, 30)
        scored(site, store)
        assert told(store, "service") == []

        bad(site, "b.csv", 60, 60, 31)
        scored(site, store)
        assert len(told(store, "service")) == 1


def test_comes_and_goes_is_not_told_each_time(site: Site) -> None:
    """Small batches, every other one with a bad row: told at most once in `alerts.window_minutes`, and once over."""
    start = datetime.now(UTC)
    with opened(site) as store:
        for number in range(10):
            bad(site, f"{number}.csv", 10 * number, 10, 1 - number % 2)
            scored(site, store, now=start + timedelta(minutes=number))
        assert [alert.kind for alert in told(store) if "service" in alert.facts] == ["service", "recovered"]

        bad(site, "late.csv", 200, 10, 1)
        scored(site, store, now=start + timedelta(minutes=75))
        assert [alert.kind for alert in told(store) if "service" in alert.facts] == ["service", "recovered", "service"]


def test_what_lasts_is_told_again(site: Site) -> None:
    """After `alerts.again_minutes`, as an event is: in Alertmanager an alert ends unless it is repeated."""
    start = datetime.now(UTC)
    with opened(site) as store:
        for number, hours in enumerate((0, 10, 23, 24.5, 30)):
            bad(site, f"{number}.csv", 10 * number, 10, 10)
            scored(site, store, now=start + timedelta(hours=hours))
        first, again = told(store, "service")

    assert (first.incident, again.created_at) == (again.incident, start + timedelta(hours=24.5))
    assert again.first_at == start


def test_takes_no_room_and_minds_no_silence(tiny_bundle: Path, tmp_path: Path) -> None:
    """It is none of the day's events; a silence of everything is about events."""
    site = site_with(tiny_bundle, tmp_path, a_day=1)
    with opened(site) as store:
        with store.write() as session:
            given = context(site, store)
            until = given.now + timedelta(hours=1)
            silence(session, source="soak", until=until, reason="tests", who="me", now=given.now)
        bad(site, "a.csv", 0, 60, 60)
        scored(site, store)
        with store.read() as session:
            assert session.scalars(sa.select(AlertDay.told)).all() in ([], [0])

        assert len(told(store, "service")) == 1


def test_nothing_to_answer(tiny_bundle: Path, tmp_path: Path) -> None:
    """No link, no page, no row to review; lists and texts show it all the same."""
    answers = {"url": "https://detector.example.com", "secret": "${ANSWER_SECRET}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANSWER_SECRET", "a secret to sign with")
        review = {"review_url": "https://bank.example.com/{entity}"}
        site = site_with(tiny_bundle, tmp_path, answers=answers, **review)
        with opened(site) as store:
            bad(site, "a.csv", 0, 60, 60)
            scored(site, store)
            (alert,) = told(store, "service")
            config = context(site, store).config
            message = message_of(alert, section=config.alerts, target="slack")
            assert (message.answer_url, message.review_url, message.run_url, message.rarity) == ("", "", "", "")
            with store.write() as session:
                with pytest.raises(DataError, match=r"is about no event \(service\)"):
                    answer(session, alert, "fine", reason="", who="me", via="cli", config=config, now=NOW)
                assert len(alerts_table(session, config=config, state=None, most=5).rows) == 1
                text = alert_text(session, alert, config=config)

    assert "What to do: " in text
    assert "- amount: … is not a number (60 rows)" in text


def test_switched_off_with_the_alerts(tiny_bundle: Path, tmp_path: Path) -> None:
    """Without alerts there are none of the service either."""
    site = site_with(tiny_bundle, tmp_path, enabled=False)
    with opened(site) as store:
        bad(site, "a.csv", 0, 60, 60)
        scored(site, store)

        assert told(store) == []


def test_each_file_that_is_set_aside_is_told_and_over_once_none_is_left(site: Site) -> None:
    """A second one soon after the first is told with the next report; other files being scored mends neither."""
    start = datetime.now(UTC)
    with opened(site) as store:
        for minutes, name in enumerate(("a.csv", "b.csv")):
            (site.input / name).write_text("id,at\n1,2026-01-01\n", encoding="utf-8")
            back_date(site.input / name, 10.0)
            scored(site, store, now=start + timedelta(minutes=minutes))
        put(site, "c.csv", 0, 50)
        scored(site, store, now=start + timedelta(minutes=2))
        assert [alert.kind for alert in told(store) if "service" in alert.facts] == ["service"]

        for minutes in (30, 70, 140):
            scored(site, store, now=start + timedelta(minutes=minutes))
        put(site, "a.csv", 50, 50)
        (site.input / "b.csv").unlink()
        scored(site, store, now=start + timedelta(minutes=150))
        first, second, over = [alert for alert in told(store) if "service" in alert.facts]

    assert (first.kind, first.label, second.kind, over.kind) == (
        "service",
        "files that cannot be used",
        "service",
        "recovered",
    )
    assert first.facts["service"]["text"].startswith("soak cannot use 1 file of its input: a.csv: ")
    assert "amount" in first.facts["service"]["text"]
    assert second.facts["service"]["text"].startswith("soak cannot use 2 files of its input: b.csv: ")
    assert [line[:5] for line in second.facts["service"]["lines"]] == ["b.csv", "a.csv"]


# Jobs -----------------------------------------------------------------------------------------------------------------


class Job:
    """A job whose runs end as said."""

    def __init__(self, site: Site, store: Store, monkeypatch: pytest.MonkeyPatch, name: str = "score") -> None:
        self.given = context(site, store)
        self.name = name
        self.error: Exception | None = None
        monkeypatch.setitem(catalogue.JOBS, name, self._run)

    def _run(self, _: Context) -> JobOutcome:
        if self.error is not None:
            raise self.error
        return JobOutcome()

    def run(self, error: Exception | None = None, *, now: datetime = NOW, **given: Any) -> None:
        """One run that fails so, or ends well."""
        from dataclasses import replace

        self.error = error
        run_job(replace(self.given, now=now, **given), self.name, trigger="schedule", instance="here")


AWAY = SourceError("warehouse cannot be reached: refused. Check that it runs.")


def test_job_that_keeps_failing_is_told_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `service.most_failures` in a row, with the error; one that works meanwhile starts the count anew."""
    with opened(site) as store:
        job = Job(site, store, monkeypatch)
        for error in (AWAY, AWAY, None, AWAY, AWAY):
            job.run(error)
        assert told(store) == []

        for _ in range(4):
            job.run(AWAY)
        (alert,) = told(store)
        job.run(None)
        job.run(None)

        assert [each.kind for each in told(store)] == ["service", "recovered"]
    assert (alert.label, alert.severity) == ("the job score", "critical")
    assert alert.facts["service"]["text"] == (
        "The job score of soak has failed 3 times in a row, since 2026-03-02 12:00 UTC, and nothing is scored "
        "meanwhile: warehouse cannot be reached: refused. Check that it runs."
    )


def test_job_that_is_rare_is_told_after_a_day(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three failures of a weekly training would be three weeks."""
    with opened(site) as store:
        job = Job(site, store, monkeypatch, "retrain")
        job.run(AWAY)
        job.run(AWAY, now=NOW + timedelta(hours=1))
        assert told(store) == []

        job.run(AWAY, now=NOW + timedelta(days=7))
        (alert,) = told(store)

    assert (alert.label, alert.severity) == ("the job retrain", "high")


def test_detector_that_cannot_be_loaded_is_told(site: Site) -> None:
    """It fails every score: as any other reason does."""
    with opened(site) as store:
        given = context(site, store)
        manifest = next(given.config.bundle.resolve().glob("*.json"))
        kept = manifest.read_bytes()
        try:
            manifest.write_bytes(b"{")
            for _ in range(3):
                run_job(context(site, store), "score", trigger="schedule", instance="here")
        finally:
            manifest.write_bytes(kept)

        (alert,) = told(store)

    assert "has failed 3 times in a row" in alert.facts["service"]["text"]


def test_instance_that_was_overtaken_tells_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its failures are no trouble: another one leads, and what this one would write is not kept."""

    def fence(_: object) -> None:
        raise StoreError("Another instance has taken over.")

    with opened(site) as store:
        job = Job(site, store, monkeypatch)
        for _ in range(5):
            job.run(AWAY, fence=fence)

        assert told(store) == []


def test_error_shows_no_secret_and_no_masked_value(tiny_bundle: Path, tmp_path: Path) -> None:
    """Where columns are masked, values in an error are left out; secrets always are."""
    site = site_with(tiny_bundle, tmp_path, mask={"id": "hide"})
    with opened(site) as store, pytest.MonkeyPatch.context() as patch:
        job = Job(site, store, patch)
        for _ in range(3):
            job.run(DataError("The card '4111111111111111' is odd."))
        (alert,) = told(store)

    assert "4111" not in json.dumps(alert.facts)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("day-20260801.csv: Column 'amount' is missing from the table.", None),
        ("/in/a.csv line 3: 5 fields where the header has 6", None),
        ("[Errno 13] Permission denied: '/in/card 4'", None),
        ("card: 'C00014' is no card", "card: … is no card"),
        ("id: key C00014 appears again (first at row 3)", "id: key … appears again (first at row 3)"),
        ("the card 4111111111111111 is odd", "the card … is odd"),
    ],
)
def test_error_without_values_still_says_where(error: str, shown: str | None, site: Site) -> None:
    """Where columns are masked, names of files and columns, line numbers and paths stay: they are what helps."""
    assert without_values(error, load_config(site.folder)) == (error if shown is None else shown)


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        (["at: too late, the latest row is of 2026-06-01 10:00:00 already and only 1h is allowed by `x`"] * 2, None),
        (["id: key a-1 appears again (first at row 7)", "id: key Ann Lee appears again (first at row 9)"], None),
        (["3d_secure: 'x' is not a number", "3d_secure: '3d_secure ' is not a number"], "3d_secure: … is not a number"),
        (["at: lies in the future by more than 5m"] * 2, "at: lies in the future by more than 5m"),
        (["a.csv line 3: 1 field where the header has 6", "a.csv line 4: 1 field where the header has 6"], None),
    ],
)
def test_reasons_of_one_kind_are_counted_together(reasons: list[str], kind: str | None, tmp_path: Path) -> None:
    """Whatever their values; names of columns and times that were set are no values."""
    rows = pd.DataFrame({"row": [0, 1], "reason": reasons, "3d_secure": ["x", "y"]})
    with QuarantineSink(tmp_path / "bad.csv", columns=["3d_secure"]) as sink:
        sink.write(rows)

    ((found, count),) = sink.reasons.items()
    assert count == 2
    assert kind in (None, found)
    assert not re.search("Ann|2026|a-1", found)


def test_clock_set_back_keeps_no_trouble_quiet(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time of the last report that lies ahead is not waited for."""
    with opened(site) as store:
        job = Job(site, store, monkeypatch)
        for _ in range(3):
            job.run(AWAY)
        job.run(None)
        for _ in range(3):
            job.run(AWAY, now=NOW - timedelta(days=30))

        assert len(told(store, "service")) == 2
