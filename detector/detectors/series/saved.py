"""Models of series ↔ the parts that a bundle keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from detector.decide.calibrate import Calibrator
from detector.decide.fuse import Fusion
from detector.detectors.series.model import SeriesModel
from detector.detectors.series.prepared import Spectra
from detector.detectors.series.recipe import EARLIER_WEIGHTS, SeriesRecipe
from detector.members.forecast import Forecast
from detector.members.phase import Phase
from detector.members.residuals import ResidualRule
from detector.members.spectrum import Spectrum
from detector.members.window_forest import WindowForest
from detector.members.window_network import WindowNetwork
from detector.members.window_pca import WindowPCA
from detector.onnx.parts import Parts, under
from detector.series.flatline import FlatlineRule
from detector.series.scaling import SeriesScaling
from detector.series.staleness import StalenessRule


def parts_of(models: Mapping[Any, SeriesModel]) -> Parts:
    """All models of a scorer; each entity's parts begin with its number."""
    described: list[dict[str, Any]] = []
    parts = Parts({"models": described}, {}, {})
    for place, (entity, model) in enumerate(models.items()):
        own = _parts_of(model)
        described.append({"entity": entity} | own.facts)
        parts.arrays.update(under(str(place), own.arrays))
        parts.graphs.update({f"{place}-{name}": graph for name, graph in own.graphs.items()})
    return parts


def models_of(parts: Parts) -> dict[Any, SeriesModel]:
    """The inverse of ``parts_of``."""
    models = {}
    for place, facts in enumerate(parts.facts["models"]):
        start = f"{place}-"
        graphs = {name.removeprefix(start): one for name, one in parts.graphs.items() if name.startswith(start)}
        models[facts["entity"]] = _model_of(Parts(facts, parts.part(str(place)), graphs))
    return models


def _parts_of(model: SeriesModel) -> Parts:
    arrays = under("scaling", model.scaling.state()) | under("calibrator", model.calibrator.state())
    arrays |= under("usual", model.baseline) | under("ceiling", model.ceilings)
    for name, rule in model.rules.items():
        arrays |= under(f"rule-{name}", rule.state())
    members = {
        "pca": model.pca,
        "network": model.network,
        "long": model.long,
        "spectrum": None if model.spectra is None else model.spectra.whole,
        "spectrum-half": None if model.spectra is None else model.spectra.half,
        "forecast": model.forecast,
        "forest": model.forest,
        "phase": model.phase,
    }
    for name, member in members.items():
        arrays |= under(name, member.state()) if member is not None else {}
    facts = {
        "recipe": model.recipe.to_dict(),
        "length": model.length,
        "stride": model.stride,
        "shares": model.shares.tolist(),
        "fusion": model.fusion.state(),
        "silence": list(model.staleness.limits),
        "flatline": {"limits": list(model.flatline.limits), "back": list(model.flatline.back)},
        "threshold": model.threshold,
        "facts": model.facts,
        "rhythm": None if model.phase is None else model.phase.rhythm.to_dict(),
    }
    drawn = {"network": model.network, "forest": model.forest}
    return Parts(facts, arrays, {name: one.graph.content for name, one in drawn.items() if one is not None})


def _model_of(parts: Parts) -> SeriesModel:
    facts, graphs = parts.facts, parts.graphs
    names = ("pca", "long", "spectrum", "spectrum-half", "forecast", "network", "forest", "phase")
    pca, long, spectrum, half, forecast, network, forest, phase = (parts.part(name) for name in names)
    recipe = SeriesRecipe.from_dict(facts["recipe"])
    if "shares" not in facts:  # the weights of 0.1 were fixed
        recipe = replace(recipe, weights=EARLIER_WEIGHTS | dict(recipe.weights or {}))
    rules = {name: rule for name in recipe.members if (rule := parts.part(f"rule-{name}"))}
    return SeriesModel(
        recipe=recipe,
        length=facts["length"],
        stride=facts.get("stride", 1),
        scaling=SeriesScaling.from_state(parts.part("scaling")),
        pca=WindowPCA.from_state(pca) if pca else None,
        network=WindowNetwork.from_state(network, graphs["network"]) if network else None,
        long=WindowPCA.from_state(long) if long else None,
        spectra=Spectra(Spectrum.from_state(spectrum), Spectrum.from_state(half)) if spectrum else None,
        forecast=Forecast.from_state(forecast) if forecast else None,
        forest=WindowForest.from_state(forest, graphs["forest"]) if forest else None,
        phase=Phase.from_state(phase, facts["rhythm"]) if phase else None,
        rules={name: ResidualRule.from_state(rule) for name, rule in rules.items()},
        fusion=Fusion.from_state(facts["fusion"]),
        shares=np.asarray(facts.get("shares", recipe.shares), dtype=np.float64),
        baseline=parts.part("usual"),
        staleness=StalenessRule(tuple(facts["silence"])),
        flatline=_flatline(facts),
        calibrator=Calibrator.from_state(parts.part("calibrator")),
        threshold=facts["threshold"],
        facts=facts["facts"],
        ceilings=parts.part("ceiling"),
    )


def _flatline(facts: Mapping[str, Any]) -> FlatlineRule:
    """As it was learnt; bundles that know of none tell of no sensor that it sticks."""
    if "flatline" not in facts:
        return FlatlineRule.none(len(facts["silence"]))
    return FlatlineRule(tuple(facts["flatline"]["limits"]), tuple(facts["flatline"]["back"]))
