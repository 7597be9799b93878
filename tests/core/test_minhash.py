from __future__ import annotations

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom

from stages.core import minhash
from stages.core.kernels import PLAIN, Kernels, compiled_kernels
from stages.core.minhash import MinHashing, least_agreement, permutations, shared_buckets, sketches
from tests.similar import similar_texts

KERNELS = pytest.mark.parametrize("kernels", [PLAIN, compiled_kernels()], ids=["plain", "compiled"])


def config(**changes: object) -> MinHashing:
    plain = {"seed": 1, "shingle_words": 3, "n_permutations": 128, "n_bands": 32, "min_jaccard": 0.8, "short_words": 6}
    return MinHashing.model_validate({**plain, **changes})


@pytest.mark.parametrize(("seed", "n"), [(0, 128), (1, 128), (7, 16), (2**32 - 1, 1)])
def test_permutations_are_those_of_datasketch(seed: int, n: int) -> None:
    assert np.array_equal(np.array(permutations(n, seed)), MinHash(n, seed).permutations)


@KERNELS
@pytest.mark.parametrize(("seed", "n_permutations"), [(1, 128), (7, 16)])
def test_signatures_are_those_of_datasketch(kernels: Kernels, seed: int, n_permutations: int) -> None:
    texts = ["", "too few", *similar_texts(seed=3, n=40)]
    shingles, offsets = kernels.hash_grams(kernels.hash_words([text.encode() for text in texts]), 3)
    found = kernels.signatures(shingles, offsets, permutations(n_permutations, seed))
    for i in range(len(texts)):
        theirs = MinHash(n_permutations, seed, hashfunc=int)
        theirs.update_batch(shingles[offsets[i] : offsets[i + 1]].astype(np.uint32).tolist())
        assert found[i].tolist() == theirs.hashvalues.tolist()
    assert found.dtype == np.uint32


def test_signatures_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    words = PLAIN.hash_words([text.encode() for text in similar_texts(seed=4, n=30)])
    arguments = (*PLAIN.hash_grams(words, 3), permutations(128, 1))
    whole = minhash.signatures(*arguments)
    monkeypatch.setattr("stages.core.minhash._BLOCK", 100)
    assert (minhash.signatures(*arguments) == whole).all()


def test_sketches_of_different_numbers_agree_by_chance_alone() -> None:
    rng = np.random.default_rng(0)
    # the least of some hundred numbers of 32 bits is small: the byte kept must vary all the same
    a, b = (rng.integers(0, 2**24, (400, 128), dtype=np.uint32) for _ in range(2))
    assert (sketches(a) == sketches(b)).mean() == pytest.approx(1 / 256, abs=0.001)
    assert (sketches(a) == sketches(a.copy())).all()


@pytest.mark.parametrize(("n", "jaccard"), [(128, 0.8), (128, 0.5), (16, 0.9), (64, 1.0)])
def test_least_agreement_loses_a_millionth_of_the_pairs_at_the_threshold(n: int, jaccard: float) -> None:
    least = least_agreement(config(n_permutations=n, n_bands=n, min_jaccard=jaccard))
    assert binom.cdf(least - 1, n, jaccard) <= 1e-6 < binom.cdf(least, n, jaccard)


@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(0, 30))
def test_buckets_are_the_groups_that_agree_in_a_band(seed: int, n_bands: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    sketch = rng.integers(0, 2, (n, 14), dtype=np.uint8)
    members = np.flatnonzero(rng.random(n) < 0.8)
    found = shared_buckets(sketch, members, n_bands, least=0)
    groups: dict[int, set[int]] = {}
    for i, row in enumerate(found.rows.tolist()):
        for number in found.numbers[found.cuts[i] : found.cuts[i + 1]].tolist():
            groups.setdefault(number, set()).add(row)
    width = 14 // n_bands
    expected: dict[tuple[int, bytes], set[int]] = {}
    for row in members.tolist():
        for band in range(n_bands):
            key = band, sketch[row, band * width : (band + 1) * width].tobytes()
            expected.setdefault(key, set()).add(row)
    shared = {frozenset(group) for group in expected.values() if len(group) > 1}
    assert sorted(map(sorted, groups.values())) == sorted(map(sorted, shared))
    assert found.rows.tolist() == sorted(set().union(*groups.values()))


@KERNELS
def test_jaccard_of_sets(kernels: Kernels) -> None:
    a, b = np.array([1, 2, 3], np.uint64), np.array([2, 3, 4, 5], np.uint64)
    assert kernels.jaccard(a, b) == 2 / 5
    assert kernels.jaccard(a, a) == 1.0
    assert kernels.jaccard(a, np.array([9], np.uint64)) == 0.0


@pytest.mark.parametrize(
    ("changes", "rule"),
    [({"n_bands": 129}, "at most n_permutations 128"), ({"short_words": 2}, "at least shingle_words 3")],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, int], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        config(**changes)
