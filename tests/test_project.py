"""What the project promises about itself: names, versions, dependencies, documentation."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import detector
import pipelines
from pipelines.cli import reference as command_reference
from pipelines.config import reference

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKED = [
    line
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
MODULES = sorted(
    found.name
    for package in (detector, pipelines)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]


def run(code: str) -> str:
    """Run a line of Python at the root of the project, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_mlflow_folder_holds_no_python() -> None:
    """A Python file in mlflow/ could be imported instead of the package."""
    assert list((ROOT / "mlflow").rglob("*.py")) == []


def test_mlflow_package_is_not_shadowed() -> None:
    """From the root of the project, ``import mlflow`` finds the installed package."""
    assert run("import mlflow; print(mlflow.__version__)") == metadata.version("mlflow")


def test_import_detector_is_cheap() -> None:
    """Importing the library loads none of what it may need later, nor does listing its names."""
    heavy = ("keras", "mlflow", "onnx", "onnxruntime", "pandas", "sklearn", "tensorflow")

    loaded = run(f"import sys, detector; dir(detector); print([m for m in {heavy} if m in sys.modules])")

    assert loaded == "[]"


@pytest.mark.parametrize("name", detector.__all__)
def test_public_name_can_be_used(name: str) -> None:
    """Each public name of the library exists, knows its home, and is documented."""
    found = getattr(detector, name)

    assert found.__module__.startswith("detector.")
    assert found.__doc__


def test_public_names_are_sorted_and_listed() -> None:
    """``dir`` shows what ``__all__`` promises, in order."""
    assert sorted(detector.__all__) == detector.__all__
    assert set(dir(detector)) == {*detector.__all__, "__version__"}


def test_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name is an ordinary error."""
    with pytest.raises(AttributeError, match="no attribute 'TabularDetecter'"):
        _ = detector.TabularDetecter


@pytest.mark.parametrize("name", MODULES)
def test_module_keeps_its_all(name: str) -> None:
    """Every module can be imported, says what it is for, and has what its ``__all__`` names."""
    module = import_module(name)

    names = getattr(module, "__all__", [])

    assert module.__doc__ or name.count(".") == 0 or module.__file__.endswith("__init__.py")
    assert [missing for missing in names if not hasattr(module, missing)] == []
    assert len(set(names)) == len(names)


def test_version_is_the_same_everywhere() -> None:
    """The library, the package's metadata and pyproject.toml agree."""
    assert PROJECT["project"]["version"] == metadata.version(PROJECT["project"]["name"])
    assert PROJECT["project"]["version"] == getattr(detector, "__version__")  # noqa: B009  made by __getattr__


def test_changelog_starts_with_unreleased() -> None:
    """The first entry is what is not released yet."""
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[0] == "Unreleased"


def test_extras_are_there() -> None:
    """The extras that the documentation names exist."""
    assert set(PROJECT["project"]["optional-dependencies"]) == {
        *("train", "service", "stream", "spark", "bench", "dev")
    }


def test_lock_holds_exact_versions_only() -> None:
    """The lock file names no address and no path, and pins every line."""
    assert [line for line in LOCKED if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


@pytest.mark.parametrize("extra", ["", "train", "service", "dev"])
def test_lock_satisfies_pyproject(extra: str) -> None:
    """What pyproject.toml asks for is locked, in a version it allows."""
    versions = {canonical(name): version for name, version in (line.split("==") for line in LOCKED)}
    wanted = PROJECT["project"]["optional-dependencies"][extra] if extra else PROJECT["project"]["dependencies"]

    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[canonical(requirement.name)]), requirement


def test_lock_holds_no_peer() -> None:
    """Peers to compare with and Spark stay out of the ordinary installation."""
    names = {canonical(line.split("==")[0]) for line in LOCKED}

    assert names.isdisjoint({"polars", "pyod", "torch", "pyspark"})


@pytest.mark.parametrize("path", [".ci/run", ".github/workflows/ci.yml", ".pre-commit-config.yaml"])
def test_every_gate_calls_the_same_targets(path: str) -> None:
    """The three places that check a change run `make check` and `make test`."""
    text = (ROOT / path).read_text(encoding="utf-8")

    assert "make check" in text
    assert "make test" in text


def test_ci_run_can_be_executed() -> None:
    """``.ci/run`` is a program."""
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_documented_make_targets_exist(path: Path) -> None:
    """Every `make` target that a page names is in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    named = set(re.findall(r"(?:^|`)make ([a-z]+)", path.read_text(encoding="utf-8"), re.MULTILINE))

    assert named <= targets


def pages_of(entries: list[dict[str, Any]]) -> Iterator[str]:
    """The pages that a navigation names, those of its groups among them."""
    for entry in entries:
        for page in entry.values():
            yield from pages_of(page) if isinstance(page, list) else [page]


def test_every_page_is_in_the_navigation() -> None:
    """No page of the documentation is left out, and no notebook."""
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    pages += [f"notebooks/{page.stem}.md" for page in (ROOT / "notebooks").glob("*.ipynb")]
    assert sorted(pages_of(navigation)) == sorted(pages)


def test_configuration_page_is_current() -> None:
    """The page of settings is what the settings say; `make settings` writes it anew."""
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == reference.render()


def test_command_page_is_current() -> None:
    """The page of commands is what the program says of itself; `make settings` writes it anew."""
    assert (ROOT / "docs/commands.md").read_text(encoding="utf-8") == command_reference.render()


@pytest.mark.parametrize("name", detector.__all__)
def test_python_page_has_every_public_name(name: str) -> None:
    """A name that may be imported is in the reference."""
    assert f"::: detector.{name}\n" in (ROOT / "docs/python.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("word", ["threshold", "quantile", "false alarm", "currency", "time zone"])
def test_glossary_explains(word: str) -> None:
    """What people look for is found, by the search of the pages too."""
    assert f"| *{word}* |" in (ROOT / "docs/glossary.md").read_text(encoding="utf-8")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", [*TEXTS, *sorted((ROOT / "docs").rglob("*.md"))], ids=str)
def test_places_that_a_text_names_are_there(path: Path) -> None:
    """A file or folder of the code that documentation names exists."""
    named = re.findall(r"`((?:detector|pipelines|benchmarks|tests)/[\w./]*)`", path.read_text(encoding="utf-8"))

    assert [place for place in named if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("path", TEXTS, ids=str)
def test_names_that_a_text_finds_in_a_file_are_there(path: Path) -> None:
    """Where documentation says that a file of the code has a name, in brackets behind it, it has."""
    named = re.findall(r"`([\w./]+\.py)` \(`(\w+)[\w.]*`", path.read_text(encoding="utf-8"))

    assert [(place, name) for place, name in named if name not in (ROOT / place).read_text(encoding="utf-8")] == []


def test_examples_import_what_is_there() -> None:
    """Whatever of ours an example of the documentation imports can be imported."""
    imports = r"^from ((?:detector|pipelines|benchmarks)[\w.]*) import (.+)$"
    named = {found for path in TEXTS for found in re.findall(imports, path.read_text(encoding="utf-8"), re.MULTILINE)}

    assert named
    for module, names in named:
        found = import_module(module)
        assert [name for name in names.split(", ") if not hasattr(found, name)] == [], module


def test_every_folder_is_on_the_map() -> None:
    """The page that leads through the code leaves no folder of it out."""
    text = (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")

    folders = {
        f"{package}/{each.parent.name}/"
        for package in ("detector", "pipelines")
        for each in (ROOT / package).glob("*/__init__.py")
    }

    assert sorted(folder for folder in folders if f"`{folder}" not in text) == []
