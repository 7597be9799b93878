import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.runtime import pairing as module
from stages.runtime.pairing import Pairing


def pairs(prompts, responses, authors=()):
    with Pairing() as pairing:
        for key, fields in prompts:
            pairing.add_prompt(key, fields)
        for parent, score, number in responses:
            pairing.add_response(parent, score=score, number=number, fields=[number], author=f"u{number}")
        for key, name in authors:
            pairing.add_author(key, name)
        return list(pairing.pairs()), pairing.n_orphans()


def test_scores_are_compared_as_integers():
    found, _ = pairs([("1", [])], [("1", 9, 2), ("1", 12, 3)])
    assert found[0].response == [3]
    assert found[0].score == 12


def test_of_equal_scores_the_lowest_number_wins_whatever_the_order():
    for responses in ([("1", 5, 7), ("1", 5, 30)], [("1", 5, 30), ("1", 5, 7)]):
        assert pairs([("1", [])], responses)[0][0].response == [7]


def test_a_prompt_without_response_is_still_given():
    found, n_orphans = pairs([("1", ["a", None, 3])], [("2", 1, 1)])
    assert found == [("1", ["a", None, 3], None, None, None)]
    assert n_orphans == 1


def test_author_names_are_joined_where_they_are_known():
    found, _ = pairs([("1", []), ("2", [])], [("1", 1, 1), ("2", 1, 2)], [("u1", "Ann")])
    assert [pair.author for pair in found] == ["Ann", None]


def test_nothing_gives_nothing():
    assert pairs([], []) == ([], 0)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 12), unique=True),
    st.lists(st.tuples(st.integers(0, 15), st.integers(-3, 3), st.integers(1, 99)), unique_by=lambda r: r[2]),
    st.randoms(use_true_random=False),
)
def test_the_join_is_the_slow_obvious_one_in_any_order(prompts, responses, rng: random.Random):
    given_ = [(str(parent), score, number) for parent, score, number in responses]
    rng.shuffle(given_)
    found, n_orphans = pairs([(str(key), [key]) for key in prompts], given_)
    assert [pair.key for pair in found] == sorted(str(key) for key in prompts)
    for pair in found:
        own = [(-score, number) for parent, score, number in given_ if parent == pair.key]
        best = min(own, default=None)
        assert (pair.score, pair.response) == ((-best[0], [best[1]]) if best else (None, None))
    assert n_orphans == len({parent for parent, _, _ in given_} - {str(key) for key in prompts})


def test_what_does_not_fit_the_cache_spills_and_comes_back(monkeypatch):
    monkeypatch.setattr(module, "_CACHE_KIB", 64)
    found, _ = pairs([(str(i), ["x" * 5000]) for i in range(400)], [(str(i), i, i) for i in range(400)])
    assert len(found) == 400
    assert all(pair.prompt == ["x" * 5000] and pair.response == [int(pair.key)] for pair in found)


def test_text_that_no_utf8_file_can_hold_is_joined_too():
    assert pairs([("1", ["\ud83d\x00"])], [])[0][0].prompt == ["\ud83d\x00"]


def test_an_error_in_the_block_is_passed_on():
    with pytest.raises(ValueError, match="mine"), Pairing():
        raise ValueError("mine")


def test_a_prompt_given_again_counts_as_the_last_and_is_counted():
    with Pairing() as pairing:
        for key, text in (("1", "old"), ("2", "other"), ("1", "new")):
            pairing.add_prompt(key, [text])
        assert pairing.n_repeated == 1
        assert [pair.prompt for pair in pairing.pairs()] == [["new"], ["other"]]
