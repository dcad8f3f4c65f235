from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import DataError, SettingError, ShapeError
from detector.events import How, Padded, pad

TOKENS = st.lists(st.lists(st.integers(0, 99), max_size=12), min_size=1, max_size=6)


def _padded(sequences: list[Any], length: int, overlap: int) -> Padded:
    """In segments, with as much overlap as fits."""
    return pad(sequences, length=length, long="segment", overlap=min(overlap, length - 1), empty="keep")


@given(TOKENS, st.integers(1, 6), st.integers(0, 5))
def test_segments_are_what_one_would_cut(sequences: list[list[int]], length: int, overlap: int) -> None:
    """Sequence by sequence, from each segment's start on, until nothing new is left."""
    overlap = min(overlap, length - 1)
    lines, owners, offsets = [], [], []
    for owner, sequence in enumerate(sequences):
        start = 0
        while True:
            part = sequence[start : start + length]
            lines.append(part + [0] * (length - len(part)))
            owners.append(owner)
            offsets.append(start)
            if start + length >= len(sequence):
                break
            start += length - overlap

    padded = _padded(sequences, length, overlap)

    assert padded.values.tolist() == lines
    assert padded.sequence.tolist() == owners
    assert padded.offset.tolist() == offsets
    held = [min(length, len(sequences[owner]) - offset) for owner, offset in zip(owners, offsets, strict=True)]
    assert padded.mask.sum(axis=1).tolist() == held
    assert not padded.dropped.any()


@given(TOKENS, st.integers(1, 6), st.integers(0, 5))
def test_segments_give_the_sequences_back(sequences: list[list[int]], length: int, overlap: int) -> None:
    """The inverse is exact, empty sequences included."""
    padded = _padded(sequences, length, overlap)

    assert [own.tolist() for own in padded.to_sequences()] == sequences


@given(TOKENS, st.integers(1, 6))
def test_truncation_keeps_the_last_events(sequences: list[list[int]], length: int) -> None:
    """What happened last says most; how much was dropped is told."""
    padded = pad(sequences, length=length, empty="keep")

    assert len(padded) == len(sequences)
    assert [own.tolist() for own in padded.to_sequences()] == [own[-length:] for own in sequences]
    assert padded.dropped.tolist() == [max(len(own) - length, 0) for own in sequences]


@given(TOKENS, st.integers(1, 6), st.integers(0, 5), st.sampled_from(["overlap", "least"]))
def test_events_get_what_their_segments_say(sequences: list[list[int]], length: int, overlap: int, how: How) -> None:
    """Event by event: the mean or the least of the known errors of all segments that hold it."""
    padded = _padded(sequences, length, overlap)
    rng = np.random.default_rng(0)
    errors = rng.random(padded.mask.shape)
    errors[rng.random(errors.shape) < 0.1] = np.nan

    events = padded.to_events(errors, how=how)

    for owner, (sequence, own) in enumerate(zip(sequences, events, strict=True)):
        assert len(own) == len(sequence)
        for event in range(len(sequence)):
            lines = np.flatnonzero((padded.sequence == owner) & (padded.offset <= event))
            found = [
                errors[line, event - padded.offset[line]] for line in lines if event < padded.offset[line] + length
            ]
            known = [error for error in found if not np.isnan(error)]
            expected = (min(known) if how == "least" else np.mean(known)) if known else np.nan
            np.testing.assert_allclose(own[event], expected)


def test_dropped_events_have_no_error() -> None:
    """They were not looked at."""
    events = pad([[1, 2, 3]], length=2).to_events(np.array([[5.0, 6.0]]))

    np.testing.assert_array_equal(events[0], [np.nan, 5, 6])


def test_vectors_keep_their_gaps() -> None:
    """A vector may lack a number; a line's end is told by the mask, not by NaN."""
    padded = pad([np.array([[1.0, np.nan], [3.0, 4.0]]), [[5, 6]]])

    np.testing.assert_array_equal(padded.values, [[[1, np.nan], [3, 4]], [[5, 6], [0, 0]]])
    assert padded.mask.tolist() == [[True, True], [True, False]]
    assert [own.shape for own in padded.to_sequences()] == [(2, 2), (1, 2)]


