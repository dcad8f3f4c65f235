"""Lists of tokens of any lengths ↔ one array of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.checks import one_of
from detector.errors import DataError, ShapeError

PADDING, UNKNOWN, END, FIRST = 0, 1, 2, 3

Token = int | str
Sequences = Sequence[Sequence[Token]]


@dataclass(frozen=True)
class Vocabulary:
    """The tokens known, and how many of them fit.

    - ``tokens``: in order; the first is number 3. Before them are padding, the unknown token and the end.
    - ``length``: tokens of the longest sequence.
    """

    tokens: tuple[Token, ...]
    length: int

    @classmethod
    def fit(cls, sequences: Sequences, *, most: int, length: int | None = None) -> Self:
        """Learn the most frequent tokens, and the greatest length unless it is given.

        >>> Vocabulary.fit([[7, 7, 5], [7, 9]], most=2)
        Vocabulary(tokens=(5, 7), length=3)
        """
        counts = Counter(token for sequence in sequences for token in sequence)
        if not counts:
            raise DataError("There is not a single token in the sequences. Give at least one that is not empty.")
        frequent = sorted(counts, key=lambda token: (-counts[token], str(token), token))[:most]
        return cls(tuple(sorted(frequent)), length or max(len(sequence) for sequence in sequences))

    @property
    def size(self) -> int:
        """Numbers in use."""
        return FIRST + len(self.tokens)

    def numbers(self, sequences: Sequences, *, unknown: str = "token", longer: str = "truncate") -> NDArray[np.float32]:
        """One row a sequence: its tokens' numbers, the end, padding. Of a longer one the last tokens are kept.

        Raises ``DataError`` if ``unknown`` is "reject" and a token is not known; ``ShapeError`` if ``longer`` is
        "reject" and a sequence is longer than ``length``.

        >>> Vocabulary((5, 7), 3).numbers([[7, 6], [5, 5, 5, 7]])
        array([[4., 1., 2., 0.],
               [3., 3., 4., 2.]], dtype=float32)
        """
        known = {token: number for number, token in enumerate(self.tokens, FIRST)}
        rows = np.zeros((len(sequences), self.length + 1), dtype=np.float32)
        for i, sequence in enumerate(sequences):
            if longer == "reject" and len(sequence) > self.length:
                raise ShapeError(
                    f"Expected sequences of at most {self.length} tokens, received one of {len(sequence)} (row {i}). "
                    f'Cut it, or set longer="truncate" to score its last {self.length}.'
                )
            kept = sequence[-self.length :]
            found = [known.get(token, UNKNOWN) for token in kept]
            if unknown == "reject" and UNKNOWN in found:
                raise DataError(
                    f"Token {kept[found.index(UNKNOWN)]!r} (row {i}) is not in the vocabulary of {len(self.tokens)} "
                    f'tokens. Fit on rows that have it, or set unknown="token" to treat it as the unknown token.'
                )
            rows[i, : len(found) + 1] = [*found, END]
        return rows

    def sequences(self, rows: NDArray[np.floating[Any]]) -> list[list[Token]]:
        """The tokens before each row's first end or padding.

        >>> Vocabulary((5, 7), 3).sequences(np.array([[4, 3, 2, 4]]))
        [[7, 5]]
        """
        answer = []
        for row in rows.astype(int).tolist():
            stop = next((at for at, number in enumerate(row) if number in (END, PADDING)), len(row))
            answer.append([self.tokens[number - FIRST] for number in row[:stop] if number >= FIRST])
        return answer


def check_sequences(sequences: Any, *, least: int = 1) -> Sequences:
    """Refuse what is not a list of lists of tokens, all integers or all text.

    Raises ``DataError`` if there are too few, or something is neither an integer nor text, or both occur.
    """
    if isinstance(sequences, str | bytes) or not isinstance(sequences, Iterable):
        raise DataError(f"Expected a list of token lists, received {type(sequences).__name__}. Wrap it in a list.")
    rows = [_tokens(row, i) for i, row in enumerate(sequences)]
    if len(rows) < least:
        raise DataError(f"Expected at least {least} sequences, received n_samples = {len(rows)}. Give more.")
    kinds = {type(token).__name__ for row in rows for token in row}
    if not kinds <= {"int"} and not kinds <= {"str"}:
        raise DataError(
            f"Expected tokens that are all integers or all text, received {', '.join(sorted(kinds))}. Number your "
            f"tokens, or turn them all into text."
        )
    return rows


def check_policies(unknown: str, longer: str) -> None:
    """Refuse policies that do not exist."""
    one_of("unknown", unknown, ("token", "reject"))
    one_of("longer", longer, ("truncate", "reject"))


def _tokens(row: Any, at: int) -> list[Any]:
    if isinstance(row, str | bytes) or not isinstance(row, Iterable):
        raise DataError(
            f"Expected a list of tokens in row {at}, received {row!r}. A single sequence goes into a list of its own."
        )
    return [token.item() if isinstance(token, np.integer | np.str_) else token for token in row]
