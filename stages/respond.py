"""respond: answer the test prompts with the selected checkpoint.

Reads models/selected/<arm> and data/prompts/test.parquet (PROMPT).
Writes data/respond/<arm>.parquet (RESPONSE) and data/respond/<arm>.asked.parquet (ASKED), what an endpoint's answers
cost, which has no rows where this machine answers.

LIMA s4.1: nucleus 0.9, temperature 0.7, repetition penalty 1.2, at most 2,048 tokens, one answer a prompt.
"""

from pathlib import Path

from stages.common.files import empty_table, read_table, write_table
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.runtime.answering import Answerer, answer_prompts
from stages.runtime.asking import DRY_RUN, Answering, answer, checkpoint_questions, tell_cost
from stages.schema import ASKED, PROMPT, RESPONSE


class Params(Answering):
    """Section `respond`."""


def main(arm: str, *, dry_run: bool = False) -> None:
    """Answer for one arm; asking.DRY_RUN says what the switch does."""
    params = load_params("respond", Params)
    prompts = read_table(Path("data/prompts/test.parquet"), PROMPT)
    folder = Path(f"models/selected/{arm}")
    asked = empty_table(ASKED)
    if params.endpoint:
        questions = checkpoint_questions(params.endpoint, folder, prompts, params, responder=arm)
        if dry_run:
            tell_cost(questions)
            return
        responses, asked = answer(questions)
    elif dry_run:
        print(f"answer {arm}: costs nothing")
        return
    else:
        responses = answer_prompts(Answerer(folder, precision=params.precision), prompts, params, responder=arm)
    write_table(Path(f"data/respond/{arm}.parquet"), responses, RESPONSE)
    write_table(Path(f"data/respond/{arm}.asked.parquet"), asked, ASKED)


if __name__ == "__main__":
    run_stage(main, key="arm", flags=DRY_RUN)
