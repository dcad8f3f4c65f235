"""A model of series in parts, as a bundle keeps it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detector.decide.calibrate import Calibrator
from detector.decide.fuse import Fusion
from detector.detectors.series.model import SeriesModel
from detector.detectors.series.network import WindowNetwork
from detector.detectors.series.recipe import SeriesRecipe
from detector.members.forecast import Forecast
from detector.members.residuals import ResidualRule
from detector.members.window_forest import WindowForest
from detector.members.window_pca import WindowPCA
from detector.onnx.parts import Parts, under
from detector.series.scaling import SeriesScaling
from detector.series.staleness import SilenceRule


def describe_models(models: Mapping[Any, SeriesModel]) -> Parts:
    """All models of a scorer; each entity's parts begin with its number."""
    described: list[dict[str, Any]] = []
    parts = Parts({"models": described}, {}, {})
    for place, (entity, model) in enumerate(models.items()):
        own = _describe(model)
        described.append({"entity": entity} | own.facts)
        parts.arrays.update(under(str(place), own.arrays))
        parts.graphs.update({f"{place}-{name}": graph for name, graph in own.graphs.items()})
    return parts


def rebuild_models(parts: Parts) -> dict[Any, SeriesModel]:
    """The inverse of ``describe_models``."""
    models = {}
    for place, facts in enumerate(parts.facts["models"]):
        start = f"{place}-"
        graphs = {name.removeprefix(start): one for name, one in parts.graphs.items() if name.startswith(start)}
        models[facts["entity"]] = _rebuild(Parts(facts, parts.part(str(place)), graphs))
    return models


def _describe(model: SeriesModel) -> Parts:
    arrays = under("scaling", model.scaling.state()) | under("calibrator", model.calibrator.state())
    arrays |= under("usual", model.usual)
    for name, rule in model.rules.items():
        arrays |= under(f"rule-{name}", rule.state())
    members = {"pca": model.pca, "network": model.network, "forecast": model.forecast, "forest": model.forest}
    for name, member in members.items():
        arrays |= under(name, member.state()) if member is not None else {}
    facts = {
        "recipe": model.recipe.to_dict(),
        "length": model.length,
        "fusion": model.fusion.state(),
        "silence": list(model.silence.limits),
        "threshold": model.threshold,
        "facts": model.facts,
    }
    drawn = {"network": model.network, "forest": model.forest}
    return Parts(facts, arrays, {name: one.graph.content for name, one in drawn.items() if one is not None})


def _rebuild(parts: Parts) -> SeriesModel:
    facts, graphs = parts.facts, parts.graphs
    pca, forecast, network, forest = (parts.part(name) for name in ("pca", "forecast", "network", "forest"))
    recipe = SeriesRecipe.from_dict(facts["recipe"])
    rules = {name: rule for name in recipe.members if (rule := parts.part(f"rule-{name}"))}
    return SeriesModel(
        recipe=recipe,
        length=facts["length"],
        scaling=SeriesScaling.from_state(parts.part("scaling")),
        pca=WindowPCA.from_state(pca) if pca else None,
        network=WindowNetwork.from_state(network, graphs["network"]) if network else None,
        forecast=Forecast.from_state(forecast) if forecast else None,
        forest=WindowForest.from_state(forest, graphs["forest"]) if forest else None,
        rules={name: ResidualRule.from_state(rule) for name, rule in rules.items()},
        fusion=Fusion.from_state(facts["fusion"]),
        usual=parts.part("usual"),
        silence=SilenceRule(tuple(facts["silence"])),
        calibrator=Calibrator.from_state(parts.part("calibrator")),
        threshold=facts["threshold"],
        facts=facts["facts"],
    )
