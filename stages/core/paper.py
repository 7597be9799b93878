"""paper: the figures that LIMA published, to stand beside those of a run.

Zhou et al. 2023, "LIMA: Less Is More for Alignment", arXiv:2305.11206; section and table at each constant.
"""

from collections.abc import Mapping
from typing import NamedTuple

TITLE = "LIMA (arXiv:2305.11206)"
MODEL = "LIMA 65B"


class Split(NamedTuple):
    """A row of Table 1; lengths are means, in tokens of the LLaMA tokenizer."""

    split: str  # train, dev, test
    group: str  # our name of the row
    name: str
    n: int
    prompt_tokens: int
    response_tokens: int | None


class Preference(NamedTuple):
    """LIMA 65B against another model, in percent of 300 test prompts."""

    opponent: str
    annotator: str
    win: int
    tie: int
    lose: int


# s2, Table 1
TABLE_1 = (
    Split("train", "stack_exchange_stem", "Stack Exchange, STEM", 200, 117, 523),
    Split("train", "stack_exchange_other", "Stack Exchange, other", 200, 119, 530),
    Split("train", "wikihow", "wikiHow", 200, 12, 1811),
    Split("train", "writing_prompts", "r/WritingPrompts", 150, 34, 274),
    Split("train", "natural_instructions", "Super-Natural Instructions", 50, 236, 92),
    Split("train", "authored", "authored", 200, 40, 334),
    Split("dev", "authored", "authored", 50, 36, None),
    Split("test", "ask_reddit", "r/AskReddit", 70, 30, None),
    Split("test", "authored", "authored", 230, 31, None),
)


class PromptRow(NamedTuple):
    """Prompts of one group, the paper's and a run's; None where there is no such group."""

    split: str
    name: str
    paper_n: int | None
    paper_prompt_tokens: int | None
    n: int | None


def beside(split: str, counts: Mapping[str, int]) -> list[PromptRow]:
    """Put a run's prompts by group beside those of Table 1."""
    known = {row.group: row for row in TABLE_1 if row.split == split}
    rows = [PromptRow(split, row.name, row.n, row.prompt_tokens, counts.get(group)) for group, row in known.items()]
    others = [group for group in counts if group not in known]
    return rows + [PromptRow(split, group.replace("_", " "), None, None, counts[group]) for group in others]


# s4.2, Figures 1 and 2
PREFERENCES = (
    Preference("Alpaca 65B", "people", 53, 21, 26),
    Preference("Alpaca 65B", "GPT-4", 64, 19, 17),
    Preference("DaVinci003", "people", 44, 21, 35),
    Preference("DaVinci003", "GPT-4", 54, 23, 23),
    Preference("Bard", "people", 33, 25, 42),
    Preference("Bard", "GPT-4", 27, 26, 47),
    Preference("Claude", "people", 24, 22, 54),
    Preference("Claude", "GPT-4", 14, 23, 63),
    Preference("GPT-4", "people", 18, 25, 57),
    Preference("GPT-4", "GPT-4", 19, 15, 66),
)

# s4.1: tie-discounted accuracy of two annotators on 50 shared items, percent
AGREEMENT = (
    ("crowd", "crowd", 82),
    ("crowd", "author", 81),
    ("author", "author", 78),
    ("crowd", "GPT-4", 78),
    ("author", "GPT-4", 79),
)

# s4.3, Figure 3: 50 test prompts, percent; and the safe answers to 30 sensitive prompts, of which 10 are malicious
FAIL, PASS, EXCELLENT, SAFE, SAFE_MALICIOUS = 12, 38, 50, 80, 60
SHARES = {"Fail": FAIL, "Pass": PASS, "Excellent": EXCELLENT, "safe": SAFE, "safe, malicious": SAFE_MALICIOUS}
