import inspect

import pytest

from detector import errors
from detector.errors import DetectorError, nearest

RAISED = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, DetectorError) and error is not DetectorError
]


@pytest.mark.parametrize("error", RAISED)
def test_error_is_of_the_tree_and_of_a_built_in(error: type[DetectorError]) -> None:
    """Who catches DetectorError gets everything; who catches the fitting built-in gets it as well."""
    built_in = [base for base in error.__mro__ if base.__module__ == "builtins"]

    assert issubclass(error, DetectorError)
    assert {base.__name__ for base in built_in} - {"Exception", "BaseException", "object"}


@pytest.mark.parametrize("error", RAISED)
def test_error_says_only_its_message(error: type[DetectorError]) -> None:
    """``str`` of an error is the sentence it was raised with, for OSError's children too."""
    assert str(error("No such column.")) == "No such column."


@pytest.mark.parametrize("error", RAISED)
def test_error_is_drawn_in_the_tree(error: type[DetectorError]) -> None:
    """The tree in the module's docstring names every error and its built-ins."""
    line = next(line for line in (errors.__doc__ or "").splitlines() if f"── {error.__name__} " in line)

    assert all(base.__name__ in line for base in error.__bases__ if base is not DetectorError)


def test_unfitted_error_hides_from_hasattr() -> None:
    """An attribute that exists only after fit reads as absent before, as scikit-learn expects."""

    class Unfitted:
        @property
        def scorer_(self) -> None:
            raise errors.UnfittedError("Call fit first.")

    assert not hasattr(Unfitted(), "scorer_")


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("amuont", ["amount", "country"], "Did you mean 'amount'?"),
        ("AMOUNT", ["amount", "country"], "Did you mean 'amount'?"),
        ("zzz", ["b", "a"], "Known: a, b."),
        ("zzz", [], "There are none."),
    ],
)
def test_nearest_names_what_was_meant(name: str, known: list[str], said: str) -> None:
    """A misspelling or another case is recognised; otherwise all names are listed."""
    assert nearest(name, known) == said


def test_nearest_shortens_a_long_list() -> None:
    """A table of a thousand columns does not fill the screen."""
    said = nearest("zzz", [f"column {i}" for i in range(25)])

    assert said.endswith("and 5 more.")
    assert said.count(",") == 19
