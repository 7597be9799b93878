"""The base of every parameter model."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of params.yaml: every key is known, typed and required; nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Named(Section):
    """A map of params.yaml of which the names alone matter to the reader."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    @property
    def names(self) -> list[str]:
        """The keys, in the file's order."""
        return list(self.model_extra or {})
