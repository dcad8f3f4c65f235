"""Run the notebooks and keep their outputs, which the documentation shows: ``make notebooks``."""

from __future__ import annotations

import argparse
import base64
import io
import os
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PICTURE = "picture.png"
COLOURS = 128  # a plot has few; fewer bytes, and no eye sees the difference


def run(path: Path) -> nbformat.NotebookNode:
    """Every cell from the first to the last, with one thread, as the tests run them."""
    os.environ.update(MPLBACKEND="module://matplotlib_inline.backend_inline", PYTHONPATH=str(ROOT))
    os.environ.update(OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3", PYTHONHASHSEED="0")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1200, kernel_name="python3").execute(cwd=str(ROOT))
    return notebook


def kept(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same without what each run has of its own, pictures small, and the tagged one attached to the opening."""
    shown = ""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":  # how far a job has come is for those who wait
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = compressed(data["image/png"])
                if "picture" in cell.metadata.get("tags", []):
                    shown = data["image/png"]
    opening = next(cell for cell in notebook.cells if "opening" in cell.metadata.get("tags", []))
    opening["attachments"] = {PICTURE: {"image/png": shown}}
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def compressed(picture: str) -> str:
    """A picture, in base64, with few colours."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    small = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode("ascii")


def main(arguments: list[str] | None = None) -> None:
    """Run all notebooks, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="The beginnings of their names, such as 02; all without one.")
    names: Any = tuple(parser.parse_args(arguments).names) or ("",)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if path.name.startswith(names):
            nbformat.write(kept(run(path)), path)


if __name__ == "__main__":
    main()
