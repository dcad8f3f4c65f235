"""Card payments with known frauds: an own design, so that the truth of every row is known."""

from __future__ import annotations

import math
from datetime import datetime, time, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.simulate.arguments import START, holdable, local_time, share, whole
from pipelines.simulate.campaigns import LATEST_REPORT_DAYS
from pipelines.simulate.patterns import PATTERNS, fraudulent_payments
from pipelines.simulate.payments import ABSENT, CHANNELS, CHIP, ONLINE, Calendar, Payments, honest_payments
from pipelines.simulate.population import CATEGORIES, COUNTRIES, Floats, Ints, Population, draw_population

TEXT = pd.StringDtype("pyarrow", na_value=np.nan)
SCENARIOS = tuple(pattern.name for pattern in PATTERNS)


def simulate(
    rows: int, *, seed: int, start: datetime = START, days: int | None = None, fraud_rate: float = 0.008
) -> pd.DataFrame:
    """Simulate card payments, a few of them fraudulent, with the truth beside each.

    Card holders have a home, an income, tastes, devices and habits; shops have a place, a category and a
    price level. Payments follow the hour, the week, pay days and Christmas. Honest people are odd too: they
    travel, change their habits and their phone, work at night, buy games in bursts and, rarely, something
    dear.

    Parameters
    ----------
    rows : int
        How many payments, at least 1. There are about 0.9 a card and day.
    seed : int
        The same ``rows``, ``seed`` and other arguments give the same table, on any number of threads.
    start : datetime
        Midnight of the first day, without a time zone.
    days : int or None
        How many days; ``None`` takes one for each 250 rows, at least 14 and at most 120.
    fraud_rate : float
        The share of fraudulent payments, from 0 to 0.5.

    Returns
    -------
    DataFrame
        Sorted by ``time``, ``transaction_id``:

        - ``transaction_id``, ``time`` (whole seconds), ``card_id``, ``terminal_id``;
        - ``merchant_category``, ``channel`` (chip, contactless, online), ``country`` of payer or shop;
        - ``device``: missing at the chip reader and where a plastic card was tapped;
        - ``amount`` in euros, ``currency`` in which the shop charged;
        - ``latitude``, ``longitude``: of the shop, online of the payer's address, sometimes missing;
        - ``is_fraud`` (0 or 1), ``scenario`` ("" or one of ``SCENARIOS``), ``reported_at``: when the fraud
          became known, missing for honest payments and for the few frauds that nobody notices.

        The last three are truth, not features: at any time only what ``reported_at`` has passed is known.

    Raises
    ------
    SettingError
        If an argument has no meaning.

    >>> table = simulate(1000, seed=7)
    >>> len(table), int(table["is_fraud"].sum())
    (1000, 8)
    """
    calendar = _checked(rows, seed=seed, start=start, days=days, fraud_rate=fraud_rate)
    world, honest, fraud, surface = (
        np.random.Generator(np.random.PCG64(child)) for child in np.random.SeedSequence(int(seed)).spawn(4)
    )
    frauds = round(rows * fraud_rate)
    people = draw_population(world, rows=rows, days=calendar.days)
    fair = honest_payments(honest, people, calendar, rows=rows - frauds)
    payments = Payments.join([fair, *fraudulent_payments(fraud, people, calendar, fair, rows=frauds)])
    payments = payments.take(np.lexsort((surface.random(rows), payments.time)))
    return _as_table(surface, payments, people, calendar)


