"""Times of jobs, also on the days on which clocks are turned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.cron import Cron, Interval, parse

SPRING, AUTUMN = datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 10, 24, tzinfo=UTC)


def times(text: str, start: datetime, *, days: int) -> list[str]:
    """The times from a moment on, as the clock on the wall shows them."""
    when, found, end = parse(text), [], start + timedelta(days=days)
    moment = start
    while (moment := when.after(moment)) < end:
        found.append(moment.strftime("%d %H:%M%z"))
    return found


def test_night_job_runs_once_in_spring() -> None:
    """02:30 does not exist on 29 March in Berlin: the run comes when the clock has been turned, and once."""
    assert times("30 2 * * * Europe/Berlin", SPRING, days=3) == ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]


def test_night_job_runs_once_in_autumn() -> None:
    """02:30 comes twice on 25 October in Berlin: the run comes the first time."""
    assert times("30 2 * * * Europe/Berlin", AUTUMN, days=3) == ["24 02:30+0200", "25 02:30+0200", "26 02:30+0100"]


@pytest.mark.parametrize("minute", range(0, 180, 7))
@pytest.mark.parametrize("text", ["30 2 * * *", "0 3 * * *", "15,45 1-3 * * *", "*/10 2 * * *", "0 */2 * * *"])
def test_next_time_is_never_over(text: str, minute: int) -> None:
    """Asked within the hours around which clocks are turned, the answer lies ahead, or a job would run for ever."""
    when = parse(f"{text} Europe/Berlin")
    for night in (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)):
        moment = night + timedelta(minutes=minute, microseconds=1)

        assert when.after(moment).astimezone(UTC) > moment


@pytest.mark.parametrize("start", [SPRING, AUTUMN])
def test_hourly_job_runs_every_hour(start: datetime) -> None:
    """With * for the hour, runs are an hour apart, whatever the clock does."""
    when, moment = parse("0 * * * * Europe/Berlin"), start
    for _ in range(72):
        following = when.after(moment)
        assert following.astimezone(UTC) - moment.astimezone(UTC) == timedelta(hours=1)
        moment = following


def test_interval_does_not_heed_the_clock() -> None:
    """Every so often is every so often."""
    assert parse("every 90m").after(AUTUMN) - AUTUMN == timedelta(minutes=90)
    assert parse("every 1d") == parse("every 24 hours") == Interval(86_400)
    assert parse("every 5 minutes") == parse("every 5m") == Interval(300)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 3 * * 0", ["29 03:00+0000"]),
        ("0 3 * * 7", ["29 03:00+0000"]),
        ("0 3 * * sun", ["29 03:00+0000"]),
        ("0 3 * * sat-SUN", ["28 03:00+0000", "29 03:00+0000"]),
        ("0 3 * * 6-0", ["28 03:00+0000", "29 03:00+0000"]),
        ("0 3 * * 1-5", ["30 03:00+0000", "31 03:00+0000"]),
        ("0 3 29 * tue", ["29 03:00+0000", "31 03:00+0000"]),
        ("0 3,15 30 mar *", ["30 03:00+0000", "30 15:00+0000"]),
        ("0 6/12 31 * *", ["31 06:00+0000", "31 18:00+0000"]),
        ("*/30 4 28 3 *", ["28 04:00+0000", "28 04:30+0000"]),
    ],
)
def test_fields_mean_what_they_mean_in_crontab(text: str, expected: list[str]) -> None:
    """Sunday is 0, 7 and sun; a day and a weekday are alternatives."""
    assert times(text, SPRING, days=4) == expected


def test_a_rare_date_is_found() -> None:
    """The next 29th of February can be years away."""
    assert parse("0 0 29 2 *").after(SPRING).date().isoformat() == "2028-02-29"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("hourly", "expected `every 5m` or the five fields"),
        ("every 0s", "at least a second"),
        ("60 * * * *", "minutes from 0 to 59"),
        ("0 24 * * *", "hours from 0 to 23"),
        ("0 0 32 * *", "days from 1 to 31"),
        ("0 0 * 13 *", "months from 1 to 12"),
        ("0 0 0 * *", "received '0' as the day-of-month"),
        ("0 0 31 2 *", "a date that exists"),
        ("0 0 * * mo", "weekdays from 0 to 7"),
        ("*/x * * * *", "minutes from 0 to 59"),
        ("0 5-3 * * *", "hours from 0 to 23"),
        ("0 0 * * * Berlin", "a time zone such as"),
    ],
)
def test_what_has_no_meaning_is_refused(text: str, match: str) -> None:
    """The message names the part."""
    with pytest.raises(ValueError, match=match):
        parse(text)


def test_zone_is_the_services_where_none_is_named() -> None:
    """A zone behind the fields comes first."""
    found = parse("0 3 * * *", zone="Asia/Tokyo")

    assert isinstance(found, Cron)
    assert str(found.zone) == "Asia/Tokyo"


@pytest.mark.parametrize("text", ["every 7m", "30 2 * * *", "*/10 1-3 * * *", "0 0 29 2 *", "* * 1 * *"])
def test_last_time_is_the_one_before_the_next(text: str) -> None:
    """What was missed since a time is told without going through all of it, also about the nights of the changes."""
    when = parse(text if "every" in text else f"{text} Europe/Berlin")
    for night in (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)):
        for now in (night + timedelta(minutes=minute) for minute in range(0, 200, 19)):
            last = when.last(when.after(night - timedelta(days=3_000)), now)

            assert last.astimezone(UTC) <= now < when.after(last.astimezone(UTC)).astimezone(UTC)
