"""How good an encoder is: how well it rebuilds rows, what it costs, and what it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone

from detector.errors import DataError, SettingError
from detector.lab.cost import fit_measured, rows_per_second
from detector.lab.damage import contaminated, count, incomplete, noisy, take, unrelated
from detector.lab.errors import reconstruction_errors
from detector.metrics.ranking import ranking_metrics

LEAST_ROWS = 10

OnStep = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Levels:
    """How much damage is tried; 0, as a reference, always comes first.

    - ``noise``: deviations of the noise on numbers, and shares of categories and tokens replaced.
    - ``missing``: shares of the values lost.
    - ``contamination``: shares of the training rows replaced by strange ones. Each needs a fit of its own.
    """

    noise: tuple[float, ...] = (0.1, 0.3, 1.0)
    missing: tuple[float, ...] = (0.02, 0.05, 0.1)
    contamination: tuple[float, ...] = (0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Comparison:
    """Several encoders on the same rows.

    - ``table``: one row an encoder, columns as ``assess`` names them.
    - ``robustness``: as ``robustness`` gives, with the encoder's name in the first column.
    - ``fitted``: the encoders, fitted on the training rows.
    """

    table: pd.DataFrame
    robustness: pd.DataFrame
    fitted: dict[str, Any] = field(repr=False)


def assess(encoder: Any, train: Any, held_out: Any) -> dict[str, float]:
    """What can be said of a fitted encoder without fitting another one; of at least 10 rows it has not seen.

    ``error_train`` and ``error_held_out``, as ``reconstruction_errors`` gives, and by kind of column or branch
    ``error_held_out_<kind>`` where there are several; ``generalisation_gap``, the second minus the first;
    ``rows_per_second`` of scoring; ``size_bytes`` of the ONNX graphs; ``parameters`` learnt; ``parity``. Raises
    ``DataError`` if there are too few rows.
    """
    _check_rows(held_out)
    errors = {name: reconstruction_errors(encoder, rows) for name, rows in (("train", train), ("held_out", held_out))}
    kinds = {name: error for name, error in errors["held_out"].items() if name != "error"}
    return {
        "error_train": errors["train"]["error"],
        "error_held_out": errors["held_out"]["error"],
        "generalisation_gap": errors["held_out"]["error"] - errors["train"]["error"],
        **(
            {f"error_held_out_{name.replace(' ', '_')}": error for name, error in kinds.items()}
            if len(kinds) > 1
            else {}
        ),
        "rows_per_second": rows_per_second(encoder, held_out),
        "size_bytes": float(len(encoder.graph_.content) + len(encoder.decoder_.content)),
        "parameters": float(sum(array.size for name, array in encoder.weights_.items() if "seed_gen" not in name)),
        "parity": float(encoder.parity_),
    }


def robustness(
    encoder: Any,
    train: Any,
    held_out: Any,
    *,
    levels: Levels | None = None,
    strange: Any = None,
    random_state: int = 0,
    on_step: OnStep | None = None,
) -> pd.DataFrame:
    """What becomes of error and ranking when rows are noisy, incomplete, or training rows are contaminated.

    Of ``strange`` rows, anomalies, half contaminate, the other half are to be found; without them, rows are made whose
    values come each from another row. ``on_step`` is called with steps done, steps planned and what was done.

    Returned are ``damage`` ("noise", "missing", "contamination"), ``level``; ``error`` of the undamaged held-out rows
    rebuilt from the damaged ones, or by the encoder fitted on contaminated rows; ``rank_stability``, the Spearman
    correlation of the held-out rows' scores with those without damage; ``auroc`` of strange against held-out rows.
    Raises ``DataError`` if there are fewer than 10 held-out rows, or too few strange ones; ``SettingError`` if a level
    has no meaning.
    """
    _check_rows(held_out)
    levels = levels or Levels()
    if strange is None:
        dirt, odd = unrelated(train, random_state=random_state), unrelated(held_out, random_state=random_state + 1)
    else:
        half = count(strange) // 2
        dirt, odd = take(strange, np.arange(half)), take(strange, np.arange(half, count(strange)))
        _check_rows(odd, "strange")
    plain, scored_odd = encoder.score_samples(held_out), encoder.score_samples(odd)
    found: list[dict[str, Any]] = []
    planned = sum(len(tried) for tried in (levels.noise, levels.missing, levels.contamination))

    def note(damage: str, level: float, made: Any, seen: Any, scores: NDArray[Any], scores_odd: NDArray[Any]) -> None:
        found.append(
            {
                "damage": damage,
                "level": float(level),
                "error": reconstruction_errors(made, held_out, seen=seen)["error"],
                "rank_stability": _spearman(plain, scores),
                "auroc": _auroc(scores, scores_odd),
            }
        )
        if level and on_step is not None:
            on_step(sum(row["level"] > 0 for row in found), planned, f"{damage} {level:g}")

    for damage, tried in (("noise", levels.noise), ("missing", levels.missing)):
        for at, level in enumerate((0.0, *_checked(damage, tried))):
            seen = _damaged(encoder, held_out, damage, level, random_state + at) if level else held_out
            note(damage, level, encoder, seen, encoder.score_samples(seen), scored_odd)
    note("contamination", 0.0, encoder, held_out, plain, scored_odd)
    for at, level in enumerate(_checked("contamination", levels.contamination)):
        made = clone(encoder).fit(contaminated(train, dirt, level, random_state=random_state + at))
        note("contamination", level, made, held_out, made.score_samples(held_out), made.score_samples(odd))
    return pd.DataFrame(found)


def compare(
    encoders: Mapping[str, Any],
    train: Any,
    held_out: Any,
    *,
    levels: Levels | None = None,
    strange: Any = None,
    random_state: int = 0,
    on_step: OnStep | None = None,
) -> Comparison:
    """Fit copies of several encoders on the same rows: how well each rebuilds, what it costs and what it stands.

    See ``robustness``. No damage at all is ``Levels((), (), ())``. Raises ``SettingError`` if there is no encoder.
    """
    if not encoders:
        raise SettingError(
            "compare needs at least one encoder. Pass them by name, as in {'dense': DenseAutoencoder()}."
        )
    _check_rows(held_out)
    table, damage, fitted = {}, [], {}
    for name, encoder in encoders.items():
        made = fit_measured(encoder, train)
        fitted[name] = made.encoder
        table[name] = assess(made.encoder, train, held_out) | {
            "training_seconds": made.training_seconds,
            "peak_memory_mb": made.peak_memory_mb,
        }
        stood = robustness(
            made.encoder,
            train,
            held_out,
            levels=levels,
            strange=strange,
            random_state=random_state,
            on_step=on_step and _named(name, on_step),
        )
        damage.append(stood.assign(encoder=name)[["encoder", *stood.columns]])
    return Comparison(
        pd.DataFrame.from_dict(table, orient="index").rename_axis("encoder"),
        pd.concat(damage, ignore_index=True),
        fitted,
    )


def _named(name: str, on_step: OnStep) -> OnStep:
    return lambda done, planned, what: on_step(done, planned, f"{name}: {what}")


def _checked(damage: str, tried: tuple[float, ...]) -> tuple[float, ...]:
    most = np.inf if damage == "noise" else 1.0
    if not all(0 < level < most for level in tried):
        raise SettingError(
            f"Levels of {damage} must be positive{'' if damage == 'noise' else ' and below 1'}. Received: {tried!r}."
        )
    return tried


def _check_rows(rows: Any, what: str = "held-out") -> None:
    if count(rows) < LEAST_ROWS:
        raise DataError(
            f"Evaluating an encoder needs at least {LEAST_ROWS} {what} rows, received {count(rows)}. Give more."
        )


def _damaged(encoder: Any, rows: Any, damage: str, level: float, seed: int) -> Any:
    branches = getattr(encoder, "branches_", None)
    if branches is not None:
        return {name: _damaged(branch, rows[name], damage, level, seed) for name, branch in branches.items()}
    if damage == "noise":
        return noisy(rows, level, categorical=getattr(encoder, "categorical", ()), random_state=seed)
    gap = np.nan if encoder.__sklearn_tags__().input_tags.allow_nan else 0.0
    return incomplete(rows, level, gap=gap, random_state=seed)


def _spearman(first: NDArray[Any], second: NDArray[Any]) -> float:
    both = ~(np.isnan(first) | np.isnan(second))
    ranks = pd.DataFrame({"first": first[both], "second": second[both]}).rank()
    if len(ranks) < 2 or (ranks.nunique() < 2).any():
        return float("nan")
    return float(np.corrcoef(ranks["first"], ranks["second"])[0, 1])


def _auroc(normal: NDArray[Any], odd: NDArray[Any]) -> float:
    scores = -np.concatenate([normal, odd])
    labels = np.concatenate([np.zeros(len(normal)), np.ones(len(odd))])
    there = ~np.isnan(scores)
    return ranking_metrics(labels[there], scores[there])["auroc"]
