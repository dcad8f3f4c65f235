"""The world in which payments are simulated: places, terminals and card holders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Category:
    """What a kind of merchant sells: how often, for how much, when and where."""

    name: str
    share: float
    median: float
    spread: float
    online: float
    peak_hour: float
    hour_spread: float
    gift: float = 0.0


CATEGORIES = (
    Category("groceries", 0.27, 31.0, 0.70, 0.04, 16.5, 3.6),
    Category("restaurant", 0.14, 24.0, 0.65, 0.10, 18.0, 3.8),
    Category("transport", 0.08, 9.0, 0.80, 0.35, 12.0, 5.0),
    Category("fuel", 0.07, 52.0, 0.35, 0.00, 14.5, 4.8),
    Category("clothing", 0.08, 46.0, 0.80, 0.45, 17.0, 3.3, 0.25),
    Category("electronics", 0.04, 85.0, 1.10, 0.60, 17.5, 3.8, 0.30),
    Category("home", 0.05, 48.0, 0.95, 0.35, 16.0, 3.5, 0.10),
    Category("health", 0.05, 19.0, 0.70, 0.08, 13.0, 3.4),
    Category("travel", 0.025, 170.0, 0.95, 0.75, 18.5, 4.2),
    Category("leisure", 0.055, 22.0, 0.85, 0.40, 19.0, 4.0, 0.10),
    Category("digital", 0.05, 5.5, 0.75, 1.00, 20.5, 4.0),
    Category("subscription", 0.04, 12.0, 0.55, 1.00, 6.0, 6.0),
    Category("cash", 0.045, 90.0, 0.60, 0.00, 14.0, 4.5),
    Category("jewellery", 0.005, 190.0, 0.90, 0.25, 16.0, 2.8, 0.45),
)
CATEGORY = {category.name: number for number, category in enumerate(CATEGORIES)}

# Code, currency, latitude, longitude, radius in degrees, share of the card holders who live there, appeal to
# tourists. Rough centres are enough: only distances matter.
COUNTRIES = (
    ("DE", "EUR", 50.6, 10.0, 2.0, 0.72, 0.6),
    ("AT", "EUR", 47.7, 14.2, 0.8, 0.12, 1.0),
    ("CH", "CHF", 47.0, 8.1, 0.6, 0.08, 0.6),
    ("FR", "EUR", 47.0, 2.6, 2.2, 0.08, 1.2),
    ("IT", "EUR", 43.0, 12.2, 2.0, 0.0, 1.8),
    ("ES", "EUR", 40.0, -3.6, 2.4, 0.0, 1.8),
    ("GB", "GBP", 52.3, -1.2, 1.6, 0.0, 0.8),
    ("PL", "PLN", 52.0, 19.3, 1.8, 0.0, 0.6),
    ("TR", "TRY", 38.5, 31.0, 2.2, 0.0, 1.0),
    ("GR", "EUR", 38.6, 23.0, 1.4, 0.0, 0.9),
    ("US", "USD", 38.5, -92.0, 9.0, 0.0, 0.5),
    ("TH", "THB", 14.5, 100.8, 2.2, 0.0, 0.4),
    ("BR", "BRL", -18.0, -46.5, 5.0, 0.0, 0.2),
    ("AU", "AUD", -33.5, 146.0, 4.0, 0.0, 0.2),
)
PAYMENTS_A_DAY = 0.9
DEVICES_A_CARD = 3


@dataclass(frozen=True)
class Places:
    """Cities; the attribute arrays have shape (n_cities,)."""

    country: Ints
    latitude: Floats
    longitude: Floats
    size: Floats


@dataclass(frozen=True)
class Terminals:
    """Terminals, sorted by group: all of one category in one city stand together, online shops come last."""

    place: Ints
    category: Ints
    latitude: Floats
    longitude: Floats
    first: Ints
    count: Ints

    def pick(self, group: Ints, offset: Floats, draw: Floats) -> Ints:
        """Pick a terminal of each group, mostly the favourites which ``offset`` names (both in [0, 1))."""
        count = self.count[group]
        steps = np.floor(count * draw**3) + np.floor(count * offset)
        return self.first[group] + steps.astype(np.int64) % np.maximum(count, 1)


@dataclass(frozen=True)
class Cards:
    """Card holders and their habits; one entry a card, ``taste`` has two rows a card (before and after)."""

    home: Ints
    work: Ints
    income: Floats
    activity: Floats
    since: Floats
    taste: Floats
    drift: Floats
    online: Floats
    shift: Floats
    wallet: Bools
    gamer: Bools
    trip: Ints
    trip_from: Floats
    trip_until: Floats
    new_phone: Floats
    favourite: Floats


@dataclass(frozen=True)
class Population:
    """Places, terminals and cards."""

    places: Places
    terminals: Terminals
    cards: Cards

    @property
    def n_cards(self) -> int:
        """How many cards there are."""
        return len(self.cards.home)

    def group(self, place: Ints, category: Ints, online: Bools) -> Ints:
        """Find the terminal group that serves a category in a place, or on the internet."""
        where: Ints = np.where(online, len(self.places.country), place)
        return where * len(CATEGORIES) + category


def choose(rng: np.random.Generator, weights: Floats, size: int) -> Ints:
    """Draw numbers with the given weights; the same as ``rng.choice`` but many times faster."""
    edges = np.cumsum(weights)
    drawn = np.searchsorted(edges, rng.random(size) * edges[-1], side="right")
    number: Ints = np.minimum(drawn, len(edges) - 1).astype(np.int64)
    return number


def draw_population(rng: np.random.Generator, *, rows: int, days: int) -> Population:
    """People the world so that ``rows`` payments in ``days`` days are about 0.9 a card and day."""
    n_cards = max(8, round(rows / (days * PAYMENTS_A_DAY)))
    places = _draw_places(rng, n_cards=n_cards)
    terminals = _draw_terminals(rng, places, n_cards=n_cards)
    return Population(places=places, terminals=terminals, cards=_draw_cards(rng, places, n_cards=n_cards, days=days))


def _draw_places(rng: np.random.Generator, *, n_cards: int) -> Places:
    at_home = np.array([country[5] for country in COUNTRIES])
    living = np.concatenate([np.flatnonzero(at_home), choose(rng, at_home, int(np.clip(n_cards // 60, 4, 120)))])
    visited = np.repeat(np.arange(len(COUNTRIES)), 2)
    country = np.concatenate([living, visited]).astype(np.int64)
    centre = np.array([[row[2], row[3], row[4]] for row in COUNTRIES])[country]
    size = np.concatenate([rng.pareto(1.1, len(living)) + 0.3, np.full(len(visited), 0.05)])
    return Places(
        country=country,
        latitude=centre[:, 0] + centre[:, 2] * rng.uniform(-1, 1, len(country)),
        longitude=centre[:, 1] + 1.4 * centre[:, 2] * rng.uniform(-1, 1, len(country)),
        size=np.minimum(size, 12.0),
    )


def _draw_terminals(rng: np.random.Generator, places: Places, *, n_cards: int) -> Terminals:
    share = np.array([category.share for category in CATEGORIES])
    online = np.array([category.online for category in CATEGORIES])
    weight = places.size / places.size.sum()
    shops = 1 + rng.poisson(0.5 * n_cards * weight[:, None] * (share * (1 - online))[None, :])
    shops = np.where(online[None, :] < 1, shops, 0)
    web = np.where(online > 0, 3 + rng.poisson(0.2 * n_cards * share * online), 0)
    count = np.vstack([shops, web[None, :]]).ravel().astype(np.int64)
    group = np.repeat(np.arange(len(count)), count)
    place, category = np.divmod(group, len(CATEGORIES))
    centre = np.append(places.latitude, np.nan), np.append(places.longitude, np.nan)
    return Terminals(
        place=place,
        category=category,
        latitude=centre[0][place] + rng.normal(0, 0.04, len(group)),
        longitude=centre[1][place] + rng.normal(0, 0.06, len(group)),
        first=np.cumsum(count) - count,
        count=count,
    )


def _draw_cards(rng: np.random.Generator, places: Places, *, n_cards: int, days: int) -> Cards:
    lives = np.where(places.size > 0.1, places.size, 0.0)
    country_share = np.array([country[5] for country in COUNTRIES])
    per_country = np.bincount(places.country, weights=lives, minlength=len(COUNTRIES))
    lives = lives * (country_share / np.maximum(per_country, 1e-12))[places.country]
    home = choose(rng, lives, n_cards)
    elsewhere = choose(rng, lives, n_cards)
    commutes = (rng.random(n_cards) < 0.3) & (places.country[home] == places.country[elsewhere])
    appeal = np.array([country[6] for country in COUNTRIES])[places.country] * (places.size < 0.1)
    leaves = rng.uniform(-0.05, 1, n_cards) * days
    travels = rng.random(n_cards) < 0.3 * min(1.0, days / 90)
    share = np.array([category.share for category in CATEGORIES])
    taste = rng.gamma(np.tile(share * 14, (2 * n_cards, 1))) + 1e-4
    changes = rng.random(n_cards) < 0.15
    taste[1::2] = np.where(changes[:, None], taste[1::2], taste[::2])
    gamer = rng.random(n_cards) < 0.08
    taste[:, CATEGORY["digital"]] *= np.where(np.repeat(gamer, 2), 2.5, 1.0)
    return Cards(
        home=home,
        work=np.where(commutes, elsewhere, home),
        income=rng.normal(0, 0.4, n_cards),
        activity=np.exp(rng.normal(0, 0.6, n_cards)),
        since=np.where(rng.random(n_cards) < 0.1, rng.uniform(0, 0.8, n_cards), 0.0),
        taste=np.cumsum(taste, axis=1) / taste.sum(axis=1, keepdims=True),
        drift=np.where(changes, rng.normal(0, 0.8, n_cards), rng.normal(0, 0.08, n_cards)),
        online=np.clip(np.exp(rng.normal(-0.1, 0.45, n_cards)), 0.2, 2.0),
        shift=np.where(rng.random(n_cards) < 0.05, 10.0, rng.normal(0, 1.0, n_cards)),
        wallet=rng.random(n_cards) < 0.35,
        gamer=gamer,
        trip=choose(rng, appeal, n_cards),
        trip_from=np.where(travels, leaves, np.inf),
        trip_until=np.where(travels, leaves + rng.uniform(3, 15, n_cards), np.inf),
        new_phone=np.where(rng.random(n_cards) < 0.3 * days / 120, rng.uniform(0, days, n_cards), np.inf),
        favourite=rng.random(n_cards),
    )
