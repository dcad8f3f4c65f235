"""Neural autoencoders by name, fitted on windows of series; kept only where they beat principal components."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.base import clone

from detector.arrays import Flags
from detector.encoders.conv1d import Conv1dAutoencoder
from detector.encoders.recurrent import RecurrentAutoencoder
from detector.encoders.transformer import TransformerAutoencoder
from detector.encoders.variational import VariationalAutoencoder
from detector.errors import SettingError, nearest
from detector.members.window_network import WindowNetwork
from detector.series.scaling import ARITHMETIC
from detector.series.segmented_windows import LaidWindows, thinned
from detector.training.settings import OnStep, Training

ENCODERS: dict[str, Callable[[], Any]] = {
    "conv1d": Conv1dAutoencoder,
    "lstm": lambda: RecurrentAutoencoder(cell="lstm"),
    "gru": lambda: RecurrentAutoencoder(cell="gru"),
    "transformer": TransformerAutoencoder,
    "variational": VariationalAutoencoder,
}
FLOOR = "window-PCA"
MOST_WINDOWS = 20_000
MOST_NUMBERS = 50_000_000
LEAST_WINDOWS = 16


@dataclass(frozen=True)
class FittedEncoder:
    """A fitted network and whether it is used.

    - ``name``: what was asked for.
    - ``network``: as scoring needs it; ``None`` if the principal components are used.
    - ``history``: training curves.
    - ``facts``: what was found.
    - ``message``: what the caller should know, or empty.
    """

    name: str
    network: WindowNetwork | None
    history: dict[str, list[float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    message: str = ""

    def compared(self, error: float, floor: float, *, whose: str, fall_back: bool) -> FittedEncoder:
        """The same, after its error on held-out rows was compared with that of the principal components.

        >>> fitted = FittedEncoder("conv1d", None).compared(0.03, 0.02, whose="", fall_back=True)
        >>> fitted.message
        'conv1d does not beat window-PCA on held-out rows (mean squared residual 0.03 against 0.02), which is used.'
        """
        better = error < floor
        facts = self.facts | {"encoder_error_holdout": error, "pca_error_holdout": floor}
        if better or not fall_back:
            return replace(self, facts=facts | {"encoder": self.name})
        message = (
            f"{self.name} does not beat {FLOOR} on held-out rows{f' of {whose}' if whose else ''} (mean squared "
            f"residual {error:.3g} against {floor:.3g}), which is used."
        )
        return replace(self, network=None, history={}, facts=facts | {"encoder": FLOOR}, message=message)


@dataclass(frozen=True)
class EncoderChoice:
    """Which autoencoder is to rebuild windows.

    - ``encoder``: one of ``ENCODERS``, with as long a code as there are principal components; or an unfitted
      autoencoder, whose ``timesteps`` and ``standardise`` are set here.
    - ``fall_back``: whether the principal components are used if they are better.
    - ``training``: how one that is named is trained; an estimator knows itself.

    Raises ``SettingError`` if the name is unknown, or what is given is no autoencoder.
    """

    encoder: Any
    fall_back: bool = True
    training: Training | None = None

    def __post_init__(self) -> None:
        if isinstance(self.encoder, str):
            if self.encoder not in ENCODERS:
                raise SettingError(f"There is no encoder {self.encoder!r}. {nearest(self.encoder, ENCODERS)}")
        elif not hasattr(self.encoder, "reconstruct") or not hasattr(self.encoder, "standardise"):
            raise SettingError(
                f"encoder must be a name ({', '.join(ENCODERS)}) or an unfitted autoencoder of numbers. Received: "
                f"{type(self.encoder).__name__}."
            )

    @property
    def name(self) -> str:
        """What it is called."""
        return self.encoder if isinstance(self.encoder, str) else type(self.encoder).__name__

    def fit(self, laid: LaidWindows, chosen: Flags, *, code: int, random_state: int, on_step: OnStep) -> FittedEncoder:
        """Train on the windows chosen, at most 20,000 of them.

        Sensors are centred, and all divided by one number, so that the network minimises what principal components do.
        """
        facts: dict[str, Any] = {"encoder_asked": self.name, "encoder": FLOOR}
        if chosen.sum() < LEAST_WINDOWS:
            message = f"{self.name} needs {LEAST_WINDOWS} windows to learn from, got {chosen.sum()}; {FLOOR} is used."
            return FittedEncoder(self.name, None, facts=facts, message=message)
        sensors, length = laid.values.shape[1], laid.windows.length
        few = thinned(chosen, min(MOST_WINDOWS, max(LEAST_WINDOWS, MOST_NUMBERS // (sensors * length))))
        windows = laid.some(few).cut(laid.values).reshape(-1, sensors)
        centre = windows.mean(axis=0, dtype=np.float64)
        scale = np.full(sensors, max(float((windows - centre).std()), ARITHMETIC))
        given = ((windows - centre) / scale).astype(np.float32).reshape(int(few.sum()), -1)
        fitted = self._estimator(length, code=code, random_state=random_state, on_step=on_step).fit(given)
        facts |= {"parity_encoder": fitted.parity_, "code_size": fitted.code, "epochs": len(fitted.history_["loss"])}
        return FittedEncoder(self.name, WindowNetwork(fitted.graph_, centre, scale), fitted.history_, facts)

    def _estimator(self, length: int, *, code: int, random_state: int, on_step: OnStep) -> Any:
        named = isinstance(self.encoder, str)
        made = ENCODERS[self.encoder]() if named else clone(self.encoder)
        settings: dict[str, Any] = {"standardise": False, "random_state": random_state}
        if named:
            settings |= {"code": code, "training": self.training or Training(patience=5)}
        if "timesteps" in made.get_params():
            settings["timesteps"] = length
        if made.on_epoch is None:
            settings["on_epoch"] = lambda done, planned: on_step(self.name, done, planned)
        return made.set_params(**settings)
