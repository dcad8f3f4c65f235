"""Sequences of events of any length → padded, masked arrays, and back.

An event is a whole number, a token such as a code of a merchant category, or a vector of numbers. What is too long for
one line of the array is cut down to its last events, or laid out in segments that may overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detector.errors import DataError, SettingError, ShapeError, nearest

Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]
Long = Literal["truncate", "segment", "reject"]
Empty = Literal["reject", "keep"]
How = Literal["overlap", "least"]


@dataclass(frozen=True)
class Padded:
    """Sequences as one array. Make one with ``pad``.

    Parameters
    ----------
    values : array of shape (n_lines, length), int64, or (n_lines, length, width), float64
        Tokens or vectors; the fill value behind the last event.
    mask : boolean array of shape (n_lines, length)
        Where there are events.
    sequence, offset : array of shape (n_lines,)
        Which sequence each line holds, and the place in it of the line's first event.
    lengths : array of shape (n_sequences,)
        How many events each sequence had.
    """

    values: NDArray[Any]
    mask: Flags
    sequence: Counts
    offset: Counts
    lengths: Counts

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dropped(self) -> Counts:
        """How many events of each sequence no line holds."""
        first = self.lengths.copy()
        np.minimum.at(first, self.sequence, self.offset)
        return first

    def to_sequences(self, values: NDArray[Any] | None = None) -> list[NDArray[Any]]:
        """The inverse of ``pad``: each sequence, without the events that were dropped.

        Parameters
        ----------
        values : array of shape (n_lines, length, ...), optional
            Other values of the same events, such as decoded ones; where segments overlap, the later segment's. The
            padded values if not given.

        Raises
        ------
        ShapeError
            If ``values`` has other lines or another length.

        >>> pad([[5, 6, 7], [8]], length=2, long="segment").to_sequences()
        [array([5, 6, 7]), array([8])]
        """
        values = self.values if values is None else values
        self._check(values)
        flat = np.empty((self.lengths.sum(), *values.shape[2:]), dtype=values.dtype)
        flat[self._places()[self.mask]] = values[self.mask]
        ends = np.cumsum(self.lengths)
        bounds = zip(ends - self.lengths + self.dropped, ends, strict=True)
        return [flat[first:end] for first, end in bounds]

    def to_events(self, errors: NDArray[Any], *, how: How = "overlap") -> list[NDArray[np.float64]]:
        """One error an event, for each sequence; NaN where an event was dropped.

        Parameters
        ----------
        errors : array of shape (n_lines, length)
            What lies behind the mask is passed over; NaN is unknown.
        how : {"overlap", "least"}
            The mean or the least over the segments that hold the event.

        Raises
        ------
        ShapeError
            If ``errors`` has another shape.
        SettingError
            If ``how`` is unknown.

        >>> padded = pad([[5, 6, 7]], length=2, long="segment", overlap=1)
        >>> padded.to_events(np.array([[1.0, 2.0], [4.0, 8.0]]))
        [array([1., 3., 8.])]
        """
        if how not in get_args(How):
            raise SettingError(f"to_events knows no how={how!r}. {nearest(how, get_args(How))}")
        self._check(errors)
        if errors.ndim != 2:
            raise ShapeError(
                f"to_events expected one error an event, of shape {self.mask.shape}, got {errors.shape}. Sum or "
                f"average over the last axis first."
            )
        known = self.mask & ~np.isnan(errors)
        places, new = self._places()[known], errors[known].astype(np.float64)
        total = self.lengths.sum()
        if how == "overlap":
            count = np.bincount(places, minlength=total)
            flat = np.bincount(places, weights=new, minlength=total) / np.where(count, count, np.nan)
        else:
            flat = np.full(total, np.nan)
            np.fmin.at(flat, places, new)
        return np.split(flat, np.cumsum(self.lengths)[:-1])

    def _places(self) -> Counts:
        """The place of each cell among the events of all sequences."""
        begins = np.cumsum(self.lengths) - self.lengths
        first: Counts = begins[self.sequence] + self.offset
        return first[:, None] + np.arange(self.mask.shape[1])

    def _check(self, values: NDArray[Any]) -> None:
        if values.shape[:2] != self.mask.shape:
            raise ShapeError(
                f"Expected values for {len(self)} lines of {self.mask.shape[1]} events, got an array of shape "
                f"{values.shape}. Keep the lines in the order that pad() gave."
            )


def pad(
    sequences: Sequence[Any],
    *,
    length: int | None = None,
    long: Long = "truncate",
    overlap: int = 0,
    empty: Empty = "reject",
    fill: int = 0,
) -> Padded:
    """Lay sequences of any lengths into one array, line by line.

    Parameters
    ----------
    sequences : sequence of sequences
        All of whole numbers, tokens; or all of vectors of one width. Single floats are vectors of one number. NaN
        stays in a vector.
    length : int, optional
        Events in a line; as many as the longest sequence has, if not given.
    long : {"truncate", "segment", "reject"}
        What becomes of a longer sequence: its last events are kept; it takes several lines; or it is an error.
    overlap : int
        How many events a segment repeats of the one before, so that each has a past.
    empty : {"reject", "keep"}
        Whether a sequence without events is an error, or a line of padding.
    fill : int
        What stands behind the last event.

    Raises
    ------
    DataError
        If there is no sequence, one is empty or too long and that is rejected, or one holds anything but tokens or
        vectors of one width.
    SettingError
        If a setting has no meaning.

    >>> padded = pad([[5, 6, 7], [8]], length=2)
    >>> padded.values
    array([[6, 7],
           [8, 0]])
    >>> padded.mask.tolist(), padded.dropped.tolist()
    ([[True, True], [True, False]], [1, 0])
    """
    _check_settings(length, long, overlap, empty)
    events = _read(sequences)
    lengths = np.array([len(sequence) for sequence in events], dtype=np.int64)
    if empty == "reject" and not lengths.all():
        raise DataError(
            f"Sequence {int(np.argmin(lengths))} has no events. Leave it out, or choose empty='keep' for a line "
            f"of padding."
        )
    length = max(int(lengths.max()), 1) if length is None else length
    if long == "reject" and lengths.max() > length:
        worst = int(np.argmax(lengths > length))
        raise DataError(
            f"Sequence {worst} has {lengths[worst]} events, a line {length}. Choose a greater length, or "
            f"long='truncate' or 'segment'."
        )
    if long == "segment":
        if overlap >= length:
            raise SettingError(f"An overlap must be shorter than a line. Received: overlap={overlap}, length={length}.")
        many = np.maximum(-(-(lengths - overlap) // (length - overlap)), 1)
    else:
        many = np.ones(len(lengths), dtype=np.int64)
    sequence = np.repeat(np.arange(len(lengths)), many)
    nth = np.arange(len(sequence)) - np.repeat(np.cumsum(many) - many, many)
    offset = nth * (length - overlap) if long == "segment" else np.maximum(lengths - length, 0)
    mask = np.arange(length) < (lengths[sequence] - offset)[:, None]
    flat = np.concatenate(events)
    values = np.full((*mask.shape, *flat.shape[1:]), fill, dtype=flat.dtype)
    padded = Padded(values, mask, sequence, offset, lengths)
    values[mask] = flat[padded._places()[mask]]
    return padded


def _read(sequences: Sequence[Any]) -> list[NDArray[Any]]:
    """Each sequence as an array, all of tokens or all of vectors of one width."""
    if not len(sequences):
        raise DataError("pad expected at least one sequence, got none. Give sequences.")
    events = [_read_one(place, sequence) for place, sequence in enumerate(sequences)]
    filled = [place for place, sequence in enumerate(events) if len(sequence)]
    if any(events[place].dtype.kind == "f" for place in filled):
        if mixed := [place for place in filled if events[place].ndim == 1 and events[place].dtype.kind != "f"]:
            numbers = next(place for place in filled if place not in mixed)
            raise DataError(
                f"Sequence {mixed[0]} holds whole numbers, sequence {numbers} floats or vectors. Give all as whole "
                f"numbers, or all as floats or vectors."
            )
        events = [sequence[:, None] if sequence.ndim == 1 else sequence for sequence in events]
        first = filled[0]
        width = events[first].shape[1]
        for place in filled:
            if events[place].shape[1] != width:
                raise DataError(
                    f"Sequence {place} has vectors of {events[place].shape[1]} numbers, sequence {first} of {width}. "
                    f"Give each event the same numbers, NaN where one is missing."
                )
        return [sequence if len(sequence) else np.empty((0, width)) for sequence in events]
    return [sequence.astype(np.int64) for sequence in events]


def _read_one(place: int, sequence: Any) -> NDArray[Any]:
    try:
        events = np.asarray(sequence)
    except ValueError as error:
        raise DataError(
            f"The vectors of sequence {place} differ in width. Give each event the same numbers, NaN where one is "
            f"missing."
        ) from error
    if not events.size:
        return np.empty(0, dtype=np.int64)
    if events.ndim not in (1, 2) or events.dtype.kind not in "iuf":
        raise DataError(
            f"Sequence {place} should hold whole numbers or vectors of numbers, but it is {events.dtype} of shape "
            f"{events.shape}. Turn names into numbers first, and a single number n into [n]."
        )
    return events if events.ndim == 1 and events.dtype.kind in "iu" else events.astype(np.float64)


def _check_settings(length: int | None, long: str, overlap: int, empty: str) -> None:
    if length is not None and length < 1:
        raise SettingError(f"pad expected a length of at least 1. Received: length={length}.")
    if overlap < 0 or (overlap and long != "segment"):
        raise SettingError(
            f"pad expected an overlap of at least 0, and only with long='segment'. Received: overlap={overlap}, "
            f"long={long!r}."
        )
    for name, value, known in (("long", long, get_args(Long)), ("empty", empty, get_args(Empty))):
        if value not in known:
            raise SettingError(f"pad knows no {name}={value!r}. {nearest(value, known)}")
