"""What the bodies of requests have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RequestBody(BaseModel):
    """The body of a request; a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid")
