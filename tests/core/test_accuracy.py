"""What can be checked of an answer."""

from stages.core.accuracy import measure_answers
from stages.core.judging import Answer, Prompt


def test_exact_contains_and_finished_are_measured_where_there_are_references() -> None:
    prompts = {"p:1": Prompt("p:1", "Town?", ("Vola",)), "p:2": Prompt("p:2", "Story?")}
    answers = {
        ("p:1", 0): Answer("Vola", "eot"),
        ("p:1", 1): Answer("Vola and", "length"),
        ("p:1", 2): Answer("Brum", "eos"),
        ("p:1", 3): Answer("Vola", "length"),
        ("p:2", 0): Answer("Once", "eot"),
    }
    assert measure_answers(answers, prompts).rows() == [
        ("p:1", 0, 1.0, 1.0, 1.0),
        ("p:1", 1, 0.0, 1.0, 0.0),
        ("p:1", 2, 0.0, 0.0, 1.0),
        ("p:1", 3, 0.0, 1.0, 0.0),
    ]
    assert measure_answers({}, prompts).is_empty()
