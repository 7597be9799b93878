"""tag_coverage: take the rows with the most tags first, each for a tag that the others lack.

Lu et al. 2024, InsTag (arXiv:2308.07074, Algorithm 1, "complexity-first diverse sampling"): go through the rows, most
tags first, and take each that has a tag not covered yet; then begin anew with nothing covered and the rows left.
There a model gives the tags. Cost: tags x rounds.
"""

from collections.abc import Sequence

import numpy as np

from stages.core.vectors import I64


def most_tags_first(tags: Sequence[frozenset[str]], n: int) -> I64:
    """Order the first n rows.

    Args:
        tags: of each row, in the order that rows with as many tags are to come in; a row has at least one.
        n: rows to take, at most those there are.

    Returns:
        (n,) row numbers.

    >>> most_tags_first([frozenset("a"), frozenset("ab"), frozenset("bc"), frozenset("b")], 4).tolist()
    [1, 2, 0, 3]
    """
    assert all(tags), "a row without a tag would never be taken"
    left = sorted(range(len(tags)), key=lambda row: -len(tags[row]))
    picks: list[int] = []
    while len(picks) < n:
        covered: set[str] = set()
        passed_over = []
        for row in left:
            if tags[row] <= covered:
                passed_over.append(row)
            else:
                covered |= tags[row]
                picks.append(row)
        left = passed_over
    return np.array(picks[:n], dtype=np.int64)
