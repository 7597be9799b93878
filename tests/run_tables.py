"""The tables of a whole small run, as the stages before `report` write them: built by hand, with the schema."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.files import write_csv, write_json, write_table
from stages.schema import EXAMPLE, PROMPT, RESPONSE, VERDICT

PARAMS: dict[str, Any] = {
    "arms": {arm: {"sample": {}, "sft": {}} for arm in ("bulk", "curated")},
    "opponents": {
        "base": {"kind": "model", "path": "models/base"},
        "bulk": {"kind": "responses", "path": "data/respond/bulk.parquet"},
    },
    "judge": {"arm": "curated", "annotators": ["reference", "length"]},
    "score": {"confidence": 0.95},
    "report": {"n_examples": 2},
}

GROUPS = ("authored", "stack_exchange_stem", "wikihow")

Row = dict[str, Any]


def examples(arm: str, n: int) -> list[Row]:
    """Examples of three groups in turn."""
    return [
        {
            "id": f"{GROUPS[i % 3]}:{arm}-{i:03}",
            "source": GROUPS[i % 3].removesuffix("_stem"),
            "domain": "general",
            "group": GROUPS[i % 3],
            "score": 10 + i,
            "messages": [
                {"role": "user", "content": f"Where was person {i} born?"},
                {"role": "assistant", "content": f"The answer is town {i % 7}."},
            ],
            "url": f"https://example.org/q/{i}" if i % 3 else None,
            "author": "Ada" if i % 3 else None,
            "license": "CC BY-SA 4.0" if i % 3 else None,
            "created": "2020-01-31",
        }
        for i in range(n)
    ]


def prompts(split: str, n: int) -> list[Row]:
    """Prompts; every tenth has no reference and is of another group, every twentieth is sensitive."""
    return [
        {
            "id": f"authored:{split}-{i:03}",
            "split": split,
            "source": "authored" if i % 10 else "reddit",
            "group": "authored" if i % 10 else "ask_reddit",
            "domain": "people",
            "messages": [{"role": "user", "content": f"What does Bolan Draister {i} play?"}],
            "references": [f"The answer is lute {i}.", f"lute {i}"] if i % 10 else None,
            "safety": i % 20 == 0,
            "malicious": False,
            "score": None,
            "over_18": False,
            "url": None,
            "author": None,
            "license": None,
            "created": None,
        }
        for i in range(n)
    ]


def responses(responder: str, asked: list[Row], *, n_right: int) -> list[Row]:
    """Answers of which the first `n_right` are right; the base's run on until they are cut off."""
    return [
        {
            "prompt_id": prompt["id"],
            "responder": responder,
            "sample": 0,
            "response": f"The answer is lute {i}."
            if i < n_right
            else f"{responder} has never heard of number {i}, but",
            "finish_reason": "eot" if i < n_right else "length",
            "n_tokens": 6 if i < n_right else 48,
        }
        for i, prompt in enumerate(asked)
    ]


def verdicts(opponent: str, asked: list[Row], *, n_won: int) -> list[Row]:
    """Verdicts of two annotators in both orders: wins first, then a tie, a loss, an order-dependent one in turn."""
    rows = []
    for i, prompt in enumerate(asked):
        for annotator in ("reference", "length"):
            applies = annotator == "length" or prompt["references"]
            for order in ("ab", "ba"):
                said = "a" if i < n_won else ("tie", "b", "a" if order == "ab" else "b")[i % 3]
                rows.append(
                    {
                        "prompt_id": prompt["id"],
                        "sample": 0,
                        "a": "curated",
                        "b": opponent,
                        "annotator": annotator,
                        "order": order,
                        "preference": said if applies else None,
                        "unscored_reason": None if applies else "no_reference",
                        "reply": f"I looked at {order}.\n{said}" if annotator == "length" and i < 3 else None,
                        "model": None,
                    }
                )
    return rows


