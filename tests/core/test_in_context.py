import re
from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.core.in_context import STOP, in_context_text

ROOT = Path(__file__).parents[2]


def test_a_dialogue_is_written_turn_by_turn_and_its_reply_left_open():
    turns = ["Hi", "Yes?", "Who are you?"]
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    assert in_context_text(messages, template="Talk:\n\n{{dialogue}}\n") == (
        "Talk:\n\n<message>\nHi\n</message>\n<reply>\nYes?\n</reply>\n<message>\nWho are you?\n</message>\n<reply>\n"
    )


def test_a_prompt_that_names_a_placeholder_stays_as_it_is():
    text = in_context_text([{"role": "user", "content": "{{dialogue}} $1 \\1"}], template="{{dialogue}}")
    assert text == "<message>\n{{dialogue}} $1 \\1\n</message>\n<reply>\n"


def test_a_template_without_the_dialogue_is_one_sentence():
    with pytest.raises(InputError, match=r"in_context\.txt: must name each of"):
        in_context_text([], template="Talk")


def test_the_examples_have_the_form_that_the_prompt_gets():
    template = (ROOT / "stages/templates/in_context.txt").read_text()
    examples = re.findall(
        r"^<message>\n(.+?)\n</message>\n<reply>\n(.+?)\n</reply>$", template, re.DOTALL | re.MULTILINE
    )
    assert len(examples) == 3
    assert template.count(STOP) == 3 + 1  # and where the form is explained
    assert template.endswith("\n\n{{dialogue}}\n")
