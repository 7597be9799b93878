"""Texts to vectors: hashed TF-IDF, or a sentence-transformers model by name or folder, which alone needs torch."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field

from stages.common.errors import InputError
from stages.common.files import CACHE, first_line
from stages.common.section import Section
from stages.core.vectors import F32, fixed_point, tfidf
from stages.runtime.progress import progress

TFIDF = "tfidf"

_WANTED = ["config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors", "*.safetensors.index.json"]
_CHUNK = 4096  # texts that are kept together under .cache/vectors
_BATCH = 64  # texts of like length in a forward pass


class Vectors(Section):
    """What the vectors of texts are made by."""

    model: str = Field(min_length=1)  # tfidf, a hub id or a folder
    revision: str | None  # commit of a hub id
    max_tokens: int = Field(ge=8)  # of a text, for a model; the rest is not looked at


def load_encoder(params: Vectors) -> Callable[[pl.Series], F32]:
    """Give the function from texts to fixed-point vectors, shape (n, n_dimensions).

    Raises:
        ParamsError: a hub id without a commit.
        InputError: the model cannot be fetched or loaded.
    """
    if params.model == TFIDF:
        return tfidf
    from stages.runtime.hub import find_model

    return _Encoder(find_model(params.model, params.revision, section="sample.vectors").path, params.max_tokens)


class _Encoder:
    """Mean of the last hidden states over the tokens (Reimers & Gurevych 2019), kept under .cache by content."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        from stages.runtime.model import check_model_folder

        check_model_folder(folder)
        self.folder, self.max_tokens = folder, max_tokens
        self.known: dict[bytes, F32] = {}  # vectors of this process, by a text's hash
        self.loaded: tuple[Any, Any] | None = None  # tokenizer and model, once a text is not in the cache
        files = sorted({path for pattern in _WANTED for path in folder.glob(pattern)})
        self.key = hashlib.blake2b(f"{max_tokens}".encode(), digest_size=16)
        for path in files:
            self.key.update(f"{path.name} {path.stat().st_size}".encode())
            with path.open("rb") as file:
                self.key.update(hashlib.file_digest(file, "sha256").digest())

    def __call__(self, texts: pl.Series) -> F32:
        keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self.known}
        parts = [list(new.items())[start : start + _CHUNK] for start in range(0, len(new), _CHUNK)]
        for part in progress(parts, desc="encode", unit="chunk"):
            self.known.update(zip(dict(part), self._kept(dict(part)), strict=True))
        return np.stack([self.known[key] for key in keys]) if keys else np.zeros((0, 1), dtype=np.float32)

    def _kept(self, texts: dict[bytes, str]) -> F32:
        """The vectors of texts by their keys, made or read."""
        key = self.key.copy()
        key.update(b"".join(texts))
        path = CACHE / "vectors" / f"{key.hexdigest()}.npy"
        if path.is_file():
            try:
                kept: F32 = np.load(path, allow_pickle=False)
                if kept.dtype == np.float32 and len(kept) == len(texts):
                    return kept
            except (OSError, ValueError, EOFError):
                pass  # damaged: made anew
        vectors = fixed_point(self._encode(list(texts.values())))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.save(file, vectors)
        partial.replace(path)
        return vectors

    def _encode(self, texts: list[str]) -> F32:
        import torch

        tokenizer, model = self.loaded = self.loaded or _load(self.folder, self.max_tokens)
        result = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for rows in _batches(texts):
                encoded = tokenizer.encode_batch([texts[row] for row in rows])
                ids = torch.tensor([item.ids for item in encoded], device=model.device)  # (batch, tokens)
                mask = torch.tensor([item.attention_mask for item in encoded], device=model.device)
                states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
                weights = mask.unsqueeze(-1).float()
                means = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
                result[rows] = means.cpu().numpy()
        return result


def _batches(texts: list[str]) -> Iterator[list[int]]:
    """Rows of like length together: padding is waste."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), _BATCH):
        yield order[start : start + _BATCH]


def _load(folder: Path, max_tokens: int) -> tuple[Any, Any]:
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except Exception as error:  # tokenizers raises plain Exceptions
        raise InputError(f"{folder}: cannot be loaded to encode texts, {first_line(error)}; replace it") from None
    tokenizer.enable_truncation(min(max_tokens, model.config.max_position_embeddings))
    tokenizer.enable_padding(pad_id=model.config.pad_token_id or 0)
    return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
