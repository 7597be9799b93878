"""checkpoints: which candidate epoch is taken.

The best mean helpfulness wins; within noise the earlier epoch does. Noise is one standard error of the paired
difference between an epoch and the best one, over the dev prompts that every epoch has a grade for (a prompt's grade
is the mean over its samples). So: the earliest epoch whose mean is within one standard error of the best. With fewer
than two such prompts nothing is known of the noise and the earliest candidate is taken.

The paper chose by hand between epochs 5 and 10 on 50 dev prompts (s3, Appendix B); the rule is ours, after the
one-standard-error rule of Breiman et al. 1984, s3.4.3.
"""

import polars as pl

from stages.core.intervals import standard_error


def choose_epoch(grades: pl.DataFrame) -> int:
    """The epoch that the rule takes, from grades of one annotator (schema.EPOCH_GRADE, at least one row)."""
    epochs = sorted(grades["epoch"].unique().to_list())
    per_prompt = (  # (prompt_id, epoch, helpfulness), null where no sample has a grade
        grades.group_by("prompt_id", "epoch").agg(pl.col("helpfulness").mean()).sort("prompt_id", "epoch")
    )
    table = per_prompt.pivot(on="epoch", index="prompt_id", values="helpfulness").drop_nulls()
    if table.height < 2:
        return int(epochs[0])
    scores = table.select(str(epoch) for epoch in epochs).to_numpy()  # (n_prompts, n_epochs)
    means = scores.mean(axis=0)
    behind = scores[:, [int(means.argmax())]] - scores
    within_noise = behind.mean(axis=0) <= standard_error(behind)
    return int(epochs[int(within_noise.argmax())])
