"""Pages of the documentation made of the notebooks while it is built, outputs included: an MkDocs hook.

A page is what the committed notebook holds, so it cannot differ from it. Nothing is run and nothing is fetched.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
FOLDER = "notebooks"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_STYLE = re.compile(r"<style.*?</style>", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, and its pictures."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text, pictures = page_of(nbformat.read(path, as_version=4), path.stem)
        files.append(File.generated(config, f"{FOLDER}/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"{FOLDER}/{name}", content=content))
    return files


def page_of(notebook: nbformat.NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by their file names."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next((found.strip("# ") for found in cell.source.splitlines() if found.startswith("#")), heading)
            parts.append(_text(cell, name, pictures))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        parts += [_output(output, name, heading, pictures) for output in cell.outputs]
    return "\n\n".join(parts) + "\n", pictures


def _text(cell: Any, name: str, pictures: dict[str, bytes]) -> str:
    """The Markdown of a cell, links to other notebooks and to what is attached turned into those of the pages."""
    text = str(cell.source).replace(".ipynb)", ".md)")
    for attached, data in cell.get("attachments", {}).items():
        place = f"{name}-{attached}"
        pictures[place] = base64.b64decode(data["image/png"])
        text = text.replace(f"attachment:{attached}", place)
    return text


def _output(output: Any, name: str, heading: str, pictures: dict[str, bytes]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        place = f"{name}-{len(pictures)}.png"
        pictures[place] = base64.b64decode(data["image/png"])
        return f"![Figure: {heading}]({place})"
    if "text/html" in data:
        table = _STYLE.sub("", data["text/html"]).replace(' border="1"', "").replace(' style="text-align: right;"', "")
        lines = "\n".join(line.strip() for line in table.splitlines() if line.strip())
        return f'<div class="output scroll" tabindex="0">\n{lines}\n</div>'
    text = output.get("text") or data.get("text/plain", "")
    return f"```text\n{_COLOURS.sub('', text).rstrip()}\n```"
