import polars as pl

from stages.core import paper
from stages.core.agreement_tables import AGREEMENT_GROUPS
from stages.core.paper_tables import paper_agreement_table, paper_preferences_table, paper_shares_table
from stages.core.score_tables import PAIRWISE, SHARES


def test_table_1_adds_up_to_the_papers_totals() -> None:
    by_split = {split: sum(row.n for row in paper.TABLE_1 if row.split == split) for split in ("train", "dev", "test")}
    assert by_split == {"train": 1000, "dev": 50, "test": 300}
    tokens = sum(
        row.n * (row.prompt_tokens + (row.response_tokens or 0)) for row in paper.TABLE_1 if row.split == "train"
    )
    assert 730_000 < tokens < 770_000  # "about 750,000 tokens"


def test_preferences_and_grades_are_whole() -> None:
    assert all(row.win + row.tie + row.lose == 100 for row in paper.PREFERENCES)
    assert paper.FAIL + paper.PASS + paper.EXCELLENT == 100


def test_prompts_stand_beside_the_papers() -> None:
    assert [tuple(row) for row in paper.beside("test", {"authored": 9, "own_group": 1})] == [
        ("test", "r/AskReddit", 70, 30, None),
        ("test", "authored", 230, 31, 9),
        ("test", "own group", None, None, 1),
    ]


def test_a_runs_figures_stand_above_the_papers() -> None:
    pairwise = pl.DataFrame([("bulk", "gpt", "win", 9, 0.6, 0.5, 0.7)], schema=PAIRWISE, orient="row")
    preferences = paper_preferences_table(pairwise, arm="curated")
    assert preferences.row(0) == ("curated", "gpt", "bulk", "win", 0.6)
    assert preferences.height == 1 + 3 * 2 * 5
    assert preferences.filter(source="LIMA 65B", annotator="people", opponent="GPT-4")["rate"].to_list() == [
        0.18, 0.25, 0.57
    ]  # fmt: skip
    shares = pl.DataFrame([("curated", "gpt", "Fail", 9, 0.1, 0.0, 0.4)], schema=SHARES, orient="row")
    assert paper_shares_table(shares).select("source", "share", "rate", "low").rows()[:3] == [
        ("curated", "Fail", 0.1, 0.0), ("LIMA 65B", "Fail", 0.12, None), ("LIMA 65B", "Pass", 0.38, None)
    ]  # fmt: skip
    groups = pl.DataFrame([{"group_a": "gpt", "group_b": "people", "agreement": 0.8}], schema=AGREEMENT_GROUPS)
    assert paper_agreement_table(groups).select("source", "annotators", "agreement").rows()[:2] == [
        ("this run", "gpt – people", 0.8), ("LIMA 65B", "crowd – crowd", 0.82)
    ]  # fmt: skip
    empty = (paper_preferences_table(pairwise.clear(), arm="x"), paper_shares_table(shares.clear()))
    assert [table.height for table in empty] == [30, 5]
