from stages.core import paper


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
