"""The base of every section of a spec: closed keys, strict types, frozen."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One mapping of a spec. Field descriptions are the reference documentation: write them for users."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)
