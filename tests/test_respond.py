import pytest

from stages.errors import InputError
from stages.respond import main
from stages.runtime.files import empty_table, read_table, write_table
from stages.schema import PROMPT, RESPONSE
from tests.tiny import DECODING, make_base, prompts, write_params


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_base(tmp_path / "models/selected/curated")
    write_table(tmp_path / "data/prompts/test.parquet", prompts(["Hi", "Who?", "Why so?", "No"]), PROMPT)
    write_params(tmp_path, respond=DECODING)
    return tmp_path


def test_each_test_prompt_gets_one_answer(project):
    main("curated")
    table = read_table(project / "data/respond/curated.parquet", RESPONSE)
    assert table["prompt_id"].to_list() == [f"authored:test{i:03d}" for i in range(4)]
    assert set(table["responder"]) == {"curated"}
    assert table["response"].str.strip_chars().equals(table["response"])


def test_the_seed_decides_what_is_sampled(project):
    texts = []
    for seed in (0, 0, 1):
        write_params(project, respond={**DECODING, "temperature": 2.0, "seed": seed})
        main("curated")
        texts.append(read_table(project / "data/respond/curated.parquet", RESPONSE)["response"].to_list())
    assert texts[0] == texts[1] != texts[2]


def test_an_answer_stays_when_other_prompts_go(project):
    main("curated")
    whole = read_table(project / "data/respond/curated.parquet", RESPONSE)
    write_table(project / "data/prompts/test.parquet", prompts(["Hi", "Who?"]), PROMPT)
    main("curated")
    assert read_table(project / "data/respond/curated.parquet", RESPONSE).equals(whole.head(2))


def test_a_prompt_beyond_the_models_positions_gets_an_empty_answer_that_says_length(project):
    write_table(project / "data/prompts/test.parquet", prompts(["x" * 400, "Hi"]), PROMPT)
    main("curated")
    first = read_table(project / "data/respond/curated.parquet", RESPONSE).row(0, named=True)
    assert (first["response"], first["finish_reason"], first["n_tokens"]) == ("", "length", 0)


def test_no_prompts_is_one_sentence(project):
    write_table(project / "data/prompts/test.parquet", empty_table(PROMPT), PROMPT)
    with pytest.raises(InputError, match="no prompts to answer"):
        main("curated")
