"""Which step is tried, and what is said of it."""

from stages.core.preflight import Told, heaviest, remedies, span, table
from stages.core.schedule import Step
from stages.core.training_cost import Run, Setting, Shape

SHAPE = Shape(2, 8, 16, 2, 2, 4, 100, tied=False)
RUN = Run(SHAPE, Setting(is_bf16=True, micro_batch_tokens=8, gradient_checkpointing=False), [3, 4], 480, 3)


def step(number: int, *examples: int) -> Step:
    return Step(number, 1, 0.1, list(examples), ends_epoch=False)


def test_the_heaviest_step_has_the_largest_pack_not_the_most_tokens():
    lengths = [6, 4, 4, 4, 9, 1]
    steps = [step(1, 1, 2, 3), step(2, 4), step(3, 0, 5)]  # packs of at most 10: 8 + 4, 9, 7
    assert heaviest(steps, lengths, max_tokens=10, n_workers=1).step == 2


def test_of_equal_packs_the_step_with_the_most_tokens_and_then_the_first():
    lengths = [5, 5, 5, 5]
    steps = [step(1, 0), step(2, 0, 1), step(3, 2, 3)]
    assert heaviest(steps, lengths, max_tokens=5, n_workers=1).step == 2


def test_work_that_is_shared_makes_smaller_packs():
    lengths = [4, 4, 7]
    steps = [step(1, 0, 1), step(2, 2)]
    assert heaviest(steps, lengths, max_tokens=10, n_workers=1).step == 1  # 8 against 7
    assert heaviest(steps, lengths, max_tokens=10, n_workers=2).step == 2  # 4 against 7


def test_estimate_and_measurement_stand_side_by_side():
    estimate, measured = Told(3 * 2**30, 2e9, None), Told(2.5 * 2**30, 2.14e9, 90)
    assert table(estimate, measured, arm="curated", memory_bytes=80 * 2**30, run=RUN).splitlines() == [
        "sft curated: preflight    estimate    measured",
        "  memory a process         3.0 GiB     2.5 GiB  of 80.0 GiB",
        "  disk a candidate          2.0 GB      2.1 GB  3 of them",
        "  time of the run                -     1.5 min  480 steps",
    ]


def test_spans_of_time():
    assert [span(s) for s in (None, 0.4, 59, 100, 10_000)] == ["-", "0 s", "59 s", "1.7 min", "2.8 h"]


def test_the_remedy_names_what_is_left_to_do():
    small = remedies("single", checkpoints=False, micro_batch_tokens=8192, longest=2048, is_lora=False)
    assert small.startswith("set sft.gradient_checkpointing to true, lower sft.micro_batch_tokens (8192; the longest ")
    assert small.endswith("LIMA_STRATEGY=zero3-offload, set sft.method to lora, take more GPUs, or a smaller base")
    assert [
        remedies(strategy, checkpoints=True, micro_batch_tokens=9, longest=9, is_lora=True).split(",")[0]
        for strategy in ("ddp", "zero2", "zero3", "zero3-offload")
    ] == ["set LIMA_STRATEGY=zero2", "set LIMA_STRATEGY=zero3", "set LIMA_STRATEGY=zero3-offload", "take more GPUs"]
    assert remedies(None, checkpoints=True, micro_batch_tokens=9, longest=9, is_lora=True).startswith(
        "take a machine with more memory"
    )
