"""How far a row lies from the known ones, in two scalings."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.errors import SettingError
from detector.members.kernel import Cells, choose_prototypes, nearest_of
from detector.members.novelty import NEARER, RESOLVED, SCALINGS, SCORES, KnownRows
from detector.members.novelty_graph import graph_of
from detector.onnx.graph import joined

Rows = NDArray[np.float32]


def draw(seed: int, n: int, *, flags: int = 2) -> tuple[Rows, Rows]:
    """Numbers, and the numbers (damped, which known rows do not read) beside one-hot columns."""
    rng = np.random.default_rng(seed)
    far = rng.standard_t(3, size=(n, 3)).astype(np.float32)
    hot = np.eye(flags, dtype=np.float32)[rng.integers(0, flags, n)] if flags else np.zeros((n, 0), np.float32)
    return far, np.hstack([np.clip(far, -10, 10), hot]).astype(np.float32)


@pytest.fixture(scope="module")
def known() -> KnownRows:
    return KnownRows.fit(*draw(0, 600), np.arange(500), contracted=100)


@pytest.mark.parametrize("flags", [0, 2])
@pytest.mark.parametrize(("references", "suspicious"), [(50, 0), (1, 0), (2500, 0), (1, 1), (600, 200)])
def test_graph_scores_as_the_plain_way(flags: int, references: int, suspicious: int) -> None:
    """In one chunk of references and in several, with one-hot columns and without, with suspicious rows and without."""
    places = np.arange(references), np.arange(references, references + suspicious)
    known = KnownRows.fit(*draw(0, 3000, flags=flags), places[0], contracted=100, suspicious=places[1])
    far, space = draw(1, 200, flags=flags)

    found = joined({"known": graph_of(known)}).run({"far": far, "space": space})

    assert np.allclose(np.hstack([found[name] for name in SCORES]), known.score(far, space), atol=1e-3)


def test_rows_of_categories_alone_have_scores() -> None:
    """No number, one-hot columns only: the graph does not ask for numbers."""
    rng = np.random.default_rng(0)
    space = np.eye(6, dtype=np.float32)[rng.integers(0, 5, 300)]
    none = np.zeros((300, 0), dtype=np.float32)
    known = KnownRows.fit(none, space, np.arange(300), contracted=100)
    new = np.eye(6, dtype=np.float32)[[5, 0]]

    found = joined({"known": graph_of(known)}).run({"space": new})

    assert (found["neighbours"][0] > found["neighbours"][1] + 0.5).all()
    assert np.allclose(found["neighbours"][:, 0], known.score(none[:2], new)[:, 0], atol=1e-3)


def test_distance_is_that_to_the_nearest_known_row(known: KnownRows) -> None:
    """By its definition, in each scaling."""
    far, space = draw(1, 50)

    found = known.distances(far, space)

    for name, rows in known.scaled(far, space).items():
        plain = np.sqrt(((rows[:, None] - known.rows[name][None]) ** 2).sum(axis=2)).min(axis=1)
        assert np.allclose(found[name][:, 0], plain, atol=5e-3)


def test_a_known_row_is_left_out_of_its_own_score() -> None:
    """Else it would lie on itself: as if new, it scores as if the others alone were known."""
    far, space = draw(0, 300)
    known = KnownRows.fit(far, space, np.arange(300), contracted=300)
    others = KnownRows.fit(far, space, np.arange(1, 300), contracted=299)

    found = known.distances(far[:1], space[:1], np.array([0]))
    wanted = others.distances(far[:1], space[:1])

    assert known.distances(far[:1], space[:1])["linear"][0, 0] == 0
    for name in SCALINGS:
        assert np.allclose(found[name][0, 0], wanted[name][0, 0], rtol=0.05)


def test_the_size_of_a_tail_is_kept(known: KnownRows) -> None:
    """Ten times as far is farther: nothing is damped within a thousand training ranges, and no order lost beyond."""
    far, space = draw(1, 1)
    rows = np.repeat(far, 5, axis=0)
    rows[:, 0] = [1e2, 1e3, 1e6, 1e9, 3e37]

    found = known.distances(rows, np.repeat(space, 5, axis=0))

    assert np.isfinite(known.score(rows, np.repeat(space, 5, axis=0))).all()
    assert (np.diff(found["linear"][:, 0]) > 0).all()
    assert found["linear"][1, 0] == pytest.approx(10 * found["linear"][0, 0], rel=0.1)


def test_a_row_amid_others_is_pulled_less_than_one_beside_them() -> None:
    """What the kernel's mean is for: a hole in the middle of the bulk is no novelty to it, a place beside it is."""
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 2000)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    known = KnownRows.fit(ring, ring, np.arange(1000), contracted=1000)

    on, off = (known.score(rows, rows)[:, 1] for rows in (ring[1000:1100], 1.3 * ring[1000:1100]))

    assert np.median(off) > np.quantile(on, 0.99)


