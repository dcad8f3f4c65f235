"""A model of a table ↔ the parts that a bundle keeps."""

from __future__ import annotations

from typing import Any

from detector.decide.calibrate import Calibrator
from detector.decide.fuse import Fusion
from detector.detectors.table.model import TableModel
from detector.detectors.table.training_rows import LearntRows
from detector.encoding.table import TableEncoder
from detector.head.model import Head
from detector.members.event_sequence import EventWindow
from detector.members.isolation_forest import Trees
from detector.members.neighbours import References
from detector.members.novelty import KnownRows
from detector.onnx.graph import Graph
from detector.onnx.parts import Parts, under
from detector.schema import Schema


def parts_of(model: TableModel) -> Parts:
    """Everything of a model, as a bundle keeps it."""
    columns, column_arrays = model.columns.state()
    arrays = under("columns", column_arrays) | under("calibrator", model.calibrator.state())
    if model.trees is not None:
        arrays |= under("trees", model.trees.state())
    for name, references in model.references.items():
        arrays |= under(name, references.state())
    if model.known is not None:
        arrays |= under("known", model.known.state())
    arrays |= under("usual", model.usual) | under("weights", model.weights)
    if model.learnt is not None:
        arrays |= under("learnt", model.learnt.state())
    graphs = {"graph": model.graph.content, "inside": model.inside.content}
    if model.decoder is not None:
        graphs["decoder"] = model.decoder.content
    head = None if model.head is None else model.head.to_parts()
    if head is not None:
        arrays |= under("head", head.arrays)
        graphs |= head.graphs
    facts = {
        "name": model.name,
        "schema": model.schema.to_dict(),
        "columns": columns,
        "fusion": model.fusion.state(),
        "window": None if model.window is None else model.window.state(),
        "metrics": model.metrics,
        "head": None if head is None else head.facts,
    }
    return Parts(facts, arrays, graphs)


def values_of(parts: Parts) -> dict[str, Any]:
    """What a model is made with; the inverse of ``parts_of``."""
    facts, graphs, trees = parts.facts, parts.graphs, parts.part("trees")
    references = {name: parts.part(name) for name in ("neighbours", "novelty")}
    head, learnt, known = facts.get("head"), parts.part("learnt"), parts.part("known")
    return {
        "name": facts["name"],
        "schema": Schema.from_dict(facts["schema"]),
        "columns": TableEncoder.from_state(facts["columns"], parts.part("columns")),
        "graph": Graph(graphs["graph"]),
        "inside": Graph(graphs["inside"]),
        "decoder": Graph(graphs["decoder"]) if "decoder" in graphs else None,
        "fusion": Fusion.from_state(facts["fusion"]),
        "calibrator": Calibrator.from_state(parts.part("calibrator")),
        "trees": Trees.from_state(trees) if trees else None,
        "references": {name: References.from_state(part) for name, part in references.items() if part},
        "known": KnownRows.from_state(known) if known else None,
        "window": EventWindow.from_state(facts["window"]) if facts.get("window") else None,
        "usual": parts.part("usual"),
        "weights": parts.part("weights"),
        "metrics": facts["metrics"],
        "learnt": LearntRows.from_state(learnt) if learnt else None,
        "head": None if head is None else Head.from_parts(Parts(head, parts.part("head"), graphs)),
    }
