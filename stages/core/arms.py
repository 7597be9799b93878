"""Section `arms`: which arms there are. What stands in one is the business of the stages that its two keys name."""

from typing import Any

from stages.common.section import Named, Section


class Arm(Section):
    """One arm."""

    sample: dict[str, Any]
    sft: dict[str, Any]


class Arms(Named):
    """All of them, by name."""

    __pydantic_extra__: dict[str, Arm]
