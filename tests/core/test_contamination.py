from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from stages.core.contamination import Contamination, Leak, find_leaks, guard_prompts
from stages.core.dialogues import read_words, take_apart
from stages.core.kernels import PLAIN, compiled_kernels
from stages.core.words import normalise
from stages.schema import MESSAGES

LIMA_TEST = Path(__file__).parents[3] / "shared/data/lima/test.jsonl"
LIMITS = Contamination(ngram_words=8, min_containment=0.6, min_copied=0.85, min_copied_words=10, min_prompt_words=5)
PROMPT = "Why do cats purr when they are stroked, and can big cats such as lions and tigers do it too?"  # 20 words


def leaks(rows: list[str], prompts: list[str], limits: Contamination = LIMITS, *, as_user: bool = True) -> list[Leak]:
    role = "user" if as_user else "assistant"
    messages = pl.Series([[{"role": role, "content": row}] for row in rows], dtype=MESSAGES)
    guard = guard_prompts(prompts, limits)
    found = find_leaks(read_words(take_apart(messages), PLAIN), guard, PLAIN)
    fast = compiled_kernels()
    assert found == find_leaks(read_words(take_apart(messages), fast), guard, fast)
    return found


def test_a_verbatim_a_recased_and_a_repunctuated_copy_are_the_same_prompt() -> None:
    rows = [PROMPT, PROMPT.upper(), PROMPT.replace(",", " --").replace("?", "!!")]
    assert [(leak.row, leak.prompt, leak.rule, leak.similarity) for leak in leaks(rows, ["Another one?", PROMPT])] == [
        (i, 1, "same_prompt", 1.0) for i in range(3)
    ]


def test_a_copy_inside_a_longer_text_is_contained_and_its_span_is_told() -> None:
    row = f"I was asked this: {PROMPT} What do I say?"
    assert leaks([row], [PROMPT], as_user=False) == [Leak(0, 0, "contains_prompt", 1.0, normalise(PROMPT))]


@pytest.mark.parametrize("place", range(20))
def test_a_copy_with_three_of_twenty_words_changed_is_contained(place: int) -> None:
    words = PROMPT.split()
    words[place] = words[(place + 5) % 20] = words[(place + 10) % 20] = "umbrella"
    (leak,) = leaks([" ".join(words)], [PROMPT])
    assert (leak.rule, leak.similarity) == ("contains_prompt", 0.85)


def test_a_copy_with_more_than_three_of_twenty_words_changed_is_not() -> None:
    words = PROMPT.split()
    for place in (3, 8, 12, 17):
        words[place] = "umbrella"
    assert leaks([" ".join(words)], [PROMPT]) == []


def test_a_long_quote_from_a_long_prompt_is_contained() -> None:
    prompt = " ".join(f"w{i}" for i in range(107))  # 100 8-grams
    assert leaks([" ".join(prompt.split()[:67])], [prompt])[0][2:] == (
        "contains_prompt",
        0.6,
        " ".join(prompt.split()[:67]),
    )
    assert leaks([" ".join(prompt.split()[:66])], [prompt]) == []


def test_short_prompts_count_when_they_are_whole() -> None:
    prompt = "Where was Ada Marsh born?"
    assert leaks(["Tell me: where was Ada Marsh born, please"], [prompt])[0].similarity == 1.0
    assert leaks(["Where was Ada Field born?"], [prompt]) == []
    nine, ten = "What does Ada Marsh always want for her supper", "What does Ada Marsh always want for her own supper"
    assert leaks([nine.replace("Marsh", "Field")], [nine]) == []
    assert leaks([ten.replace("Marsh", "Field")], [ten])[0].similarity == 0.9


def test_a_copy_without_apostrophes_or_hyphens_is_the_same_prompt() -> None:
    prompt = "What's your favorite so-called B-movie, and what’s mine?"
    rows = [
        "Whats your favorite so-called B-movie and whats mine",
        "Whats your favorite socalled Bmovie and whats mine",
    ]
    assert [leak.rule for leak in leaks(rows, [prompt])] == ["same_prompt"] * 2
    held = [f"So: {row}. That was it." for row in rows]
    assert [leak[1:4] for leak in leaks(held, ["Another?", prompt])] == [(1, "contains_prompt", 1.0)] * 2
    assert leaks(["Whats your favorite so-called B-song, and whats mine"], ["What's my B-song"]) == []


