"""What honest card holders pay: when, where, for what and how much."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Self

import numpy as np

from pipelines.simulate.population import (
    CATEGORIES,
    CATEGORY,
    DEVICES_A_CARD,
    Bools,
    Floats,
    Ints,
    Population,
    choose,
)

DAY = 86_400
CHIP, CONTACTLESS, ONLINE = 0, 1, 2
CHANNELS = ("chip", "contactless", "online")
ABSENT = -1


@dataclass(frozen=True)
class Payments:
    """Payments as arrays of numbers, one entry a payment.

    ``time`` and ``reported`` count seconds from the start, ``place`` is the city in which the payer is,
    ``device`` and ``reported`` are -1 where there is none, ``scenario`` is 0 for an honest payment.
    """

    time: Ints
    card: Ints
    terminal: Ints
    category: Ints
    channel: Ints
    place: Ints
    device: Ints
    amount: Floats
    scenario: Ints
    reported: Ints

    def __len__(self) -> int:
        return len(self.time)

    def take(self, positions: Ints) -> Self:
        """Pick the payments at the given positions, in that order."""
        return type(self)(**{field.name: getattr(self, field.name)[positions] for field in fields(self)})

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """All payments of several parts, one part after the other."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True)
class Calendar:
    """The days simulated, and how busy each is."""

    start: datetime
    days: int

    @property
    def seconds(self) -> int:
        """The length of the whole period."""
        return self.days * DAY

    def dates(self) -> list[datetime]:
        """Every day simulated."""
        return [self.start + timedelta(days=day) for day in range(self.days)]

    def busyness(self) -> Floats:
        """Relative number of payments on each day: busy Fridays, pay days and weeks before Christmas."""
        week = (0.90, 0.92, 0.96, 1.02, 1.22, 1.18, 0.80)
        dates = self.dates()
        paid = [1.18 if date.day >= 28 or date.day <= 3 else 1.0 for date in dates]
        return np.array([week[date.weekday()] for date in dates]) * paid * (1 + 0.45 * self.christmas())

    def christmas(self) -> Floats:
        """1 from 5 to 23 December, rising before and nothing after."""
        return np.array(
            [min(1.0, date.day / 5) if date.month == 12 and date.day <= 23 else 0.0 for date in self.dates()]
        )

    def weekend(self) -> Bools:
        """Whether a day is a Saturday or a Sunday."""
        return np.array([date.weekday() >= 5 for date in self.dates()])


def honest_payments(rng: np.random.Generator, people: Population, calendar: Calendar, *, rows: int) -> Payments:
    """Draw exactly ``rows`` honest payments, in no particular order."""
    cards = people.cards
    card = choose(rng, cards.activity * (1 - cards.since), rows)
    day = _draw_days(rng, calendar, cards.since[card])
    category = _draw_categories(rng, people, card, changed=rng.random(rows) < day / calendar.days)
    time = day * DAY + _draw_seconds(rng, category, calendar.weekend()[day], cards.shift[card])
    time, category, leader = _shop_in_rounds(rng, people, card, np.clip(time, 0, calendar.seconds - 1), category)
    time = np.minimum(time, calendar.seconds - 1)

    share = np.array([kind.online for kind in CATEGORIES])[category]
    online = (rng.random(rows) < share * cards.online[card]) | (share == 1)
    today = time / DAY
    away = (today >= cards.trip_from[card]) & (today < cards.trip_until[card])
    near = np.where(rng.random(rows)[leader] < 0.25, cards.work[card], cards.home[card])
    place = np.where(away, cards.trip[card], near)
    group = people.group(place, category, online)
    terminal = people.terminals.pick(group, cards.favourite[card], rng.random(rows))
    amount = _draw_amounts(rng, people, calendar, card=card, category=category, time=time, terminal=terminal)
    channel = draw_channels(rng, online=online, category=category, amount=amount)
    return Payments(
        time=time,
        card=card,
        terminal=terminal,
        category=category,
        channel=channel,
        place=place,
        device=_own_devices(rng, people, card=card, channel=channel, today=today),
        amount=amount,
        scenario=np.zeros(rows, np.int64),
        reported=np.full(rows, ABSENT, np.int64),
    )


def draw_channels(rng: np.random.Generator, *, online: Bools, category: Ints, amount: Floats) -> Ints:
    """Small amounts are tapped, larger ones and cash need the chip."""
    tapped = rng.random(len(amount)) < np.where(amount <= 50, 0.78, 0.15)
    physical = np.where(tapped & (category != CATEGORY["cash"]), CONTACTLESS, CHIP)
    return np.where(online, ONLINE, physical).astype(np.int64)


def as_prices(rng: np.random.Generator, amount: Floats, category: Ints) -> Floats:
    """Round amounts as shops do: tens at a cash machine, .99 and .90 endings, some even sums, cents else."""
    cash = category == CATEGORY["cash"]
    style = rng.random(len(amount))
    ending = np.where(style < 0.2, 0.99, np.where(style < 0.3, 0.90, 0.95))
    shelf = np.isin(category, [CATEGORY[name] for name in ("clothing", "electronics", "digital")])
    priced = np.where(shelf & (style < 0.6), np.floor(amount) + ending, np.round(amount, 2))
    priced = np.where(~shelf & (style < 0.12), np.maximum(np.round(amount), 1.0), priced)
    priced = np.where(category == CATEGORY["subscription"], np.floor(amount) + 0.99, priced)
    return np.where(cash, np.maximum(np.round(amount / 10) * 10, 10.0), np.maximum(np.round(priced, 2), 0.5))


