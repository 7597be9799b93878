from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.contamination import Contamination
from stages.core.known import Findings
from stages.core.minhash import MinHashing
from stages.runtime.sketch_cache import SketchCache

LIMITS = Contamination(ngram_words=8, min_containment=0.6, min_copied=0.85, min_copied_words=10, min_prompt_words=5)
CONFIG = MinHashing(seed=1, shingle_words=3, n_permutations=16, n_bands=4, min_jaccard=0.8, short_words=6)


def cache(folder: Path, prompts: tuple[str, ...] = ("Why?",), **changes: Any) -> SketchCache:
    return SketchCache(folder, CONFIG.model_copy(update=changes), LIMITS, prompts)


def findings(seed: int, n: int = 5) -> Findings:
    rng = np.random.default_rng(seed)
    return Findings(
        rng.integers(0, 2**63, (n, 2), dtype=np.uint64),
        rng.integers(0, 256, (n, 16), dtype=np.uint8),
        rng.integers(0, 99, n, dtype=np.uint32),
        rng.random(n) < 0.5,
    )


def same(a: Findings, b: Findings) -> bool:
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_what_was_kept_is_found_by_source(tmp_path: Path) -> None:
    cache(tmp_path).save("a", findings(1))
    cache(tmp_path).save("b", findings(2, n=0))
    cache(tmp_path).save("c", findings(3))
    assert same(cache(tmp_path).load(["a"]), findings(1))
    assert same(cache(tmp_path).load(["absent", "c", "b"]), findings(3))
    assert len(cache(tmp_path).load(["a", "c"]).digests) == 10


@pytest.mark.parametrize("changes", [{"seed": 2}, {"shingle_words": 4}])
def test_other_settings_know_nothing(tmp_path: Path, changes: dict[str, int]) -> None:
    cache(tmp_path).save("a", findings(1))
    assert len(cache(tmp_path, **changes).load(["a"]).digests) == 0


@pytest.mark.parametrize("changes", [{"n_bands": 8}, {"min_jaccard": 0.5}, {"short_words": 9}])
def test_settings_that_sketches_do_not_depend_on_are_free(tmp_path: Path, changes: dict[str, Any]) -> None:
    cache(tmp_path).save("a", findings(1))
    assert same(cache(tmp_path, **changes).load(["a"]), findings(1))


def test_other_prompts_make_no_row_clean(tmp_path: Path) -> None:
    cache(tmp_path).save("a", findings(1))
    found = cache(tmp_path, ("Why?", "How?")).load(["a"])
    assert same(found, findings(1)._replace(is_clean=np.zeros(5, np.bool_)))


def test_a_file_cut_anywhere_or_with_a_bit_turned_counts_as_absent_and_is_written_anew(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    kept.save("a", findings(1))
    path = kept.path("a")
    whole = path.read_bytes()
    bad = [whole[:n] for n in range(0, len(whole), 7)] + [whole + b"x"]
    bad += [whole[:n] + bytes([whole[n] ^ 4]) + whole[n + 1 :] for n in range(0, len(whole), 11)]
    for data in bad:
        path.write_bytes(data)
        assert len(kept.load(["a"]).digests) == 0
    kept.save("a", findings(1))
    assert same(kept.load(["a"]), findings(1))


def test_a_damaged_file_with_the_right_end_is_written_anew(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    kept.save("a", findings(1))
    whole = kept.path("a").read_bytes()
    kept.path("a").write_bytes(whole[:50] + b"?" + whole[51:])
    kept.save("a", findings(1))
    assert kept.path("a").read_bytes() == whole


def test_runs_side_by_side_leave_a_whole_file_and_nothing_else(tmp_path: Path) -> None:
    kept = cache(tmp_path)

    def work(seed: int) -> None:
        kept.save("a", findings(seed))
        assert len(kept.load(["a"]).digests) == 5

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert [path.name for path in tmp_path.iterdir()] == [kept.path("a").name]


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = cache(tmp_path / "file")
    kept.save("a", findings(1))
    assert len(kept.load(["a"]).digests) == 0
