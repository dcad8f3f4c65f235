"""The frauds: who is robbed, how, and when it is noticed.

Each pattern draws campaigns. A campaign is one crime: one payment, a burst on a card, weeks at a terminal.
Its payments come on top of the honest ones, which go on.
"""

from __future__ import annotations

import numpy as np

from pipelines.simulate.campaigns import (
    Campaigns,
    Pattern,
    Scene,
    awake,
    draw_sizes,
    kinds,
    labelled,
    pay,
    starts,
)
from pipelines.simulate.payments import ABSENT, DAY, ONLINE, Calendar, Payments
from pipelines.simulate.population import CATEGORIES, CATEGORY, DEVICES_A_CARD, Population

MINUTE = 60


def fraudulent_payments(
    rng: np.random.Generator, people: Population, calendar: Calendar, honest: Payments, *, rows: int
) -> list[Payments]:
    """Draw exactly ``rows`` fraudulent payments, one part a pattern."""
    scene = Scene.of(people, calendar, honest)
    parts = []
    for number, (pattern, quota) in enumerate(zip(PATTERNS, quotas(rows), strict=True), start=1):
        if quota:
            campaigns = Campaigns(draw_sizes(rng, quota, pattern))
            drawn = pattern.draw(rng, scene, campaigns)
            parts.append(labelled(rng, drawn, campaigns, number=number, delay=pattern.delay, scene=scene))
    return parts


def quotas(rows: int) -> list[int]:
    """Share ``rows`` among the patterns; what is too little for a whole campaign becomes large amounts.

    >>> quotas(1000), quotas(3)
    ([180, 220, 260, 200, 140], [3, 0, 0, 0, 0])
    """
    counts = [int(rows * pattern.share) for pattern in PATTERNS]
    counts = [count if count >= pattern.smallest else 0 for count, pattern in zip(counts, PATTERNS, strict=True)]
    counts[0] += rows - sum(counts)
    return counts


def _large_amount(rng: np.random.Generator, scene: Scene, campaigns: Campaigns) -> Payments:
    """One payment far above what the card usually pays, wherever its holder is."""
    n = int(campaigns.sizes.sum())
    card = scene.victims(rng, n)
    category = kinds(rng, ("electronics", "jewellery", "home", "travel", "clothing"), n)
    online = rng.random(n) < np.array([kind.online for kind in CATEGORIES])[category]
    own = card * DEVICES_A_CARD
    return pay(
        rng,
        scene,
        time=awake(rng, starts(rng, scene, campaigns, length=0), share=0.8),
        card=card,
        category=category,
        online=online,
        place=scene.people.cards.home[card],
        amount=(scene.mean_amount[card] + 20) * np.exp(rng.normal(2.3, 0.4, n)),
        device=np.where(rng.random(n) < 0.6, scene.strangers(rng, n), own),
    )


def _compromised_terminal(rng: np.random.Generator, scene: Scene, campaigns: Campaigns) -> Payments:
    """For two to four weeks copied cards of many holders are used at one terminal, some far from home."""
    of_row, n, terminals = campaigns.of_row, int(campaigns.sizes.sum()), scene.people.terminals
    physical = np.flatnonzero(scene.honest.channel != ONLINE)
    seen = scene.honest.terminal[physical] if len(physical) else np.flatnonzero(~np.isnan(terminals.latitude))
    terminal = seen[rng.integers(0, len(seen), len(campaigns.sizes))][of_row]
    place = terminals.place[terminal]
    # Two in five victims are customers of this city, whose cards were read here; the others were bought.
    customers = scene.victims(rng, 8 * n).reshape(8, n)
    local = scene.people.cards.home[customers] == place
    nearby = np.where(local.any(axis=0), customers[local.argmax(axis=0), np.arange(n)], customers[0])
    card = np.where(rng.random(n) < 0.4, nearby, scene.victims(rng, n))
    length = (rng.uniform(14, 28, len(campaigns.sizes)) * DAY)[of_row]
    length = np.minimum(length, scene.calendar.seconds)
    start = np.floor(rng.random(len(campaigns.sizes))[of_row] * (scene.calendar.seconds - length))
    time = (start + rng.random(n) * length).astype(np.int64)
    category = terminals.category[terminal]
    usual = np.array([kind.median for kind in CATEGORIES])[category]
    return pay(
        rng,
        scene,
        time=awake(rng, time, share=0.65),
        card=card,
        category=category,
        online=np.zeros(n, bool),
        place=place,
        amount=(0.5 * usual + 0.5 * scene.mean_amount[card]) * np.exp(rng.normal(1.25, 0.5, n)),
        device=np.full(n, ABSENT),
        terminal=terminal,
    )