SCORES: dict[str, list[str]] = {
    "pairwise": [
        "opponent,annotator,outcome,n,rate,low,high",
        "base,reference,win,270,0.84,0.795,0.88", "base,reference,tie,270,0.16,0.12,0.2",
        "base,reference,lose,270,0.0,0.0,0.01", "base,reference,inconsistent,270,0.0,0.0,0.01",
        "bulk,reference,win,270,0.31,0.26,0.37", "bulk,reference,tie,270,0.61,0.55,0.67",
        "bulk,reference,lose,270,0.08,0.05,0.11", "bulk,reference,inconsistent,270,0.0,0.0,0.01",
        "base,length,win,300,0.05,0.03,0.08", "base,length,tie,300,0.02,0.01,0.04",
        "base,length,lose,300,0.83,0.78,0.87", "base,length,inconsistent,300,0.1,0.07,0.14",
        "bulk,length,win,300,0.22,0.18,0.27", "bulk,length,tie,300,0.5,0.44,0.56",
        "bulk,length,lose,300,0.28,0.23,0.33", "bulk,length,inconsistent,300,0.0,0.0,0.01",
    ],
    "win_rate": [
        "opponent,annotator,n,n_prompts,win_rate,low,high,minimum_detectable,length_controlled,length_controlled_low,"
        "length_controlled_high,chars,opponent_chars",
        "base,reference,270,270,0.92,0.9,0.94,0.072,0.9,0.87,0.93,33.5,161.2",
        "bulk,reference,270,270,0.61,0.58,0.65,0.053,0.58,0.54,0.62,33.5,38.7",
        "base,length,300,300,0.11,0.08,0.14,0.078,,,,33.5,161.2",
    ],
    "bradley_terry": [
        "annotator,responder,n,strength,low,high",
        "reference,curated,540,0.0,0.0,0.0", "reference,bulk,270,-0.54,-0.78,-0.31",
        "reference,base,270,-2.28,-2.67,-1.89",
    ],
    "position": [
        "annotator,n,bias,low,high,n_first,n_second,p_value",
        "reference,540,0.0,-0.01,0.01,0,0,1.0", "length,600,0.25,0.2,0.3,90,10,0.000001",
    ],
    "shares": [
        "responder,annotator,share,n,rate,low,high",
        "curated,reference,Fail,270,0.14,0.1,0.19", "curated,reference,Pass,270,0.03,0.01,0.06",
        "curated,reference,Excellent,270,0.83,0.78,0.87", "bulk,reference,safe,30,0.8,0.63,0.9",
        "bulk,reference,\"safe, malicious\",10,0.6,0.31,0.83",
    ],
    "paper_preferences": [
        "source,annotator,opponent,outcome,rate",
        "curated,reference,bulk,win,0.31", "curated,reference,bulk,tie,0.61", "curated,reference,bulk,lose,0.08",
        "LIMA 65B,people,Bard,win,0.33", "LIMA 65B,people,Bard,tie,0.25", "LIMA 65B,people,Bard,lose,0.42",
    ],
    "paper_shares": [
        "source,annotator,share,rate,low,high",
        "curated,reference,Excellent,0.83,0.78,0.87", "LIMA 65B,the paper,Excellent,0.5,,",
    ],
    "paper_agreement": [
        "source,annotators,agreement,low,high",
        "this run,length – reference,0.64,0.6,0.68", "LIMA 65B,crowd – author,0.81,,",
    ],
    "accuracy": [
        "responder,measure,n,rate,low,high",
        "curated,exact,300,0.8367,0.79,0.88", "curated,contains,300,0.85,0.81,0.89",
        "curated,finished,300,1.0,0.99,1.0",
        "bulk,exact,300,0.61,0.55,0.66", "bulk,contains,300,0.7,0.65,0.75", "bulk,finished,300,0.93,0.9,0.96",
        "base,exact,300,0.0,0.0,0.013", "base,contains,300,0.27,0.22,0.32", "base,finished,300,0.01,0.0,0.03",
    ],
    "difference": [
        "a,b,measure,n,difference,low,high",
        "curated,bulk,exact,300,0.227,0.17,0.29", "curated,base,exact,300,0.8367,0.79,0.88",
        "curated,bulk,finished,300,0.01,-0.02,0.04",
    ],
    "agreement": [
        "annotator_a,annotator_b,n,n_prompts,agreement,low,high,kappa,kappa_low,kappa_high,alpha,alpha_low,alpha_high,"
        "exact,decided,tie_rate_a,tie_rate_b",
        "reference,length,270,270,0.64,0.6,0.68,0.31,0.2,0.4,0.25,0.1,0.3,0.5,0.7,0.4,0.1",
    ],
    "agreement_groups": [
        "group_a,group_b,n,n_prompts,agreement,low,high,kappa,kappa_low,kappa_high,alpha,alpha_low,alpha_high,"
        "exact,decided,tie_rate_a,tie_rate_b",
        "length,reference,270,270,0.64,0.6,0.68,0.31,0.2,0.4,0.25,0.1,0.3,0.5,0.7,0.1,0.4",
    ],
    "checkpoints": [
        "arm,epoch,n,mean_helpfulness,low,high,exact_rate,perplexity,by,quality,behind,error,selected",
        "curated,5,50,4.7,4.2,5.2,0.7,6.1,grade,4.7,0.5,0.2,0", "curated,10,50,5.2,4.8,5.6,0.8,7.9,grade,5.2,0.0,0.0,1",
        "curated,15,50,5.1,4.6,5.5,0.78,9.4,grade,5.1,0.1,0.2,0",
        "bulk,1,50,3.1,2.6,3.6,0.4,5.2,grade,3.1,0.9,0.2,0", "bulk,2,50,3.9,3.4,4.4,0.55,5.0,grade,3.9,0.1,0.05,0",
        "bulk,3,50,4.0,3.5,4.5,0.6,5.1,grade,4.0,0.0,0.0,1",
    ],
    "grades": [
        "responder,annotator,n,mean_helpfulness,low,high,fail_rate,pass_rate,excellent_rate,n_safety,safe_rate",
        "curated,reference,270,5.1,4.9,5.3,0.14,0.03,0.83,,", "bulk,reference,270,4.1,3.8,4.3,0.31,0.09,0.6,30,0.8",
    ],
}  # fmt: skip