def test_single_floats_are_vectors_of_one() -> None:
    """A list of ragged measurements needs no inner lists; an empty one fits in."""
    padded = pad([[0.5, 1.5], [], [2.5]], empty="keep")

    assert padded.values[:, :, 0].tolist() == [[0.5, 1.5], [0.0, 0.0], [2.5, 0.0]]


def test_fill_stands_behind_the_last_event() -> None:
    """Where 0 is a token, another number may fill."""
    assert pad([[0, 0], [0]], fill=-1).values.tolist() == [[0, 0], [0, -1]]


def test_only_empty_sequences_make_a_line_each() -> None:
    """An array must have a width, even if nothing is in it."""
    padded = pad([[], []], empty="keep")

    assert padded.values.tolist() == [[0], [0]]
    assert not padded.mask.any()


def test_decoded_values_come_back_as_sequences() -> None:
    """Any other values of the same events, of any further dimensions."""
    padded = pad([[1, 2, 3], [4]], length=2, long="segment")

    decoded = padded.to_sequences(padded.values[:, :, None] * np.array([1.0, 10.0]))

    assert [own.tolist() for own in decoded] == [[[1, 10], [2, 20], [3, 30]], [[4, 40]]]


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "at least one sequence, got none"),
        ([[1], []], "Sequence 1 has no events.*empty='keep'"),
        ([[1], ["a"]], "Sequence 1 should hold whole numbers or vectors of numbers, but it is <U1.*names into numbers"),
        ([[1], [None]], "Sequence 1 should hold whole numbers or vectors of numbers, but it is object"),
        ([[True]], "but it is bool"),
        ([5, 6], r"Sequence 0 should hold .* of shape \(\). .*a single number n into \[n\]"),
        ([np.zeros((2, 2, 2))], r"of shape \(2, 2, 2\)"),
        ([[[1, 2], [3]]], "vectors of sequence 0 differ in width"),
        ([[[1, 2]], [[1, 2, 3]]], "Sequence 1 has vectors of 3 numbers, sequence 0 of 2"),
        ([[1.5], [1, 2]], "Sequence 1 holds whole numbers, sequence 0 floats or vectors"),
        ([[[1, 2]], [0.5]], "Sequence 1 has vectors of 1 numbers, sequence 0 of 2"),
    ],
)
def test_pad_refuses_what_is_no_sequence(sequences: list[Any], message: str) -> None:
    """The message names the first sequence that does not fit."""
    with pytest.raises(DataError, match=message):
        pad(sequences)


def test_long_sequences_can_be_refused() -> None:
    """Where nothing may be lost."""
    with pytest.raises(
        DataError, match="Sequence 1 has 3 events, a line 2. Choose a greater length, or long='truncate'"
    ):
        pad([[1], [1, 2, 3]], length=2, long="reject")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"length": 0}, "a length of at least 1. Received: length=0"),
        ({"long": "truncated"}, "no long='truncated'. Did you mean 'truncate'?"),
        ({"empty": "skip"}, "no empty='skip'. Known: keep, reject."),
        ({"overlap": 1}, "only with long='segment'. Received: overlap=1, long='truncate'"),
        ({"overlap": -1, "long": "segment"}, "an overlap of at least 0"),
        ({"overlap": 2, "length": 2, "long": "segment"}, "shorter than a line. Received: overlap=2, length=2"),
    ],
)
def test_pad_refuses_settings_without_meaning(setting: dict[str, Any], message: str) -> None:
    """Before it looks at the sequences."""
    with pytest.raises(SettingError, match=message):
        pad([[1, 2, 3]], **setting)


def test_way_back_refuses_other_lines() -> None:
    """Values of other lines, or more than one error an event."""
    padded = pad([[1, 2, 3]])

    with pytest.raises(ShapeError, match=r"for 1 lines of 3 events, got an array of shape \(1, 2\)"):
        padded.to_sequences(np.zeros((1, 2)))
    with pytest.raises(ShapeError, match=r"of shape \(1, 3\), got \(1, 3, 2\). Sum or average"):
        padded.to_events(np.zeros((1, 3, 2)))


def test_way_back_refuses_an_unknown_way() -> None:
    """The nearest known one is named."""
    wrong: How = "leest"  # type: ignore[assignment]

    with pytest.raises(SettingError, match="no how='leest'. Did you mean 'least'?"):
        pad([[1]]).to_events(np.zeros((1, 1)), how=wrong)
