"""A row and the events before it → the steps an encoder of sequences reads: logarithms, scaling, codes, what is there.

All of it happens inside the ONNX graph, as with ``detector.encoding``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.errors import SettingError
from detector.features.feature import OF_EVENT, Feature
from detector.resolution import float_resolution

if TYPE_CHECKING:
    import onnx

CODES = 16
MOST = 8.0  # deviations
FLOOR = 1e-3


@dataclass(frozen=True)
class Channel:
    """One thing known of every event.

    - ``columns``: where it stands of each event, oldest first, the row itself last; None where it is not kept.
    - ``coded``: whether it is a number from 0 to 15 that stands for a name.
    - ``said_as``: the column by which people know it, if the row has that: reasons name it.
    """

    columns: tuple[str | None, ...]
    coded: bool = False
    said_as: str | None = None


@dataclass(frozen=True)
class Steps:
    """A window as columns of the row.

    - ``channels``: all of one length.
    - ``beside``: the columns that only the window reads: they are no features of the row.

    Raises ``SettingError`` if there is no channel, or they differ in length.
    """

    channels: tuple[Channel, ...]
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(channel.columns) for channel in self.channels}
        if len(lengths) != 1 or lengths == {1}:
            raise SettingError(
                f"A window expected channels of one length, two events or more, received lengths {sorted(lengths)}. "
                f"Give each channel a column, or None, for each event."
            )

    @property
    def length(self) -> int:
        """Events in all, the row itself among them."""
        return len(self.channels[0].columns)

    @property
    def columns(self) -> tuple[str | None, ...]:
        """The columns, event by event."""
        return tuple(channel.columns[step] for step in range(self.length) for channel in self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        channels = [asdict(channel) | {"columns": list(channel.columns)} for channel in self.channels]
        return {"sensors": channels, "beside": list(self.beside)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        channels = tuple(Channel(**each | {"columns": tuple(each["columns"])}) for each in values["sensors"])
        return cls(channels, tuple(values["beside"]))


def steps_of(features: Iterable[Feature]) -> Steps:
    """The window that ``last``, ``gap`` and ``code`` describe, the row itself its last step.

    A step has the amount, the minutes since the event before, and the codes. Where there are fewer events of one kind
    than of another, the oldest steps lack it. Raises ``SettingError`` if there is no such feature, or they are of
    several entities.

    >>> steps = steps_of(Feature.parse("last 1 of amount by card over 1d") + Feature.parse("gap 2 by card over 1d"))
    >>> for channel in steps.channels:
    ...     print(channel.columns)
    ('amount_last_1_1d_by_card', 'amount')
    ('gap_2_1d_by_card', 'gap_1_1d_by_card')
    """
    events = [feature for feature in features if feature.measure in OF_EVENT]
    entities = {(feature.by, feature.window) for feature in events}
    if len(entities) != 1:
        raise SettingError(
            f"A sequence expected features such as `last 8 of amount by card_id over 90d` of one entity and window, "
            f"received {len(entities)} of these. Add them to `features.history`, of one entity only."
        )
    found: dict[tuple[str, ...], dict[int, Feature]] = {}
    for feature in events:
        found.setdefault((feature.measure, *feature.of), {})[feature.back] = feature
    (by, window), *_ = entities
    past = max(max(own) - (measure == "gap") for (measure, *_), own in found.items())
    channels = []
    for (measure, *of), own in found.items():
        if measure == "last":
            columns = [*(own[back].name if back in own else None for back in range(past, 0, -1)), of[0]]
        else:
            ahead = int(measure == "gap")
            columns = [own[back].name if (back := step + ahead) in own else None for step in range(past, -1, -1)]
        said_as = Feature("since", by=by, window=window).name if measure == "gap" else of[0]
        channels.append(Channel(tuple(columns), coded=measure == "code", said_as=said_as))
    return Steps(tuple(channels), beside=tuple(feature.name for feature in events))


@dataclass(frozen=True)
class EventWindow:
    """What was learnt about a window's channels. Make one with ``EventWindow.fit``.

    - ``steps``: the columns.
    - ``centre``, ``scale``: of the logarithm of each channel, over all its events; 0 and 1 for codes.
    """

    steps: Steps
    centre: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(cls, rows: pd.DataFrame, steps: Steps) -> Self:
        """Learn the scale of each channel from usual rows.

        >>> steps = Steps((Channel(("before", "now")),))
        >>> window = EventWindow.fit(pd.DataFrame({"before": [0.0, 1.0], "now": [0.0, np.nan]}), steps)
        >>> round(window.centre[0], 3)  # of log(1), log(2), log(1)
        0.231
        """
        centre, scale = [], []
        for channel in steps.channels:
            named = [name for name in channel.columns if name is not None]
            values = _logarithms(rows[named].to_numpy(dtype=np.float64, na_value=np.nan))
            values = values[~np.isnan(values)]
            plain = channel.coded or not len(values)
            centre.append(0.0 if plain else float(values.mean()))
            varies = not plain and np.ptp(values) > float_resolution(values)
            scale.append(float(values.std()) if varies else 1.0)
        return cls(steps, tuple(centre), tuple(scale))

    @property
    def width(self) -> int:
        """Inputs an event is made of."""
        return sum(CODES if channel.coded else 1 for channel in self.steps.channels)

    def encode(self, rows: pd.DataFrame) -> Floats:
        """The window of each cleaned row as it stands in the table, shape (n_rows, length * n_channels)."""
        found = np.full((len(rows), len(self.steps.columns)), np.nan)
        for place, name in enumerate(self.steps.columns):
            if name is not None:
                found[:, place] = rows[name].to_numpy(dtype=np.float64, na_value=np.nan)
        return found

    def unscale(self, expected: NDArray[np.floating[Any]]) -> Floats:
        """What the network expects, (n_rows, length * width), in the units of ``encode``; codes as the likeliest."""
        inputs = np.asarray(expected, dtype=np.float64).reshape(len(expected), self.steps.length, self.width)
        found, at = [], 0
        for channel, centre, scale in zip(self.steps.channels, self.centre, self.scale, strict=True):
            if channel.coded:
                found.append(inputs[:, :, at : at + CODES].argmax(axis=2).astype(np.float64))
            else:
                logs = inputs[:, :, at] * scale + centre
                found.append(np.sign(logs) * np.expm1(np.abs(logs)))
            at += CODES if channel.coded else 1
        return np.stack(found, axis=2).reshape(len(expected), -1)

    def to_onnx(self) -> onnx.ModelProto:
        """``window`` → ``steps`` (n, length * width), NaN where unknown, and ``there`` (n, length * n_channels)."""
        from detector.onnx import text as onnx_text

        length, coded = self.steps.length, np.array([channel.coded for channel in self.steps.channels])
        every = np.arange(length * len(coded)).reshape(length, len(coded))
        numbers, codes = every[:, ~coded].ravel(), every[:, coded].ravel()
        n_numbers, n_codes = (~coded).sum(), coded.sum()
        constants: dict[str, Any] = {"nought": np.float64(0), "one": np.float64(1), "missing": np.float32(np.nan)}
        lines = ["unknown = IsNaN (window)", "gone = Cast <to = 1> (unknown)", "unit = Cast <to = 1> (one)"]
        lines.append("there = Sub (unit, gone)")
        parts: list[str] = []
        places: list[int] = []
        if n_numbers:
            constants |= {"numbers": numbers, "low": np.float32(-MOST), "high": np.float32(MOST)}
            for name in ("centre", "scale"):
                constants[name] = np.tile(np.array(getattr(self, name))[~coded], length)
            lines += [
                "number = Gather <axis = 1> (window, numbers)",
                "number_gone = IsNaN (number)",
                "known = Where (number_gone, nought, number)",
                "size = Abs (known)",
                "grown = Add (size, one)",
                "logged = Log (grown)",
                "sign = Sign (known)",
                "signed = Mul (sign, logged)",
                "centred = Sub (signed, centre)",
                "divided = Div (centred, scale)",
                "narrow = Cast <to = 1> (divided)",
                "clipped = Clip (narrow, low, high)",
                "number_steps = Where (number_gone, missing, clipped)",
            ]
            parts.append("number_steps")
        if n_codes:
            constants |= {"codes": codes, "last": np.array([2]), "levels": np.arange(CODES, dtype=np.float64)}
            constants["flat"] = np.array([0, len(codes) * CODES])
            lines += [
                "code = Gather <axis = 1> (window, codes)",
                "wide = Unsqueeze (code, last)",
                "wide_gone = IsNaN (wide)",
                "same = Equal (wide, levels)",
                "hot = Cast <to = 1> (same)",
                "marked = Where (wide_gone, missing, hot)",
                "code_steps = Reshape (marked, flat)",
            ]
            parts.append("code_steps")
        for step in range(length):
            seen_numbers, seen_codes = step * n_numbers, step * n_codes
            for each in coded:
                start = len(numbers) + seen_codes * CODES if each else seen_numbers
                places += range(start, start + (CODES if each else 1))
                seen_codes, seen_numbers = seen_codes + each, seen_numbers + (not each)
        constants["places"] = np.array(places)
        lines += [f"joined = Concat <axis = 1> ({', '.join(parts)})", "steps = Gather <axis = 1> (joined, places)"]
        outputs = [f"float[n, {length * self.width}] steps", f"float[n, {every.size}] there"]
        return onnx_text.model("window", [f"double[n, {every.size}] window"], outputs, lines, constants)

    def score_onnx(self, own_weight: float) -> onnx.ModelProto:
        """``residual``, ``there`` → ``sequence``, the member's score, and ``blame``, what each column adds to it.

        The row itself counts ``own_weight``, all that was before it the rest.
        """
        from detector.onnx import text as onnx_text

        n_channels, size = len(self.steps.channels), len(self.steps.columns)
        widths = [CODES if channel.coded else 1 for channel in self.steps.channels] * self.steps.length
        owner = np.repeat(np.arange(size), widths)
        own = np.arange(size)[:, None] >= size - n_channels
        constants = {
            "fold": (owner[:, None] == np.arange(size)).astype(np.float32),
            "own": own.astype(np.float32),
            "before": (~own).astype(np.float32),
            "own_row": own.T.astype(np.float32) * np.float32(own_weight),
            "before_row": (~own).T.astype(np.float32) * np.float32(1 - own_weight),
            "ones": np.ones((size, 1), dtype=np.float32),
            "one": np.float32(1),
            "floor": np.float32(FLOOR),
        }
        lines = ["folded = MatMul (residual, fold)"]
        for name in ("own", "before"):
            lines += [
                f"{name}_seen = MatMul (there, {name})",
                f"{name}_several = Max ({name}_seen, one)",
                f"{name}_shares = Div ({name}_row, {name}_several)",
            ]
        lines += [
            "shares = Add (own_shares, before_shares)",
            "blame = Mul (folded, shares)",
            "total = MatMul (blame, ones)",
            "lifted = Add (total, floor)",
            "sequence = Log (lifted)",
        ]
        inputs = [f"float[n, {len(owner)}] residual", f"float[n, {size}] there"]
        return onnx_text.model("score", inputs, ["float[n, 1] sequence", f"float[n, {size}] blame"], lines, constants)

    def state(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"steps": self.steps.to_dict(), "centre": list(self.centre), "scale": list(self.scale)}

    @classmethod
    def from_state(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``state``."""
        return cls(Steps.from_dict(values["steps"]), tuple(values["centre"]), tuple(values["scale"]))


def _logarithms(values: Floats) -> Floats:
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))