def _checked(rows: int, *, seed: int, start: datetime, days: int | None, fraud_rate: float) -> Calendar:
    whole("rows", rows, least=1)
    whole("seed", seed, least=0)
    local_time("start", start)
    share("fraud_rate", fraud_rate, least=0, most=0.5)
    if days is None:
        days = min(120, max(14, rows // 250))
    whole("days", days, least=1, most=36_500)
    midnight = datetime.combine(start.date(), time())
    holdable(midnight, timedelta(days=days + LATEST_REPORT_DAYS))
    return Calendar(start=midnight, days=int(days))


def _as_table(rng: np.random.Generator, payments: Payments, people: Population, calendar: Calendar) -> pd.DataFrame:
    """Give numbers their names, place every payment on the map and lose a few values, as real tables do."""
    rows = len(payments)
    country = people.places.country[payments.place]
    latitude, longitude = _positions(rng, payments, people)
    lost = {name: rng.random(rows) < 0.003 for name in ("merchant_category", "country", "device")}
    unplaced = rng.random(rows) < np.where(payments.channel == ONLINE, 0.08, 0.01)
    device = np.where((payments.channel == CHIP) | lost["device"], ABSENT, payments.device)
    begin = np.datetime64(calendar.start, "us")
    fraud = payments.scenario > 0
    table = pd.DataFrame(
        {
            "transaction_id": _numbered("T", np.arange(rows), width=max(9, len(str(rows)))),
            "card_id": _named(rng, "C", payments.card, kinds=people.n_cards),
            "terminal_id": _named(rng, "P", payments.terminal, kinds=len(people.terminals.place)),
            "merchant_category": _worded(
                [kind.name for kind in CATEGORIES],
                np.where(lost["merchant_category"], ABSENT, payments.category),
            ),
            "channel": _worded(list(CHANNELS), payments.channel),
            "country": _worded([row[0] for row in COUNTRIES], np.where(lost["country"], ABSENT, country)),
            "device": _devices(rng, device),
            "amount": payments.amount,
            "currency": _worded([row[1] for row in COUNTRIES], country),
            "latitude": np.where(unplaced, np.nan, latitude),
            "longitude": np.where(unplaced, np.nan, longitude),
            "is_fraud": fraud.astype(np.int64),
            "scenario": _worded(["", *SCENARIOS], payments.scenario),
        }
    )
    table.insert(1, "time", begin + payments.time.astype("timedelta64[s]"))
    reported = np.where(payments.reported == ABSENT, 0, payments.reported).astype("timedelta64[s]")
    table["reported_at"] = np.where(payments.reported == ABSENT, np.datetime64("NaT"), begin + reported)
    return table


def _positions(rng: np.random.Generator, payments: Payments, people: Population) -> tuple[Floats, Floats]:
    """Shops stand where they stand; an internet address is right to some twenty kilometres."""
    online, off = payments.channel == ONLINE, rng.normal(0, 0.15, (2, len(payments)))
    places, terminals = people.places, people.terminals
    latitude = np.where(online, places.latitude[payments.place] + off[0], terminals.latitude[payments.terminal])
    longitude = np.where(online, places.longitude[payments.place] + off[1], terminals.longitude[payments.terminal])
    return latitude.round(4), longitude.round(4)


def _numbered(letter: str, number: Ints, *, width: int) -> Any:
    digits = pc.utf8_lpad(pa.array(number).cast(pa.string()), width, "0")
    return TEXT.__from_arrow__(pc.binary_join_element_wise(letter, digits, ""))


def _named(rng: np.random.Generator, letter: str, code: Ints, *, kinds: int) -> Any:
    """Shuffled numbers, so that a name says nothing about home, trade or fraud."""
    width = max(5, int(math.log10(max(kinds, 1))) + 1)
    return _numbered(letter, rng.permutation(kinds), width=width).take(code)


def _devices(rng: np.random.Generator, device: Ints) -> Any:
    kinds, code = np.unique(device, return_inverse=True)
    width = max(6, len(str(len(kinds))))
    names = _numbered("D", rng.permutation(len(kinds)), width=width)
    return names.take(np.where(device == ABSENT, ABSENT, code), allow_fill=True)


def _worded(words: list[str], code: Ints) -> Any:
    """Words by number, missing where the number is -1."""
    return pd.array(words, dtype=TEXT).take(code, allow_fill=True)
