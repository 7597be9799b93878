"""How answers are drawn, and where the chance in them comes from."""

import hashlib
from typing import Literal

from pydantic import Field

from stages.common.section import Section


class Decoding(Section):
    """How answers are drawn."""

    seed: int = Field(ge=0)
    temperature: float = Field(ge=0, le=2)  # 0: the most likely token
    top_p: float = Field(gt=0, le=1)  # nucleus: the smallest set of tokens with at least this probability
    repetition_penalty: float = Field(ge=1, le=2)  # 1: none
    max_new_tokens: int = Field(ge=1)  # tokens of an answer
    n_samples: int = Field(ge=1)  # answers a prompt
    precision: Literal["fp32", "bf16"]  # of the weights while answering
    batch_size: int = Field(ge=1)  # answers decoded together


def entropy(seed: int, prompt_id: str, sample: int) -> int:
    """What seeds one answer's uniform numbers: seed, prompt and sample decide them, and nothing else does.

    >>> hex(entropy(0, "authored:1", 0))[:10]
    '0x13a83ec8'
    """
    digest = hashlib.blake2b(f"{seed}\0{prompt_id}\0{sample}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "big")
