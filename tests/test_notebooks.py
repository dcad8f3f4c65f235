"""The notebooks run from the first cell to the last, and say what their committed outputs say."""

from __future__ import annotations

import base64
import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONG = ("03_encoders",)
"""Those that take minutes to run."""
LARGEST = 150_000
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def module(name: str) -> ModuleType:
    """A script of the folder docs."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def outputs(notebook: Any) -> list[tuple[bool, list[Any]]]:
    """For each code cell whether its numbers count, and what it put out."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        ("numbers" in cell.metadata.get("tags", []), [each for each in cell.outputs if each.get("name") != "stderr"])
        for cell in cells
    ]


def forms(found: list[Any]) -> list[list[str]]:
    """What kinds of things a cell put out."""
    return [sorted(output.get("data", {output.get("name", ""): ""})) for output in found]


def numbers(found: list[Any]) -> list[float]:
    """All numbers in the text of a cell's outputs."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in found]
    return [float(number) for text in texts for number in NUMBER.findall(text)]


def pictures(notebook: Any) -> list[Any]:
    """All pictures, in grey and small."""
    found = [
        output["data"]["image/png"]
        for _, cell in outputs(notebook)
        for output in cell
        if "image/png" in output.get("data", {})
    ]
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("L").resize((64, 32)), dtype=float)
        for one in found
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[pytest.mark.long] * (path.stem in LONG), id=path.stem) for path in NOTEBOOKS]
)
def test_notebook_gives_its_committed_outputs(path: Path) -> None:
    """Run again, each cell puts out the same kinds of things, the same pictures and, where marked, the same numbers."""
    committed = nbformat.read(path, as_version=4)

    run = module("run_notebooks").run(path)

    everything = [output for cell in run.cells for output in cell.get("outputs", [])]
    assert [each["text"] for each in everything if each.get("name") == "stderr" and "Warning" in each["text"]] == []
    for (counts, now), (_, before) in zip(outputs(run), outputs(committed), strict=True):
        assert forms(now) == forms(before)
        if counts:
            assert numbers(before)
            # Networks are trained to other last digits on other processors, which move a measure by a little.
            np.testing.assert_allclose(numbers(now), numbers(before), rtol=0.2, atol=0.1)
    for now, before in zip(pictures(run), pictures(committed), strict=True):
        assert np.abs(now - before).mean() < 12  # of 255; another plot differs by 20 and more


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_with_small_outputs(path: Path) -> None:
    """Committed notebooks were run in order, without an error, and no picture makes the repository heavy."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]

    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    found = [output for cell in cells for output in cell.outputs]
    drawn = [output["data"]["image/png"] for output in found if "image/png" in output.get("data", {})]
    assert drawn
    assert max(len(base64.b64decode(picture)) for picture in drawn) < LARGEST
    assert [output for output in found if output.output_type == "error" or output.get("name") == "stderr"] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_opens_with_what_one_learns(path: Path) -> None:
    """The first cell says what a reader learns and shows the picture, which is one of the outputs below."""
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0]

    assert "**What you learn here.**" in first.source
    assert re.search(r"!\[[^\]]+\]\(attachment:picture\.png\)", first.source)
    drawn = [output["data"].get("image/png") for _, found in outputs(notebook) for output in found if "data" in output]
    assert first["attachments"]["picture.png"]["image/png"] in drawn


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_page_shows_the_whole_notebook(path: Path) -> None:
    """In the documentation stand all code and all outputs; every picture that the page names is there."""
    notebook = nbformat.read(path, as_version=4)

    text, shown = module("notebook_pages").page_of(notebook, path.stem)

    assert set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)) == set(shown)
    assert len(shown) == len(pictures(notebook)) + 1
    assert all(cell.source in text for cell in notebook.cells if cell.cell_type == "code")
    assert "attachment:" not in text
    assert ".ipynb)" not in text
