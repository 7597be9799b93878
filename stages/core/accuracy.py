"""accuracy: what can be checked of answers to prompts with references.

Measures of an answer: `exact` (right, stages/core/reference.py), `contains` (an accepted
value stands in it, whether or not it is exact) and `finished` (the model ended it by itself).
"""

from collections.abc import Mapping

import polars as pl

from stages.core.judging import Answer, Prompt
from stages.core.presentations import Key
from stages.core.reference import Match, is_finished, match

MEASURES = ("exact", "contains", "finished")

MEASURED: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "sample": pl.Int32(),
    **{measure: pl.Float64() for measure in MEASURES},
}


def measure_answers(answers: Mapping[Key, Answer], prompts: Mapping[str, Prompt]) -> pl.DataFrame:
    """MEASURED rows of the answers whose prompts have references, in the order of `answers`."""
    rows = []
    for (prompt_id, sample), answer in answers.items():
        if references := prompts[prompt_id].references:
            found = match(answer.text, references, finish_reason=answer.finish_reason)
            flags = (found == Match.RIGHT, found >= Match.CONTAINS, is_finished(answer.finish_reason))
            rows.append((prompt_id, sample, *map(float, flags)))
    return pl.DataFrame(rows, schema=MEASURED, orient="row")