def test_differences_name_the_input_that_is_off(known: KnownRows) -> None:
    """Shares of one row add up to one, and the moved number has most of it."""
    far, space = draw(1, 20)
    far[:, 1] += 100

    found = known.differences(far, space)

    for score in SCORES:
        assert np.allclose(found[score].sum(axis=1), 1, atol=1e-3)
        assert (found[score].argmax(axis=1) == 1).all()


def test_equal_rows_have_finite_scores() -> None:
    """A table of one row repeated, and a new one."""
    far = np.ones((50, 2), dtype=np.float32)
    known = KnownRows.fit(far, far, np.arange(50), contracted=20)

    found = known.score(np.vstack([far[:1], far[:1] + 5]), np.vstack([far[:1], far[:1] + 5]))

    assert np.isfinite(found).all()
    assert (found[1] > found[0]).all()


def test_a_suspicious_row_makes_rows_beside_it_half_as_far_at_most(known: KnownRows) -> None:
    """Neither as strange as without it, nor as usual as if it were known; itself, it is as strange as ever."""
    far, space = draw(0, 600)
    far, space = np.vstack([far, [[40, 40, 40]]]), np.vstack([space, space[:1]])
    wary = KnownRows.fit(far, space, np.arange(500), contracted=100, suspicious=np.array([600]))
    beside = far[[600, 0, 1]] + np.float32(1e-3), space[[600, 0, 1]]

    for name in SCALINGS:
        plain, found = known.distances(*beside)[name], wary.distances(*beside)[name]
        assert found[0] == pytest.approx(plain[0] / NEARER, rel=1e-5)
        assert found[1:] == pytest.approx(plain[1:], abs=1e-4)
        own = wary.distances(far[600:], space[600:], np.array([500]))[name]
        assert own == pytest.approx(known.distances(far[600:], space[600:])[name], rel=1e-5)


def test_state_survives_a_round_trip() -> None:
    """A restored member gives the same scores; one kept before rows were suspicious has none."""
    known = KnownRows.fit(*draw(0, 600), np.arange(500), contracted=100, suspicious=np.arange(500, 510))
    far, space = draw(1, 20)
    state = known.state()

    assert np.array_equal(KnownRows.from_state(state).score(far, space), known.score(far, space))
    old = KnownRows.from_state({name: array for name, array in state.items() if not name.startswith("suspicious_")})
    assert all(len(rows) == 0 for rows in old.suspicious.values())


def test_a_kernel_needs_rows() -> None:
    """None means nothing."""
    with pytest.raises(SettingError, match="contracted must be at least 1. Received: contracted=0"):
        KnownRows.fit(*draw(0, 10), np.arange(10), contracted=0)


def test_a_category_counts_as_much_as_a_number_in_both_scalings() -> None:
    """One huge value makes training ranges wide; two kinds of shop do not lie farther apart for it."""
    far, space = draw(0, 600)
    far[0] = 1e4
    known = KnownRows.fit(far, space, np.arange(500), contracted=100)

    for scaled in known.scaled(far[:500], space[:500]).values():
        numbers, hot = scaled[:, :3].std(axis=0), scaled[:, 3:].std(axis=0)
        assert 0.3 < hot.mean() / np.sqrt((numbers**2).mean()) < 1


def test_known_rows_kept_before_units_score_as_they_did() -> None:
    """Bundles of before have none: what is no number counts in full."""
    known = KnownRows.fit(*draw(0, 300), np.arange(300), contracted=100)
    far, space = draw(1, 20)
    state = {name: array for name, array in known.state().items() if not name.startswith("unit_")}

    old = KnownRows.from_state(state)

    assert np.array_equal(old.scaled(far, space)["linear"][:, 3:], space[:, 3:])


def test_what_explains_a_row_does_not_depend_on_its_batch(known: KnownRows) -> None:
    """To the last bit, or reasons would differ between a batch and one event."""
    far, space = draw(2, 40)
    whole = known.differences(far, space)

    for at in (0, 7, 39):
        alone = known.differences(far[at : at + 1], space[at : at + 1])

        assert all(np.array_equal(alone[score][0], whole[score][at]) for score in SCORES)


