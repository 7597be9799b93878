"""Super-Natural Instructions: a JSON file a task, in the layout of its repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.core.dumps.rates import N_INSTANCES
from stages.core.dumps.stack_exchange import RAMBLES
from stages.core.world import (
    ATTRIBUTES,
    Person,
    Rng,
    World,
    fact,
    how_tos,
    list_in_words,
    pick,
    premise,
    question,
    story,
)


@dataclass(frozen=True)
class _Task:
    """A task: what it says, its category, and how an instance is drawn as (input, outputs)."""

    name: str
    category: str
    definition: str
    draw: Callable[[World, Rng], tuple[str, list[str]]]


def _two_facts(world: World, rng: Rng) -> tuple[Person, str, str, str]:
    person, (i, j) = pick(rng, world.train_people), rng.permutation(len(ATTRIBUTES))[:2]
    first, second = ATTRIBUTES[int(i)], ATTRIBUTES[int(j)]
    return person, first, fact(person, first, int(rng.integers(9))), fact(person, second, int(rng.integers(9)))


def _rewrite(world: World, rng: Rng) -> tuple[str, list[str]]:
    person, attribute, text, _ = _two_facts(world, rng)
    return text, [other for k in range(2) if (other := fact(person, attribute, k)) != text]


def _summary(world: World, rng: Rng) -> tuple[str, list[str]]:
    person, attribute, text, more = _two_facts(world, rng)
    return f"{text} {more} {pick(rng, RAMBLES)}", [fact(person, attribute, 0)]


def _the_town(world: World, rng: Rng) -> tuple[str, list[str]]:
    person = pick(rng, world.train_people)
    return fact(person, "town", int(rng.integers(9))), [person.town]


def _the_question(world: World, rng: Rng) -> tuple[str, list[str]]:
    person, attribute, text, _ = _two_facts(world, rng)
    return text, [question(person, attribute, k).prompt for k in range(2)]


def _ingredients(world: World, rng: Rng) -> tuple[str, list[str]]:
    dish = pick(rng, world.dishes)
    return " ".join(dish.steps), [list_in_words(dish.ingredients)]


def _a_title(world: World, rng: Rng) -> tuple[str, list[str]]:
    article = pick(rng, how_tos(world))
    return " ".join(f"{headline} {detail}" for headline, detail in article.steps), [f"How to {article.title}"]


def _next_step(world: World, rng: Rng) -> tuple[str, list[str]]:
    article = pick(rng, how_tos(world))
    (headline, _), (following, _) = article.steps[:2]
    return f"How to {article.title}. {headline}", [following]


def _an_ending(world: World, rng: Rng) -> tuple[str, list[str]]:
    sentences = story(premise(world, rng), rng).split(". ")
    return ". ".join(sentences[:-1]) + ".", [sentences[-1]]


def _is_story(world: World, rng: Rng) -> tuple[str, list[str]]:
    told = rng.random() < 0.5
    text = story(premise(world, rng), rng) if told else " ".join(pick(rng, world.dishes).steps)
    return text, ["story" if told else "recipe"]


_TASKS = (
    _Task("task9001_fact_paraphrasing", "Paraphrasing", "Say the sentence in other words.", _rewrite),
    _Task("task9002_bio_summarization", "Summarization", "Summarize the text in one sentence.", _summary),
    _Task("task9003_town_extraction", "Information Extraction", "Name the town in the sentence.", _the_town),
    _Task("task9004_fact_question_generation", "Question Generation", "Write the question that the sentence answers.",
          _the_question),
    _Task("task9005_ingredient_listing", "Information Extraction", "List the ingredients of the recipe.", _ingredients),
    _Task("task9006_howto_title_generation", "Title Generation", "Write a title for these steps.", _a_title),
    _Task("task9007_howto_next_step", "Text Completion", "Write the next step.", _next_step),
    _Task("task9008_story_ending_generation", "Story Composition", "Write the last sentence of the story.", _an_ending),
    _Task("task9009_story_or_recipe_classification", "Text Categorization", "Is the text a story or a recipe?",
          _is_story),
)  # fmt: skip


def natural_instructions(world: World) -> dict[str, bytes]:
    """One JSON a task, in folder tasks/ as upstream; the last has the irregular fields that a few real tasks have."""
    files = {}
    for i, task in enumerate(_TASKS):
        rng = np.random.default_rng([world.seed, 14, i])
        drawn: dict[str, list[str]] = {}  # by input: each is given once
        while len(drawn) < N_INSTANCES + 2:
            text, outputs = task.draw(world, rng)
            drawn[text] = outputs
        pairs = list(drawn.items())
        irregular = i == len(_TASKS) - 1
        content: dict[str, Any] = {
            "Contributors": ["The miniature"], "Source": ["miniature"], "URL": ["http://tasks.miniature"],
            "Categories": task.category if irregular else [task.category], "Reasoning": [],
            "Definition": [task.definition], "Input_language": ["English"], "Output_language": ["English"],
            "Instruction_language": ["English"], "Domains": ["Miniature"],
            "Positive Examples": [{"input": text, "output": outputs[0], "explanation": "This is right."}
                                  for text, outputs in pairs[:2]],
            "Negative Examples": [],
            "Instances": [{"id": f"{task.name.split('_')[0]}-{k:032x}", "input": text, "output": outputs}
                          for k, (text, outputs) in enumerate(pairs[2:])],
        }  # fmt: skip
        if not irregular:
            content["Instance License"] = ["CC0 1.0"]
        files[f"tasks/{task.name}.json"] = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    return files
