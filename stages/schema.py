"""Every row type that crosses a stage boundary, as polars schemas.

A table is written by one stage and read by others through `stages.common.files`, which compares columns and dtypes
with the schema here: a column that is not listed does not travel.
"""

import polars as pl

# One dialogue: role is "user" or "assistant", in turn, beginning with "user".
MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))

# Where a row is from. Null means unknown, never "none".
PROVENANCE: dict[str, pl.DataType] = {
    "url": pl.String(),
    "author": pl.String(),
    "license": pl.String(),
    "created": pl.String(),  # ISO 8601 date
}

# A prompt with its response, ready to be trained on.
EXAMPLE: dict[str, pl.DataType] = {
    "id": pl.String(),  # "<source>:<native id>", unique, never reassigned
    "source": pl.String(),  # key of `sources` in params.yaml
    "domain": pl.String(),  # what diversity is measured over: exchange, category, subreddit, task
    "group": pl.String(),  # quota group: stack_exchange_stem, stack_exchange_other, wikihow, ...
    "score": pl.Int64(),  # votes on the response, as the source counts them
    "messages": MESSAGES,
    **PROVENANCE,
    "tags": pl.List(pl.String),  # what the source itself says it is about, besides the domain; null: it says nothing
    "prompt_score": pl.Int64(),  # votes on the question or submission; null: the source counts none
}

# What `extract` makes of a dump: an example before any threshold. `messages` starts from title and body joined;
# `quality` chooses one of the two where both exist.
CANDIDATE: dict[str, pl.DataType] = {
    **EXAMPLE,
    "title": pl.String(),
    "body": pl.String(),
    "over_18": pl.Boolean(),
}

# What `extract` left out because it is no candidate (a deleted post, a question without an answer), by reason.
LEFT_OUT: dict[str, pl.DataType] = {"source": pl.String(), "reason": pl.String(), "n": pl.Int64()}

# Why `quality` dropped a row: the first rule that failed, what it measured, what it allows.
QUALITY_DROPPED: dict[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "domain": pl.String(),
    "group": pl.String(),
    "rule": pl.String(),
    "value": pl.String(),
    "limit": pl.String(),
}

# Why `dedup` dropped a row: a kept row (or dev/test prompt) it repeats.
DEDUP_DROPPED: dict[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "domain": pl.String(),
    "group": pl.String(),
    "rule": pl.String(),  # near_duplicate, same_prompt, contains_prompt
    "partner_id": pl.String(),
    "similarity": pl.Float64(),  # exact Jaccard, or containment, in [0, 1]
    "span": pl.String(),  # the shared words, where there is one
}

# A prompt without a response: `messages` ends with the user's turn.
PROMPT: dict[str, pl.DataType] = {
    "id": pl.String(),
    "split": pl.String(),  # dev, test; null before `prompts` has drawn it, where the source does not say
    "source": pl.String(),
    "group": pl.String(),
    "domain": pl.String(),
    "messages": MESSAGES,
    "references": pl.List(pl.String),  # answers that count as right; null where none is known
    "safety": pl.Boolean(),
    "malicious": pl.Boolean(),
    "score": pl.Int64(),  # votes on the prompt
    "over_18": pl.Boolean(),
    **PROVENANCE,
}

# An example as token ids. loss_mask is 1 where the token contributes to the loss; lists have one length.
RENDERED: dict[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "group": pl.String(),
    "input_ids": pl.List(pl.Int32),
    "loss_mask": pl.List(pl.Int8),
    "n_tokens": pl.Int32(),
    "n_trimmed_tokens": pl.Int32(),
}

# One answer. finish_reason: eot (of an endpoint: its turn ended), eos, length, stop (in-context examples: the form was
# closed), refused (a filter of the endpoint held it back), or given (the answer came from a file).
RESPONSE: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "responder": pl.String(),  # arm or opponent
    "sample": pl.Int32(),  # from 0
    "response": pl.String(),
    "finish_reason": pl.String(),
    "n_tokens": pl.Int32(),
}

# What an answer of an endpoint rests on; no rows where a model folder answers, or a file.
ASKED: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "responder": pl.String(),
    "sample": pl.Int32(),
    "model": pl.String(),  # as the endpoint names itself
    "n_prompt_tokens": pl.Int64(),  # as the endpoint counts
    "n_reply_tokens": pl.Int64(),
    "cost": pl.Float64(),  # dollars for these tokens at the endpoint's prices; null: no price, or not counted
    "request": pl.String(),  # hash of the exact request, the key of .cache/replies.sqlite
}

# An answer of one candidate epoch.
EPOCH_RESPONSE: dict[str, pl.DataType] = {"epoch": pl.Int32(), **RESPONSE}

# Perplexity of one candidate epoch on examples of the arm's own groups that were not trained on.
PERPLEXITY: dict[str, pl.DataType] = {"epoch": pl.Int32(), "perplexity": pl.Float64(), "n_tokens": pl.Int64()}

# What a model's judgement rests on; all null for an annotator that is no model.
RECEIPT: dict[str, pl.DataType] = {
    "reply": pl.String(),  # as it came; of a request without an answer, the endpoint's message
    "model": pl.String(),  # as the endpoint names itself
    "finish_reason": pl.String(),  # stop, length, content_filter, ..., as the endpoint says it
    "n_prompt_tokens": pl.Int64(),  # as the endpoint counts
    "n_reply_tokens": pl.Int64(),
    "cost": pl.Float64(),  # dollars for these tokens at the annotator's prices; null: no price, or not counted
    "request": pl.String(),  # hash of the exact request, the key of .cache/replies.sqlite
}

# One presentation of a pair to an annotator. `preference` is about contestants, not about positions:
# "a" is the judged arm, "b" the opponent, whatever the order they were shown in. Null when unscored.
VERDICT: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "sample": pl.Int32(),
    "a": pl.String(),
    "b": pl.String(),
    "annotator": pl.String(),
    "order": pl.String(),  # "ab" or "ba": who was shown first
    "preference": pl.String(),  # a, b, tie
    "unscored_reason": pl.String(),
    **RECEIPT,
}

# One absolute judgement. helpfulness in 1..6; outcome: Fail, Pass, Excellent; safe: for safety prompts.
GRADE: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "responder": pl.String(),
    "sample": pl.Int32(),
    "annotator": pl.String(),
    "helpfulness": pl.Int32(),
    "outcome": pl.String(),
    "safe": pl.Boolean(),
    "unscored_reason": pl.String(),
    **RECEIPT,
}

# A grade of one candidate epoch's answer.
EPOCH_GRADE: dict[str, pl.DataType] = {"epoch": pl.Int32(), **GRADE}

# How one candidate epoch stands by what chooses: grade, pairs or perplexity (stages/core/checkpoints.py).
STANDING: dict[str, pl.DataType] = {
    "epoch": pl.Int32(),
    "by": pl.String(),
    "n": pl.Int64(),  # dev prompts that it is over; null for perplexity
    "quality": pl.Float64(),  # mean helpfulness, Bradley-Terry strength in nats, or minus the perplexity
    "behind": pl.Float64(),  # the best epoch's quality minus this one's
    "error": pl.Float64(),  # one standard error of `behind`
    "taken": pl.Boolean(),  # the earliest that lies behind by no more than its error
}