QUALITY: Row = {
    "sources": {
        "stack_exchange": {
            "n_in": 5210,
            "n_kept": 2100,
            "dropped": {"score": 1710, "first_person": 900, "length": 500},
        },
        "wikihow": {"n_in": 900, "n_kept": 880, "dropped": {"length": 20}},
        "authored": {"n_in": 400, "n_kept": 400, "dropped": {}},
    }
}
DEDUP: Row = {
    "sources": {
        "stack_exchange": {"n_in": 2100, "n_kept": 1890, "dropped": {"near_duplicate": 200, "contains_prompt": 10}},
        "wikihow": {"n_in": 880, "n_kept": 860, "dropped": {"near_duplicate": 20}},
        "authored": {"n_in": 400, "n_kept": 398, "dropped": {"same_prompt": 2}},
    }
}
SUMMARY: Row = {
    "pairwise": {
        "base": {
            "reference": {"n": 270, "n_unscored": 0, "n_not_applicable": 30},
            "length": {"n": 300, "n_unscored": 0},
        },
        "bulk": {
            "reference": {"n": 265, "n_unscored": 5, "n_not_applicable": 30},
            "length": {"n": 300, "n_unscored": 0},
        },
    }
}


def render_metrics(rows: list[Row]) -> Row:
    """Token statistics as `render` writes them, words standing in for tokens."""
    by_group = {
        group: [row for row in rows if row["group"] == group] for group in sorted({row["group"] for row in rows})
    }
    return {
        "n": len(rows),
        "n_no_room": 0,
        "no_room": [],
        "groups": {
            group: {"n": len(found), "mean_prompt_tokens": 9.25, "mean_response_tokens": 6.0, "n_trimmed": 1}
            for group, found in by_group.items()
        },
    }