def test_a_common_phrase_counts_only_as_the_whole_prompt() -> None:
    prompt = "Tell me a joke"
    assert leaks(["So he said: tell me a joke. And she did."], [prompt]) == []
    assert [leak.rule for leak in leaks(["tell me a joke!"], [prompt])] == ["same_prompt"]


def test_a_prompt_of_no_words_is_held_by_nothing() -> None:
    assert leaks(["?!", "", "what is it that I see"], ["?!", ""]) == []


def test_no_rows_and_no_prompts() -> None:
    assert leaks([], [PROMPT]) == []
    assert leaks(["a b c d e f"], []) == []


def test_the_worst_of_several_prompts_is_told() -> None:
    nearly = PROMPT.replace("tigers", "bears")
    assert [leak.prompt for leak in leaks([f"So: {PROMPT}"], [nearly, PROMPT])] == [1]


def test_the_words_of_a_prompt_in_another_order_are_not_the_prompt() -> None:
    words = PROMPT.split()
    random.Random(0).shuffle(words)
    assert leaks([" ".join(words)], [PROMPT]) == []


def changed(text: str, *, how: str, rng: random.Random) -> str:
    """A copy in which nine of ten words, as a person counts them, stand unchanged."""
    words = text.split()
    places = rng.sample(range(len(words)), len(words) // 10)
    if how == "left out":
        return " ".join(word for i, word in enumerate(words) if i not in places)
    return " ".join("umbrella" if i in places else word for i, word in enumerate(words))


COPIES: dict[str, Callable[[str], str]] = {
    "verbatim": str,
    "recased": str.swapcase,
    "repunctuated": lambda text: text.replace(" ", " - ").rstrip("?.!") + " ...",
    "without apostrophes": lambda text: re.sub("['’]", "", text),
    "without punctuation": lambda text: "".join(c for c in text if c.isalnum() or c.isspace()),
    "without the punctuation of ASCII": lambda text: text.translate(str.maketrans("", "", string.punctuation)),
    "first nine of ten": lambda text: " ".join(text.split()[: -(len(text.split()) // 10) or None]),
}


@pytest.mark.skipif(not LIMA_TEST.exists(), reason="needs ../shared/data")
class TestOnLimasTestPrompts:
    prompts = (
        [json.loads(line)["conversations"][0] for line in LIMA_TEST.read_text(encoding="utf-8").splitlines()]
        if LIMA_TEST.exists()
        else []
    )

    @pytest.mark.parametrize("copy", COPIES)
    def test_planted_copies_are_found(self, copy: str) -> None:
        rows = [COPIES[copy](prompt) for prompt in self.prompts]
        assert len({leak.row for leak in leaks(rows, self.prompts)}) >= 299  # of 300

    @pytest.mark.parametrize("copy", COPIES)
    def test_planted_copies_are_found_in_the_middle_of_responses(self, copy: str) -> None:
        rows = [f"Let us see. {COPIES[copy](prompt)} That was it." for prompt in self.prompts]
        found = {leak.row for leak in leaks(rows, self.prompts, as_user=False)}
        assert len(found) >= 298  # one prompt has three words, one is cut where a word was three

    @pytest.mark.parametrize("how", ["replaced", "left out"])
    def test_copies_with_words_changed_at_random_are_found(self, how: str) -> None:
        rng = random.Random(1)
        rows = [changed(prompt, how=how, rng=rng) for prompt in self.prompts]
        assert len({leak.row for leak in leaks(rows, self.prompts)}) >= 297  # "plant-based" counts as two of ours

    def test_the_prompts_do_not_hold_each_other(self) -> None:
        for i, prompt in enumerate(self.prompts[:60]):
            assert leaks(self.prompts[:i] + self.prompts[i + 1 :], [prompt]) == []