def test_rows_that_stand_for_others_leave_no_rare_row_without_one_near() -> None:
    """A handful far from the bulk are all remembered, though chance alone would take every tenth."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 2)).astype(np.float32)
    rare = np.array([505, 700, 901])
    rows[rare] += np.array([[40, 0], [0, 40], [-40, 0]], dtype=np.float32)

    chosen = choose_prototypes(rows, 100)

    assert len(np.unique(chosen)) == 100
    assert chosen[:50].tolist() == list(range(50))
    assert set(rare) <= set(chosen)


@pytest.mark.parametrize("row", [3, 40, 99])
def test_a_row_is_left_out_of_those_that_one_stands_for(row: int) -> None:
    """The mean is that of cells which were made without it, also where it was alone."""
    rows = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    prototypes = rows[:20]
    cell = nearest_of(rows, prototypes)
    rest = np.arange(100) != row
    without = Cells.of(rows[rest], cell[rest], 20)
    squared = ((rows[row] - prototypes) ** 2).sum(axis=1)[None]

    found = Cells.of(rows, cell, 20).mean(squared, 0.5, rows=rows[row][None], cell=cell[row][None])

    assert np.allclose(found, without.mean(np.where(without.weight == 0, np.float32(np.inf), squared), 0.5), atol=1e-5)


def test_few_rows_find_what_all_find_that_they_stand_for() -> None:
    """Of the highest twentieth most, and more than as many rows that stand for themselves."""
    far, space = draw(0, 2000)
    new = draw(1, 1000)
    every, few, alone = (
        KnownRows.fit(far, space, np.arange(known), contracted=2000, references=references).score(*new)
        for known, references in ((2000, 2000), (2000, 500), (500, 500))
    )

    for score in range(len(SCORES)):
        highest, found, less = (set(np.argsort(-each[:, score])[:50]) for each in (every, few, alone))
        assert len(found & highest) >= 42
        assert len(found & highest) > len(less & highest)


@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0, 1e3, 1e9, 1e20, 1e37])
def test_graph_scores_numbers_of_any_size_as_the_plain_way(size: float) -> None:
    """The graph writes an inverse hyperbolic sine out, whose square would be too large for a float32."""
    far, space = draw(0, 600)
    far *= np.float32(1e-5)
    known = KnownRows.fit(far, space, np.arange(500), contracted=100)
    new = np.float32(size) * np.sign(far[500:]) * (1 + np.abs(far[500:]) / 10)

    found = joined({"known": graph_of(known)}).run({"far": new, "space": space[500:]})

    assert np.allclose(np.hstack([found[name] for name in SCORES]), known.score(new, space[500:]), atol=2e-2)


def test_a_row_is_explained_by_usual_rows_and_not_by_one_as_odd_as_itself() -> None:
    """What tells an outlier from another among the known rows is not what makes it one."""
    rng = np.random.default_rng(0)
    far = rng.normal(size=(600, 3)).astype(np.float32)
    far[:10, 0] = rng.normal(60, 3, 10)
    new = np.array([[60.0, 1.5, 0.0]], dtype=np.float32)
    rarity = np.abs(far[:, 0]).astype(np.float64)

    plain, told = (KnownRows.fit(far, far, np.arange(600), contracted=600, rarity=each) for each in (None, rarity))

    assert not told.usual[told.own[:10]].any()
    for name in SCORES:
        assert plain.differences(new, new)[name][0, 0] < 0.5
        assert told.differences(new, new)[name][0, 0] > 0.8
    assert np.array_equal(plain.score(new, new), told.score(new, new))
    old = KnownRows.from_state({name: array for name, array in told.state().items() if name != "usual"})
    assert np.array_equal(old.differences(new, new)["neighbours"], plain.differences(new, new)["neighbours"])


def test_where_no_known_row_carries_the_kernel_and_is_usual_all_are() -> None:
    far = np.arange(40, dtype=np.float32)[:, None]
    known = KnownRows.fit(far, far, np.arange(40), contracted=1, rarity=np.append(9.0, np.zeros(39)))
    assert known.usual.all()
    assert np.isfinite(known.differences(far, far)["contraction"]).all()


def test_rounding_of_many_inputs_is_more_than_that_of_few() -> None:
    """A large input beside many small ones that are alike, as of a row with most columns missing: each rounds alike."""
    allowed = {}
    for width in (30, 120):
        rows = np.full((300, width), 0.01680267, dtype=np.float32)
        rows[:, 0] = np.linspace(0.3, 0.6, 300)
        known = KnownRows.fit(rows, rows, np.arange(300), contracted=300)
        row = known.rows["linear"][0] + np.float32(0.5)
        size = float((row.astype(np.float64) ** 2).sum())
        lost = 2 * abs(float(np.cumsum(row * row, dtype=np.float32)[-1]) - size)

        allowed[width] = known.rounding
        assert 0 < 0.5 * np.log1p(lost / (RESOLVED * size)) < known.rounding * min(map(np.min, known.scale.values()))

    assert allowed[120] > 2 * allowed[30]
