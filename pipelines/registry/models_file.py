"""What ``models.json`` says: the detectors on disk, which of them serves, and every promotion with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from detector.atomic import write_whole
from detector.errors import NotFoundError, SettingError, nearest

STATE = "models.json"


@dataclass(frozen=True)
class StoredModel:
    """One detector on disk.

    ``name`` is the fingerprint of its bundle, which stands beside each score as ``model_version``; ``made_at`` is in
    ISO 8601; ``facts`` are what a list shows: rows, days, figures of merit; ``decision`` is what was decided last.
    """

    name: str
    made_at: str
    facts: dict[str, Any] = field(default_factory=dict)
    decision: str = ""


@dataclass(frozen=True)
class Promotion:
    """A change of champion: when, to which, from which, and why."""

    at: str
    to: str
    before: str | None
    why: str


@dataclass(frozen=True)
class RegistryState:
    """The champion and the challenger by name; models and promotions, oldest first; a promotion that was begun."""

    champion: str | None = None
    challenger: str | None = None
    models: tuple[StoredModel, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    begun: Promotion | None = None

    @property
    def names(self) -> list[str]:
        """Of all models."""
        return [model.name for model in self.models]

    def find(self, name: str) -> StoredModel:
        """The detector of a name, or of the beginning of one.

        Raises ``NotFoundError`` if there is none, ``SettingError`` if there is more than one.
        """
        found = [model for model in self.models if model.name.startswith(name)] if name else []
        if len(found) > 1:
            fit = ", ".join(model.name for model in found)
            raise SettingError(f"More than one detector begins with {name!r}: {fit}. Give more letters.")
        if not found:
            raise NotFoundError(f"No detector is called {name!r}. {nearest(name, self.names)}")
        return found[0]

    def before_champion(self) -> str | None:
        """The one that served before the champion and is still there."""
        for promotion in reversed(self.promotions):
            if promotion.to == self.champion and promotion.before in self.names:
                return promotion.before
        return None

    def decided(self, name: str, decision: str) -> tuple[StoredModel, ...]:
        """The models, with what was decided about one of them."""
        return tuple(replace(each, decision=decision) if each.name == name else each for each in self.models)

    def without(self, names: Iterable[str]) -> tuple[StoredModel, ...]:
        """The models but for those of some names."""
        return tuple(model for model in self.models if model.name not in set(names))

    @classmethod
    def read(cls, path: Path) -> RegistryState:
        """From the file.

        Raises ``ValueError`` or ``KeyError`` or ``TypeError`` if it is damaged.
        """
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            champion=values["champion"],
            challenger=values["challenger"],
            models=tuple(StoredModel(**each) for each in values["kept"]),
            promotions=tuple(Promotion(**each) for each in values["moves"]),
            begun=Promotion(**values["moving"]) if values["moving"] else None,
        )

    def write(self, path: Path) -> None:
        """To the file, whose names are those of the first version."""
        values = {
            "champion": self.champion,
            "challenger": self.challenger,
            "kept": [asdict(model) for model in self.models],
            "moves": [asdict(promotion) for promotion in self.promotions],
            "moving": None if self.begun is None else asdict(self.begun),
        }
        write_whole(path, json.dumps(values, indent=2, ensure_ascii=False))
