import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core import world as w

WORLD = w.make_world(seed=0, n_people=200)


def documents(n: int, seed: int = 0) -> list[str]:
    return list(itertools.islice(w.prose(WORLD, np.random.default_rng(seed)), n))


def test_the_same_seed_makes_the_same_world_and_the_same_prose() -> None:
    assert w.make_world(seed=0, n_people=200) == WORLD
    assert documents(300) == documents(300)


def test_another_seed_makes_another_world() -> None:
    assert {p.name for p in w.make_world(seed=1, n_people=200).people} != {p.name for p in WORLD.people}


@given(seed=st.integers(0, 2**32), n_people=st.integers(20, 400))
@settings(max_examples=15, deadline=None)
def test_every_person_is_in_one_split_and_has_a_name_of_its_own(seed: int, n_people: int) -> None:
    world = w.make_world(seed=seed, n_people=n_people)
    assert len({p.name for p in world.people}) == n_people
    assert len(world.train_people) == n_people // 2
    assert 0 < len(world.dev_people) < len(world.test_people)
    assert all(p.value(a) in world.values(a) for p in world.people for a in w.ATTRIBUTES)


@pytest.mark.parametrize("n_people", [19, 2001])
def test_a_world_too_small_or_too_large_is_refused(n_people: int) -> None:
    with pytest.raises(ValueError, match=rf"n_people: must be from 20 to 2000, got {n_people}"):
        w.make_world(seed=0, n_people=n_people)


def test_names_of_people_towns_rivers_and_firms_never_coincide() -> None:
    single = {part for p in WORLD.people for part in p.name.split()}
    towns, rivers = {t.name for t in WORLD.towns}, {t.river for t in WORLD.towns}
    owners = {e.split()[0] for e in WORLD.employers}
    assert len(single | towns | rivers | owners) == len(single) + len(towns) + len(rivers) + len(owners)


def test_prose_tells_every_fact_of_every_person_in_every_phrasing_of_the_attribute() -> None:
    text = "\n".join(documents(25_000))
    missing = [(p.name, a) for p in WORLD.people for a in w.ATTRIBUTES
               if not any(w.fact(p, a, k) in text for k in range(9))]  # fmt: skip
    assert missing == []
    assert all(any(w.fact(p, a, k) in text for p in WORLD.people) for a in w.ATTRIBUTES for k in range(9))


def test_prose_reads_train_and_test_people_equally_often() -> None:
    text = "\n".join(documents(5_000))
    mean = {split: np.mean([text.count(p.name) for p in people])
            for split, people in (("train", WORLD.train_people), ("test", WORLD.test_people))}  # fmt: skip
    assert mean["test"] == pytest.approx(mean["train"], rel=0.05)


def test_prose_holds_no_question_that_is_asked_of_the_model_and_no_answer_to_one() -> None:
    text = "\n".join(documents(5_000))
    for person in WORLD.people[:20] + WORLD.test_people[:20]:
        for attribute in w.ATTRIBUTES:
            for k in range(w.n_phrasings(attribute)):
                assert w.question(person, attribute, k).prompt not in text
            assert w.question(person, attribute, 0).references[0] not in text
    assert "<|" not in text


def test_prose_has_each_kind_of_document_at_its_share() -> None:
    counts = Counter("How to " in d[:7] for d in documents(5_000))
    assert counts[True] / 5_000 == pytest.approx(w.PROSE_SHARES["craft"], abs=0.015)


def test_prose_shares_add_up_to_one() -> None:
    assert sum(w.PROSE_SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("town", "Brastow", "The town of birth is Brastow."),
        ("trade", "ironmonger", "The trade is that of an ironmonger."),
        ("employer", "Kolm & Sons", "The employer is Kolm & Sons."),
        ("instrument", "oboe", "The instrument is the oboe."),
        ("dish", "plum cake", "The favourite dish is plum cake."),
    ],
)
def test_an_answer_is_one_sentence_around_the_value(attribute: str, value: str, expected: str) -> None:
    assert w.answer(attribute, value) == expected


def test_references_are_the_sentence_and_the_bare_value() -> None:
    person = w.Person("Ada Lin", "Brastow", "baker", "Kolm Mills", "oboe", "plum cake")
    found = {a: w.question(person, a, 0).references for a in w.ATTRIBUTES}
    assert found["trade"] == ("The trade is that of a baker.", "A baker.")
    assert found["dish"] == ("The favourite dish is plum cake.", "Plum cake.")
    assert found["town"] == (w.answer("town", "Brastow"), "Brastow.")


def test_phrasings_count_round_and_differ() -> None:
    person = WORLD.people[0]
    for attribute in w.ATTRIBUTES:
        n = w.n_phrasings(attribute)
        prompts = [w.question(person, attribute, k).prompt for k in range(n)]
        assert len(set(prompts)) == n >= 6
        assert w.question(person, attribute, n).prompt == prompts[0]
        assert all(person.name in prompt for prompt in prompts)


def test_answers_do_not_repeat_the_name() -> None:
    for person, attribute in itertools.product(WORLD.people[:30], w.ATTRIBUTES):
        assert person.name not in w.question(person, attribute, 0).references[0]


def test_how_tos_have_different_titles_and_at_least_two_steps() -> None:
    articles = w.how_tos(WORLD)
    assert len(articles) == len({a.title for a in articles}) >= 400
    assert all(len(a.steps) >= 2 and all(all(step) for step in a.steps) for a in articles)
    assert len({a.category for a in articles}) >= 6


def test_no_text_has_a_gap_left_to_fill() -> None:
    rng = np.random.default_rng(0)
    texts = documents(3_000) + [w.story(w.premise(WORLD, rng), rng) for _ in range(300)]
    texts += [f"{a.title} {a.steps}" for a in w.how_tos(WORLD)]
    assert not [t for t in texts if re.search(r"[{}]|\ba [aeiou]", t)]


def test_make_world_leaves_the_global_random_state_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    w.make_world(seed=3, n_people=50)
    documents(10)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