def _draw_days(rng: np.random.Generator, calendar: Calendar, since: Floats) -> Ints:
    edges = np.concatenate([[0.0], np.cumsum(calendar.busyness())])
    edges /= edges[-1]
    drawn = since + (1 - since) * rng.random(len(since))
    return np.clip(np.searchsorted(edges, drawn, side="right") - 1, 0, calendar.days - 1).astype(np.int64)


def _draw_categories(rng: np.random.Generator, people: Population, card: Ints, *, changed: Bools) -> Ints:
    row = 2 * card + changed
    # One sorted array of all cumulative tastes, a whole number apart, answers every card in one search.
    edges = (people.cards.taste + np.arange(2 * people.n_cards)[:, None]).ravel()
    found = np.searchsorted(edges, row + rng.random(len(card)), side="right") - row * len(CATEGORIES)
    category: Ints = np.clip(found, 0, len(CATEGORIES) - 1).astype(np.int64)
    return category


def _draw_seconds(rng: np.random.Generator, category: Ints, weekend: Bools, shift: Floats) -> Ints:
    peak = np.array([kind.peak_hour for kind in CATEGORIES])[category]
    spread = np.array([kind.hour_spread for kind in CATEGORIES])[category]
    lunch = (category == CATEGORY["restaurant"]) & (rng.random(len(category)) < 0.45)
    hour = np.where(lunch, 12.7, peak) + np.where(lunch, 0.9, spread) * rng.standard_normal(len(category))
    hour += shift + np.where(weekend, 0.8, 0.0)
    # Few people are up at night: most of what falls between one and six happens in the day instead.
    asleep = (hour % 24 >= 1) & (hour % 24 < 6) & (np.abs(shift) < 8) & (rng.random(len(category)) < 0.85)
    hour = np.where(asleep, rng.uniform(9, 21, len(category)), hour)
    return np.floor((hour % 24) * 3600).astype(np.int64)


def _shop_in_rounds(
    rng: np.random.Generator, people: Population, card: Ints, time: Ints, category: Ints
) -> tuple[Ints, Ints, Ints]:
    """Let an eighth of the payments follow the one before within minutes; games are bought in bursts."""
    order = np.lexsort((time, card))
    card_in_order = card[order]
    first = np.concatenate([[True], card_in_order[1:] != card_in_order[:-1]])
    gaming = people.cards.gamer[card_in_order] & (category[order] == CATEGORY["digital"])
    follows = ~first & (rng.random(len(card)) < np.where(gaming, 0.75, 0.125))
    head = np.maximum.accumulate(np.where(follows, 0, np.arange(len(card))))
    steps = np.arange(len(card)) - head
    pause = np.where(gaming, 90.0, 1100.0) * rng.standard_exponential(len(card)) + 20
    moved = time[order][head] + np.floor(pause * steps).astype(np.int64)
    leader = np.empty_like(order)
    leader[order] = order[head]
    later = np.empty_like(time)
    later[order] = np.where(follows, moved, time[order])
    return later, category, leader


def _draw_amounts(
    rng: np.random.Generator,
    people: Population,
    calendar: Calendar,
    *,
    card: Ints,
    category: Ints,
    time: Ints,
    terminal: Ints,
) -> Floats:
    median = np.log([kind.median for kind in CATEGORIES])
    spread = np.array([kind.spread for kind in CATEGORIES])[category]
    gift = np.array([kind.gift for kind in CATEGORIES])[category] * calendar.christmas()[time // DAY]
    price_level = rng.normal(0, 0.2, len(people.terminals.category))[terminal]
    habit = people.cards.income[card] + people.cards.drift[card] * (time / calendar.seconds - 0.5)
    amount = np.exp(median[category] + habit + price_level + gift + spread * rng.standard_normal(len(card)))
    # Now and then something is bought that the holder buys once in years.
    rare = rng.random(len(card)) < 0.004
    amount = np.where(rare, amount * np.minimum(1.5 + rng.pareto(1.3, len(card)) * 2, 40), amount)
    subscribed = category == CATEGORY["subscription"]
    fixed = np.exp(median[category] + 0.5 * np.sin(terminal * 12.9898))
    return as_prices(rng, np.minimum(np.where(subscribed, fixed, amount), 15_000.0), category)


def _own_devices(rng: np.random.Generator, people: Population, *, card: Ints, channel: Ints, today: Floats) -> Ints:
    phone = card * DEVICES_A_CARD + (today >= people.cards.new_phone[card])
    laptop = card * DEVICES_A_CARD + 2
    online = np.where(rng.random(len(card)) < 0.3, laptop, phone)
    tapped = people.cards.wallet[card] & (rng.random(len(card)) < 0.8)
    physical = np.where((channel == CONTACTLESS) & tapped, phone, ABSENT)
    return np.where(channel == ONLINE, online, physical).astype(np.int64)
