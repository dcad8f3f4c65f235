import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from detector import errors
from detector.errors import DetectorError, nearest

ROOT = Path(__file__).parents[1]
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


def test_every_extra_names_its_packages() -> None:
    """What ``pyproject.toml`` asks for in an extra is what the error about a missing package knows it by."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {"scikit-learn": "sklearn", "psycopg": None, "tzdata": None}  # SQLAlchemy and zoneinfo import the others
    for extra, packages in errors._EXTRAS.items():
        asked = {re.split(r"[\[><=]", line)[0] for line in wanted[extra]}
        found = {names.get(name, name.replace("-", "_")) for name in asked} - {None}
        assert found <= set(packages), extra


def test_command_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    """What only scores has no scikit-learn: fitting names the extra, by command and by the library."""
    code = "import sys; sys.modules['sklearn'] = None; "
    for use in ("import detector; detector.TabularDetector", "from pipelines.cli import app; app(sys.argv[1:])"):
        command = [sys.executable, "-c", code + use, "demo", "--folder", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

        assert done.returncode != 0
        assert "This needs sklearn, which is not installed. Install it with: pip install" in done.stderr
