"""What all parts of the configuration have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from pipelines.config.values import hide_password


class Section(BaseModel):
    """A frozen group of settings without unknown keys; its ``repr`` shows no password."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            hidden = name in ("url", "uri") and isinstance(value, str)
            yield name, hide_password(value) if hidden else value
