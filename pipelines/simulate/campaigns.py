"""What all frauds share: victims, campaigns, the payments they make and when these are noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.simulate.payments import ABSENT, DAY, Calendar, Payments, as_prices, draw_channels
from pipelines.simulate.population import CATEGORY, DEVICES_A_CARD, Bools, Floats, Ints, Population

SHARE_NEVER_REPORTED = 0.04
LATEST_REPORT_DAYS = 90


@dataclass(frozen=True)
class Scene:
    """What a pattern may look at: the world, the calendar and the honest payments."""

    people: Population
    calendar: Calendar
    honest: Payments
    mean_amount: Floats
    payments: Ints

    @classmethod
    def of(cls, people: Population, calendar: Calendar, honest: Payments) -> Scene:
        """Set the scene of some honest payments, with every card's own mean amount."""
        payments = np.bincount(honest.card, minlength=people.n_cards)
        total = np.bincount(honest.card, weights=honest.amount, minlength=people.n_cards)
        return cls(people, calendar, honest, total / np.maximum(payments, 1), payments)

    def victims(self, rng: np.random.Generator, size: int) -> Ints:
        """Cards, those in much use more often; a card with fewer than five payments only if all are so."""
        known = self.honest.card[self.payments[self.honest.card] >= 5]
        pool = known if len(known) else self.honest.card
        return pool[rng.integers(0, len(pool), size)]

    def strangers(self, rng: np.random.Generator, size: int) -> Ints:
        """Draw numbers of devices which no card holder owns."""
        return self.people.n_cards * DEVICES_A_CARD + rng.integers(0, 1 << 40, size)


@dataclass(frozen=True)
class Campaigns:
    """Campaigns of given sizes: for every payment its campaign and its rank within it."""

    sizes: Ints

    @property
    def of_row(self) -> Ints:
        """The campaign of each payment."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @property
    def rank(self) -> Ints:
        """0 for the first payment of a campaign, and so on."""
        return np.arange(self.sizes.sum()) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)

    @property
    def is_last(self) -> Bools:
        """Whether a payment is the last of its campaign."""
        last: Bools = self.rank == np.repeat(self.sizes, self.sizes) - 1
        return last


@dataclass(frozen=True)
class Pattern:
    """A kind of fraud.

    ``share`` is its part of all fraudulent payments, ``smallest`` and ``largest`` bound the payments of a
    campaign, ``delay`` is the median number of days from a campaign's last payment to the report.
    """

    name: str
    share: float
    smallest: int
    largest: int
    delay: float
    draw: Callable[[np.random.Generator, Scene, Campaigns], Payments]


def draw_sizes(rng: np.random.Generator, quota: int, pattern: Pattern) -> Ints:
    """Sizes of campaigns which add up to ``quota``; a rest too small for one joins the last."""
    largest = max(pattern.smallest, min(pattern.largest, quota // 2))
    drawn = rng.integers(pattern.smallest, largest + 1, quota // pattern.smallest + 1)
    ends = np.minimum(np.cumsum(drawn), quota)
    sizes = np.diff(ends, prepend=0)
    sizes = sizes[sizes > 0]
    if len(sizes) > 1 and sizes[-1] < pattern.smallest:
        sizes = np.append(sizes[:-2], sizes[-2] + sizes[-1])
    return sizes.astype(np.int64)


def labelled(
    rng: np.random.Generator,
    drawn: Payments,
    campaigns: Campaigns,
    *,
    number: int,
    delay: float,
    scene: Scene,
) -> Payments:
    """Name the scenario and say when the holder or the bank noticed: after the campaign, some never."""
    of_row, n = campaigns.of_row, len(campaigns.sizes)
    last = np.zeros(n, np.int64)
    np.maximum.at(last, of_row, drawn.time)
    noticed = last + np.ceil(DAY * np.clip(delay * np.exp(rng.normal(0, 0.8, n)), 0.02, LATEST_REPORT_DAYS - 1)).astype(
        np.int64
    )
    each = noticed[of_row] + rng.integers(0, 2 * 3600, len(drawn))
    never = rng.random(len(drawn)) < SHARE_NEVER_REPORTED
    return Payments(
        **{
            **vars(drawn),
            "time": np.clip(drawn.time, 0, scene.calendar.seconds - 1),
            "scenario": np.full(len(drawn), number, np.int64),
            "reported": np.where(never, ABSENT, each),
        }
    )


def starts(rng: np.random.Generator, scene: Scene, campaigns: Campaigns, *, length: float) -> Ints:
    """When each campaign begins, so that one of ``length`` seconds still fits; fraud does not sleep."""
    latest = max(1.0, scene.calendar.seconds - length)
    return np.floor(rng.random(len(campaigns.sizes)) * latest).astype(np.int64)


def awake(rng: np.random.Generator, time: Ints, *, share: float) -> Ints:
    """Move a share of the times to the hours when shops are open."""
    return np.where(
        rng.random(len(time)) < share, time // DAY * DAY + rng.integers(9 * 3600, 21 * 3600, len(time)), time
    )


def pay(
    rng: np.random.Generator,
    scene: Scene,
    *,
    time: Ints,
    card: Ints,
    category: Ints,
    online: Bools,
    place: Ints,
    amount: Floats,
    device: Ints,
    terminal: Ints | None = None,
) -> Payments:
    """Fill in the terminal, the channel and the price; a chip payment has no device."""
    group = scene.people.group(place, category, online)
    if terminal is None:
        terminal = scene.people.terminals.pick(group, rng.random(len(time)), rng.random(len(time)))
    price = as_prices(rng, np.clip(amount, 0.5, 15_000), category)
    return Payments(
        time=time,
        card=card,
        terminal=terminal,
        category=category,
        channel=draw_channels(rng, online=online, category=category, amount=price),
        place=place,
        device=np.where(online, device, ABSENT),
        amount=price,
        scenario=np.zeros(len(time), np.int64),
        reported=np.full(len(time), ABSENT, np.int64),
    )


def kinds(rng: np.random.Generator, names: tuple[str, ...], size: int) -> Ints:
    """Draw categories among the named ones, all alike."""
    return np.array([CATEGORY[name] for name in names])[rng.integers(0, len(names), size)]