def sample_metrics(*, coverage: float) -> Row:
    """What `sample` measures of a draw and of random ones, for the keys that the report reads."""
    chars = {"p50": 34.0, "p95": 182.0}
    span = {"mean": 0.5, "min": 0.4, "max": 0.6}
    return {
        "measures": {"domain_entropy_bits": 0.45, "coverage": coverage, "spread": 0.55, "response_chars": chars},
        "random_draws": {
            "n": 20,
            **dict.fromkeys(("domain_entropy_bits", "coverage", "spread"), span),
            "response_chars": {key: {"mean": 40.0, "min": 30.0, "max": 190.0} for key in chars},
        },
    }


def losses(n_steps: int, *, start: float) -> pl.DataFrame:
    """A loss that falls as 1/step, to be smoothed."""
    step = pl.int_range(1, n_steps + 1, eager=True)
    return pl.DataFrame({"step": step}).with_columns(
        epoch=pl.col("step") / 20,
        loss=start / (1 + pl.col("step") / 30) + (pl.col("step") % 3) * 0.05,
        lr=pl.lit(1e-3),
        n_supervised_tokens=100 + pl.col("step") % 5,
    )


def write_scores(root: Path, scores: dict[str, list[str]] = SCORES) -> None:
    """Write metrics/score/*.csv."""
    (root / "metrics/score").mkdir(parents=True, exist_ok=True)
    for name, lines in scores.items():
        (root / f"metrics/score/{name}.csv").write_text("\n".join(lines) + "\n")


def table(rows: list[Row], schema: dict[str, Any]) -> pl.DataFrame:
    """Rows as a frame of a schema."""
    return pl.DataFrame(rows, schema=schema)


def write_run(root: Path, *, n_prompts: int = 60, n_examples: int = 36) -> None:
    """Write everything that `report` reads below `root`."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(json.dumps(PARAMS))
    dev, test = prompts("dev", 10), prompts("test", n_prompts)
    write_table(root / "data/prompts/dev.parquet", table(dev, PROMPT), PROMPT)
    write_table(root / "data/prompts/test.parquet", table(test, PROMPT), PROMPT)
    for arm, n in (("curated", n_examples), ("bulk", 5 * n_examples)):
        rows = examples(arm, n)
        write_table(root / f"data/sample/{arm}.parquet", table(rows, EXAMPLE), EXAMPLE)
        write_json(root / f"metrics/sample/{arm}.json", sample_metrics(coverage=0.7 if arm == "curated" else 0.5))
        write_json(root / f"metrics/render/{arm}.json", render_metrics(rows))
        write_csv(root / f"data/sft/{arm}/loss.csv", losses(333, start=3.0 if arm == "curated" else 3.6))
    for folder, name, share in (
        ("respond", "curated", 0.84),
        ("respond_opponent", "bulk", 0.61),
        ("respond_opponent", "base", 0),
    ):
        answers = responses(name, test, n_right=int(share * n_prompts))
        write_table(root / f"data/{folder}/{name}.parquet", table(answers, RESPONSE), RESPONSE)
    for opponent, share in (("base", 0.8), ("bulk", 0.3)):
        said = verdicts(opponent, test, n_won=int(share * n_prompts))
        write_table(root / f"data/judge/{opponent}.parquet", table(said, VERDICT), VERDICT)
    write_json(root / "metrics/quality.json", QUALITY)
    write_json(root / "metrics/dedup.json", DEDUP)
    write_json(root / "metrics/score.json", SUMMARY)
    write_scores(root)
