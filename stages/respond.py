"""respond: answer the test prompts with the selected checkpoint.

Reads models/selected/<arm> and data/prompts/test.parquet (PROMPT).
Writes data/respond/<arm>.parquet (RESPONSE).

LIMA s4.1: nucleus 0.9, temperature 0.7, repetition penalty 1.2, at most 2,048 tokens, one answer a prompt.
"""

from pathlib import Path

from stages.runtime.answering import Answerer, answer_prompts
from stages.runtime.asking import Answering, ask_checkpoint
from stages.runtime.files import read_table, write_table
from stages.runtime.main import run_stage
from stages.runtime.params import load_params
from stages.schema import PROMPT, RESPONSE


class Params(Answering):
    """Section `respond`."""


def main(arm: str) -> None:
    """Answer for one arm."""
    params = load_params("respond", Params)
    prompts = read_table(Path("data/prompts/test.parquet"), PROMPT)
    folder = Path(f"models/selected/{arm}")
    if params.endpoint:
        responses = ask_checkpoint(params.endpoint, folder, prompts, params, responder=arm)
    else:
        answerer = Answerer(folder, precision=params.precision)
        responses = answer_prompts(answerer, prompts, params, responder=arm)
    write_table(Path(f"data/respond/{arm}.parquet"), responses, RESPONSE)


if __name__ == "__main__":
    run_stage(main, key="arm")
