"""An architecture, before Keras makes models of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Network:
    """An architecture as functions of Keras tensors; all layers in them are made once, beforehand.

    - ``encode``: rows → code.
    - ``decode``: code → what is expected of the row, flat.
    - ``error``: rows, expected → (n_rows, 1), what a row is scored by.
    - ``loss``: the same for training.
    - ``damage``: rows → rows made harder, for training.
    - ``penalty``: code → (n_rows, 1) or a scalar, added to the loss.
    - ``objective``: rows → (n_rows, 1): the whole loss, where it is not that of a damaged row's reconstruction.
    - ``surprise``: rows → (n_rows, 1): the whole error, where it is not that of the reconstruction.
    - ``choose``: what is expected → what is answered, where that is a choice, such as the likeliest token.
    - ``settle``: called with some rows after training, for what is learnt then.
    """

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    error: Callable[[Any, Any], Any]
    loss: Callable[[Any, Any], Any]
    damage: Callable[[Any], Any] = lambda rows: rows
    penalty: Callable[[Any], Any] | None = None
    objective: Callable[[Any], Any] | None = None
    surprise: Callable[[Any], Any] | None = None
    choose: Callable[[Any], Any] | None = None
    settle: Callable[[Any], None] | None = None

    def chosen(self, expected: Any) -> Any:
        """What is expected, as it is given back."""
        return expected if self.choose is None else self.choose(expected)

    def answers(self, rows: Any) -> tuple[Any, Any, Any]:
        """Code, what is answered, and what each row is scored by."""
        code = self.encode(rows)
        expected = self.decode(code)
        error = self.error(rows, expected) if self.surprise is None else self.surprise(rows)
        return code, self.chosen(expected), error

    def row_loss(self, rows: Any) -> Any:
        """What training minimises, for each row."""
        if self.objective is not None:
            return self.objective(rows)
        code = self.encode(self.damage(rows))
        loss = self.loss(rows, self.decode(code))
        return loss if self.penalty is None else loss + self.penalty(code)
