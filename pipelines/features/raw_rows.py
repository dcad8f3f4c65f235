"""Raw rows as a logged model is given them → rows as its detector was fitted on: their forms read, features measured.

What this takes lies in the folder ``input`` of the bundle that is logged, so that the model needs no other file::

    bundle/input/
    ├── input.json     the parts of the configuration that say how rows are read
    └── history.npz    the past that training left, where there are features; a folder, history.state, of a large one
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from detector.atomic import write_whole
from detector.features import History, Wording
from pipelines.config import Config
from pipelines.features import stored_history
from pipelines.features.engine import PAST, FeatureEngine
from pipelines.features.featured_rows import FeaturedRows
from pipelines.features.wording import wording_of
from pipelines.sources.formats import frame_with_formats

FOLDER, SETTINGS = "input", "input.json"


@dataclass(frozen=True)
class RawInput:
    """How a detector's raw rows are read, and the past that their features go on from."""

    settings: Mapping[str, Any]
    history: History | None = None

    @classmethod
    def of(cls, config: Config, history: History | None) -> RawInput | None:
        """What a logged model takes along; None where rows are read as they are and have no names to be shown by."""
        if history is None and not config.source.formats and not config.columns.names:
            return None
        values = config.model_dump(mode="json", include={"name", "kind", "columns", "features"})
        source = config.source.model_dump(mode="json", include={"formats", "decimal"})
        return cls({**values, "source": {"path": "rows", **source}}, history)

    def write(self, folder: Path) -> None:
        """Put it into a bundle's folder."""
        place = folder / FOLDER
        place.mkdir()
        write_whole(place / SETTINGS, json.dumps(self.settings, indent=1))
        if self.history is not None:
            stored_history.keep(self.history.copy(), place / PAST, most=math.inf)


class RawRows:
    """Prepares raw rows for a detector, as ``detector score`` does on the day of its training.

    Each call goes on from the past that training left, and leaves it as it was: what is said of a row depends on the
    rows given with it, and on no earlier call. Reports and answers that came after training are not known.
    """

    def __init__(self, given: RawInput) -> None:
        config = Config(**given.settings)
        self.formats = config.source.complete_formats
        self.wording: Wording = wording_of(config)
        self.engine = None if given.history is None else FeatureEngine.of_past(config, given.history)

    @classmethod
    def load(cls, folder: Path) -> RawRows | None:
        """What ``RawInput.write`` put into a bundle's folder; None if nothing was."""
        place = folder / FOLDER
        if not (place / SETTINGS).is_file():
            return None
        settings = json.loads((place / SETTINGS).read_text(encoding="utf-8"))
        history = stored_history.recall(place / PAST) if stored_history.find(place / PAST).exists() else None
        return cls(RawInput(settings, history))

    def prepare(self, frame: pd.DataFrame) -> FeaturedRows:
        """The rows with their features, and those that cannot have any.

        - ``frame``: indexed from 0.

        Raises ``SchemaError`` if a column that features are made of is missing.
        """
        frame = frame_with_formats(frame, self.formats)
        if self.engine is None:
            return FeaturedRows.of_all(frame)
        return self.engine.peek(frame)
