"""The queue people work through: mostly what scores highest, and a share chosen otherwise, so that misses show.

A head that learns only from what it chose itself never hears of what it missed. Rows drawn with a known chance do not
only teach; they tell how many anomalies lie outside the queue (Horvitz and Thompson, JASA 1952).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detector.errors import SettingError, ShapeError


@dataclass(frozen=True)
class Queue:
    """Rows to look at, the most urgent first.

    Parameters
    ----------
    rows : array of shape (n_chosen,)
        Positions.
    explored : boolean array of shape (n_chosen,)
        Which were not chosen by the score.
    chance : array of shape (n_chosen,)
        With what probability each was to be chosen: 1 by the score; 0 where it is not known, that is by the risk.
    """

    rows: NDArray[np.intp]
    explored: NDArray[np.bool_]
    chance: NDArray[np.float64]

    def missed(self, truth: NDArray[np.floating]) -> float:
        """About how many anomalies are outside of what the score chose, those found by exploring included.

        Parameters
        ----------
        truth : array of shape (n_chosen,)
            The verdicts: 1 anomalous, 0 normal.

        Raises
        ------
        ShapeError
            If there is not one verdict a row of the queue.

        >>> queue = fill_queue(np.array([9.0, 8.0, 1.0, 2.0]), size=2, exploration=0.5, random_state=0)
        >>> queue.rows[0].item(), queue.missed(np.array([1.0, 1.0]))
        (0, 3.0)
        """
        if np.shape(truth) != self.rows.shape:
            raise ShapeError(f"Expected one verdict for each of {len(self.rows)} rows, received {np.shape(truth)}.")
        drawn = self.explored & (self.chance > 0)
        return float((np.asarray(truth)[drawn] / self.chance[drawn]).sum())


def fill_queue(
    score: NDArray[np.floating],
    *,
    size: int,
    exploration: float = 0.1,
    by: Literal["random", "risk"] = "random",
    risk: NDArray[np.floating] | None = None,
    random_state: int = 0,
) -> Queue:
    """Choose rows for people to look at.

    Parameters
    ----------
    score : array of shape (n_rows,)
        What decides, such as the probability of a head; higher is more anomalous.
    size : int
        Rows to look at.
    exploration : float
        Share of them not chosen by the score, at least one if there is any.
    by : {"random", "risk"}
        Whether these are drawn evenly from the others, which lets ``missed`` count, or are those of the highest
        unsupervised risk, which finds new kinds sooner.
    risk : array of shape (n_rows,), optional
        For ``by="risk"``.
    random_state : int
        Seeds the draw.

    Raises
    ------
    SettingError
        If a setting has no meaning.
    """
    if size < 1 or not 0 <= exploration < 1:
        raise SettingError(
            f"A queue needs a size of at least 1 and an exploration share in [0, 1). Received: size={size}, "
            f"exploration={exploration}."
        )
    if by not in ("random", "risk") or (by == "risk" and risk is None):
        raise SettingError(f"Exploration is by 'random', or by 'risk' with the risk given. Received: by={by!r}.")
    size = min(size, len(score))
    others = min(ceil(exploration * size), size - 1) if exploration else 0
    order = np.argsort(-np.asarray(score), kind="stable")
    top, rest = order[: size - others], order[size - others :]
    if by == "risk" and risk is not None:
        drawn = rest[np.argsort(-np.asarray(risk)[rest], kind="stable")[:others]]
        chance = 0.0
    else:
        drawn = np.random.default_rng(random_state).choice(rest, size=others, replace=False) if others else rest[:0]
        chance = others / max(len(rest), 1)
    return Queue(
        np.concatenate([top, drawn]),
        np.repeat([False, True], [len(top), others]),
        np.repeat([1.0, chance], [len(top), others]),
    )