def _compromised_card(rng: np.random.Generator, scene: Scene, campaigns: Campaigns) -> Payments:
    """For one to three weeks a second person pays with the card, several times its normal amounts."""
    of_row, n = campaigns.of_row, int(campaigns.sizes.sum())
    card = scene.victims(rng, len(campaigns.sizes))[of_row]
    length = min(21 * DAY, scene.calendar.seconds)
    start = starts(rng, scene, campaigns, length=length)
    lasts = rng.uniform(7 * DAY, 21 * DAY, len(campaigns.sizes)) * length / (21 * DAY)
    time = start[of_row] + np.floor(rng.random(n) * lasts[of_row]).astype(np.int64)
    category = kinds(rng, ("electronics", "clothing", "travel", "jewellery", "digital", "groceries", "home"), n)
    online = rng.random(n) < np.minimum(np.array([kind.online for kind in CATEGORIES])[category] + 0.25, 1.0)
    thief = scene.strangers(rng, len(campaigns.sizes))[of_row]
    elsewhere = rng.integers(0, len(scene.people.places.country), len(campaigns.sizes))[of_row]
    return pay(
        rng,
        scene,
        time=awake(rng, time, share=0.6),
        card=card,
        category=category,
        online=online,
        place=np.where(rng.random(n) < 0.5, elsewhere, scene.people.cards.home[card]),
        amount=(scene.mean_amount[card] + 5) * np.exp(rng.normal(1.5, 0.5, n)),
        device=thief,
    )


def _card_testing(rng: np.random.Generator, scene: Scene, campaigns: Campaigns) -> Payments:
    """Tiny online payments every few seconds show that a stolen number works; then one large payment."""
    of_row, n, last = campaigns.of_row, int(campaigns.sizes.sum()), campaigns.is_last
    card = scene.victims(rng, len(campaigns.sizes))[of_row]
    start = starts(rng, scene, campaigns, length=2 * 3600)
    pause = np.where(campaigns.rank == 0, 0, np.where(last, rng.integers(60, 30 * MINUTE, n), rng.integers(1, 25, n)))
    total = np.cumsum(pause)
    elapsed = total - np.repeat(total[np.cumsum(campaigns.sizes) - campaigns.sizes], campaigns.sizes)
    shop = rng.random(len(campaigns.sizes))[of_row]
    category = np.where(last, kinds(rng, ("electronics", "travel", "clothing"), n), CATEGORY["digital"])
    online = np.ones(n, bool)
    place = rng.integers(0, len(scene.people.places.country), len(campaigns.sizes))[of_row]
    group = scene.people.group(place, category, online)
    tiny = rng.uniform(0.5, 2.5, n)
    return pay(
        rng,
        scene,
        time=start[of_row] + elapsed,
        card=card,
        category=category,
        online=online,
        place=place,
        amount=np.where(last, (scene.mean_amount[card] + 30) * np.exp(rng.normal(1.8, 0.4, n)), tiny),
        device=scene.strangers(rng, len(campaigns.sizes))[of_row],
        terminal=scene.people.terminals.pick(group, shop, np.zeros(n)),
    )


def _account_takeover(rng: np.random.Generator, scene: Scene, campaigns: Campaigns) -> Payments:
    """Within hours the account is emptied online from a new device in another country."""
    of_row, n, places = campaigns.of_row, int(campaigns.sizes.sum()), scene.people.places
    victims = scene.victims(rng, len(campaigns.sizes))
    start = starts(rng, scene, campaigns, length=8 * 3600)
    candidates = rng.integers(0, len(places.country), (16, len(victims)))
    abroad = places.country[candidates] != places.country[scene.people.cards.home[victims]]
    place = candidates[abroad.argmax(axis=0), np.arange(len(victims))][of_row]
    card = victims[of_row]
    return pay(
        rng,
        scene,
        time=start[of_row] + rng.integers(0, 6 * 3600, n),
        card=card,
        category=kinds(rng, ("electronics", "travel", "clothing", "digital", "leisure"), n),
        online=np.ones(n, bool),
        place=place,
        amount=(scene.mean_amount[card] + 10) * np.exp(rng.normal(1.5, 0.6, n)),
        device=scene.strangers(rng, len(victims))[of_row],
    )


PATTERNS = (
    Pattern("large_amount", 0.18, 1, 1, 5.0, _large_amount),
    Pattern("compromised_terminal", 0.22, 12, 60, 9.0, _compromised_terminal),
    Pattern("compromised_card", 0.26, 5, 20, 4.0, _compromised_card),
    Pattern("card_testing", 0.20, 6, 25, 2.0, _card_testing),
    Pattern("account_takeover", 0.14, 2, 7, 1.5, _account_takeover),
)
