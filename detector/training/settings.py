"""How a network is trained: the settings, checked, and what follows from them without Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from detector.checks import check_interval, check_least, check_whole, one_of
from detector.errors import SettingError

OPTIMISERS = ("adam", "adamw", "rmsprop", "sgd")
SCHEDULES = ("cosine", "constant", "exponential", "plateau", "step", "warmup_cosine")
LOSSES = ("mse", "mae", "huber", "log_cosh")

OnStep = Callable[[str, int, int], None]
"""Called with what is fitted, how much of it is done, and how much is planned."""


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Parameters
    ----------
    epochs : int
        Passes over the rows at most. A pass over a small table is repeated until it has ``least_steps`` updates.
    batch_size : int
        Rows an update.
    least_steps : int
        Updates an epoch at least.
    max_steps : int
        Updates in all at most: bounds the time on large tables.
    learning_rate : float
        Peak step size; the schedule decides how it is reached and left.
    patience : int
        Epochs without a better held-out loss after which training stops; the best weights are kept.
    trim : float
        Share of each batch, the worst rows, that the loss leaves out; 0 for none.
    holdout : float
        Share of the rows kept back for early stopping.
    optimiser : str
        "adam", "adamw" (Adam with decoupled weight decay), "rmsprop" or "sgd" (with momentum).
    momentum : float
        Of "sgd".
    weight_decay : float
        Of "adamw".
    schedule : str
        "cosine" falls to a hundredth along half a cosine, "warmup_cosine" rises in a line first, "constant" stays,
        "exponential" falls evenly to ``decay`` times the peak by the end, "step" falls by ``decay`` after each third,
        "plateau" falls by ``decay`` whenever the held-out loss has not improved for ``plateau_patience`` epochs.
    decay : float
        Factor of "exponential", "step" and "plateau".
    warmup : float
        Share of the updates in which "warmup_cosine" rises.
    plateau_patience : int
        Epochs "plateau" waits.
    clip : float
        Longest gradient of a weight matrix; a longer one is cut to this length. 0 cuts nothing.

    Raises
    ------
    SettingError
        If a value has no meaning.
    """

    epochs: int = 30
    batch_size: int = 256
    least_steps: int = 50
    max_steps: int = 6000
    learning_rate: float = 1e-3
    patience: int = 10
    trim: float = 0.0
    holdout: float = 0.1
    optimiser: str = "adam"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    decay: float = 0.1
    warmup: float = 0.1
    plateau_patience: int = 3
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_least(self, 1, "epochs", "max_steps", "batch_size", "least_steps", "patience", "plateau_patience")
        check_whole(self, "epochs", "batch_size", "least_steps")
        if not (isinstance(self.learning_rate, Real) and self.learning_rate > 0):
            raise SettingError(f"learning_rate must be positive. Received: learning_rate={self.learning_rate!r}.")
        check_interval(self, "[0, 1)", "trim", "holdout", "momentum", "warmup")
        check_interval(self, "(0, 1)", "decay")
        check_least(self, 0, "weight_decay", "clip")
        one_of("optimiser", self.optimiser, OPTIMISERS)
        one_of("schedule", self.schedule, SCHEDULES)

    def held_out(self, n_rows: int) -> int:
        """How many of so many rows are kept back.

        >>> Training(holdout=0.1).held_out(105)
        10
        """
        return int(n_rows * self.holdout)

    def plan(self, n_rows: int) -> tuple[int, int]:
        """Epochs, and updates in each, for a table of so many rows.

        >>> Training(epochs=30, batch_size=100, least_steps=50, max_steps=6000).plan(100_000)
        (6, 1000)
        """
        steps = int(min(max(self.least_steps, -(-n_rows // self.batch_size)), self.max_steps))
        return max(1, int(min(self.epochs, self.max_steps // steps))), steps
