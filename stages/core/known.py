"""known: what was found out about rows, kept by the content of their messages, so that a row is sketched once."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from stages.core.contamination import Guard, Leak, find_leaks
from stages.core.dialogues import Dialogues, Mask, Messages, chosen, read_words, take_apart
from stages.core.kernels import Kernels
from stages.core.minhash import MinHashing, permutations, sketches
from stages.core.words import I64, U8, U32, U64, normalise


class Findings(NamedTuple):
    """What is known of some rows."""

    digests: U64  # (n_rows, 2) of the messages: 128 bits of their SHA-256
    sketches: U8  # (n_rows, n_permutations) of the responses
    n_words: U32  # (n_rows,) of the responses
    is_clean: Mask  # (n_rows,) holds no dev or test prompt

    def take(self, rows: I64) -> "Findings":
        """The findings of some rows."""
        return Findings(self.digests[rows], self.sketches[rows], self.n_words[rows], self.is_clean[rows])

    def put(self, first: int, part: "Findings") -> None:
        """Fill in the findings of the rows from `first` on."""
        rows = slice(first, first + len(part.digests))
        self.digests[rows], self.sketches[rows] = part.digests, part.sketches
        self.n_words[rows], self.is_clean[rows] = part.n_words, part.is_clean


class Index(NamedTuple):
    """Findings to look up."""

    findings: Findings
    order: I64  # of the digests' first halves, ascending
    firsts: U64  # in that order

    def find(self, digests: U64) -> I64:
        """The place of each digest in the findings, shape (n,); -1 where it is not known."""
        places = np.full(len(digests), -1, dtype=np.int64)
        if len(self.firsts):
            at = np.minimum(np.searchsorted(self.firsts, digests[:, 0]), len(self.firsts) - 1)
            found = self.order[at]
            is_same = (self.findings.digests[found] == digests).all(axis=1)
            places[is_same] = found[is_same]
        return places


class Reading(NamedTuple):
    """What a batch of rows says."""

    findings: Findings
    leaks: list[Leak]  # ordered by row
    short: I64  # rows whose responses are short
    short_keys: list[bytes]  # of their prompt and response, normalised
    n_sketched: int  # rows that were not known


def blank_findings(n_rows: int, n_permutations: int) -> Findings:
    """Findings to be filled in."""
    return Findings(
        np.zeros((n_rows, 2), np.uint64),
        np.zeros((n_rows, n_permutations), np.uint8),
        np.zeros(n_rows, np.uint32),
        np.zeros(n_rows, np.bool_),
    )


def joined_findings(parts: Sequence[Findings], n_permutations: int) -> Findings:
    """One after the other."""
    whole = blank_findings(sum(len(part.digests) for part in parts), n_permutations)
    first = 0
    for part in parts:
        whole.put(first, part)
        first += len(part.digests)
    return whole


def index(findings: Findings) -> Index:
    """Sort findings for look-up."""
    order = np.argsort(findings.digests[:, 0], kind="stable")
    return Index(findings, order, findings.digests[order, 0])


def read_batch(messages: pl.Series, known: Index, guard: Guard, config: MinHashing, kernels: Kernels) -> Reading:
    """Find out about a batch of rows what is not known of them.

    Args:
        messages: the rows (MESSAGES).
        known: findings of the same configuration; where `is_clean` is false, the guard is asked again.
        guard: the dev and test prompts.
        config: the permutations and the limit of short texts.
        kernels: what reads.
    """
    taken = take_apart(messages)
    digests = digest_rows(taken)
    places = known.find(digests)
    old = known.findings.take(np.maximum(places, 0)) if len(known.firsts) else None
    is_known = places >= 0
    is_clean = is_known & old.is_clean if old else np.zeros(len(places), np.bool_)
    sketch = np.zeros((len(places), config.n_permutations), dtype=np.uint8)
    n_words = np.zeros(len(places), dtype=np.uint32)
    if old:
        sketch[is_known], n_words[is_known] = old.sketches[is_known], old.n_words[is_known]
    unclear, unknown = np.flatnonzero(~is_clean), np.flatnonzero(~is_known)
    leaks: list[Leak] = []
    if len(unclear):  # every unknown row is one of them
        rows = read_words(chosen(taken, unclear) if len(unclear) < len(places) else taken, kernels)
        leaks = [leak._replace(row=int(unclear[leak.row])) for leak in find_leaks(rows, guard, kernels)]
        is_clean[unclear] = True
        is_clean[[leak.row for leak in leaks]] = False
        if len(unknown):
            places_read = np.searchsorted(unclear, unknown)
            made, counts = sketch_responses(rows, config, kernels)
            sketch[unknown], n_words[unknown] = made[places_read], counts[places_read]
    short = np.flatnonzero(n_words < config.short_words)
    keys = short_keys(taken, short)
    return Reading(Findings(digests, sketch, n_words, is_clean), leaks, short, keys, len(unknown))


def sketch_responses(rows: Dialogues, config: MinHashing, kernels: Kernels) -> tuple[U8, U32]:
    """Give the sketch of each row's responses, shape (n_rows, n_permutations), and the number of their words."""
    words = rows.responses
    shingles, offsets = kernels.hash_grams(words, config.shingle_words)
    signature = kernels.signatures(shingles, offsets, permutations(config.n_permutations, config.seed))
    return sketches(signature), np.diff(words.offsets).astype(np.uint32)


def shingle_sets(messages: pl.Series, rows: I64, config: MinHashing, kernels: Kernels) -> list[U64]:
    """Give the shingles, sorted and distinct, of the responses of some rows of a batch."""
    words = read_words(chosen(take_apart(messages.gather(rows)), np.arange(len(rows))), kernels).responses
    shingles, offsets = kernels.hash_grams(words, config.shingle_words)
    found = []
    for i in range(len(rows)):
        part = np.sort(shingles[offsets[i] : offsets[i + 1]])
        found.append(part[np.concatenate([[True], part[1:] != part[:-1]])] if len(part) else part)
    return found


def digest_rows(messages: Messages) -> U64:
    """Digest who says what in each row, shape (n_rows, 2)."""
    roles = np.where(messages.is_user, b"u", b"a").tolist()
    cuts = messages.cuts.tolist()
    digests = []
    for first, after in pairwise(cuts):
        said = messages.contents[first:after]
        form = b"%b%b " % (b"".join(roles[first:after]), b",".join([b"%d" % len(text) for text in said]))
        digests.append(hashlib.sha256(form + b"".join(said)).digest()[:16])
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2).astype(np.uint64, copy=False)


def short_keys(messages: Messages, rows: I64) -> list[bytes]:
    """Digest the prompt and the response of some rows, both normalised: equal keys are equal texts."""
    keys = []
    for row in rows.tolist():
        sides = "\n".join(normalise(messages.text(row, user=user)) for user in (True, False))
        keys.append(hashlib.sha256(sides.encode()).digest()[:16])
    return keys
