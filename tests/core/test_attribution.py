from __future__ import annotations

import re

import pytest

from stages.core.attribution import attribution, escaped, license_urls
from tests.curation import examples, row

SA = {"license": "CC BY-SA 4.0", "author": "Ada", "url": "https://beer/a/3", "created": "2020-01-31"}


def lines(*rows: dict[str, object]) -> list[str]:
    return attribution(examples(*rows), arm="curated").splitlines()


def test_each_row_has_title_author_address_licence_and_date() -> None:
    found = lines(row("se:1", "What is ale?\nI ask.", **SA))
    at = found.index("## CC BY-SA 4.0 <https://creativecommons.org/licenses/by-sa/4.0/>")
    assert found[at + 2] == "- se:1 (se): “What is ale?”, by Ada, <https://beer/a/3>, dated 2020-01-31"
    assert "| CC BY-SA 4.0 | https://creativecommons.org/licenses/by-sa/4.0/ | 1 | 1 | 1 |" in found
    assert any("Changes were made to those from dumps" in line for line in found)


def test_what_is_unknown_says_so() -> None:
    found = lines(row("a:1"), row("se:1", **SA))
    assert found[-1] == "- a:1 (a): “What does Ada do?”, author unknown, address unknown, dated unknown"
    assert "| unknown licence | none known | 1 | 0 | 0 |" in found
    assert found[-3] == "## unknown licence"


def test_every_row_stands_in_one_section_and_the_summary_adds_up() -> None:
    rows = [row(f"se:{i}", **{**SA, "license": f"CC BY-SA {2 + i % 3}.0"}) for i in range(10)]
    found = lines(*rows)
    assert sum(line.startswith("- ") for line in found) == 10
    assert sum(int(count) for count in re.findall(r"\| (\d+) \| \d+ \| \d+ \|$", "\n".join(found), re.MULTILINE)) == 10


@pytest.mark.parametrize(
    ("name", "urls"),
    [
        ("CC BY-SA 2.5", ["https://creativecommons.org/licenses/by-sa/2.5/"]),
        ("cc-by-nc-sa-3.0", ["https://creativecommons.org/licenses/by-nc-sa/3.0/"]),
        ("CC BY 4.0", ["https://creativecommons.org/licenses/by/4.0/"]),
        ("Apache 2.0", ["https://www.apache.org/licenses/LICENSE-2.0"]),
        ("CC BY-SA 3.0; CC BY-SA 4.0",
         ["https://creativecommons.org/licenses/by-sa/3.0/", "https://creativecommons.org/licenses/by-sa/4.0/"]),
        ("CC BY-SA 4.0, MIT", ["https://creativecommons.org/licenses/by-sa/4.0/", "https://opensource.org/license/mit"]),
        ("MIT; ask me; mit", ["https://opensource.org/license/mit"]),
        ("ask me", []),
    ],
)  # fmt: skip
def test_addresses_of_licences(name: str, urls: list[str]) -> None:
    assert license_urls(name) == urls


def test_a_row_under_two_licences_has_the_address_of_each() -> None:
    found = lines(row("se:1", **{**SA, "license": "CC BY-SA 3.0; CC BY-SA 4.0", "author": "Ada; Bo"}))
    addresses = [f"https://creativecommons.org/licenses/by-sa/{version}/" for version in ("3.0", "4.0")]
    assert f"## CC BY-SA 3.0; CC BY-SA 4.0 <{addresses[0]}> <{addresses[1]}>" in found
    assert f"| CC BY-SA 3.0; CC BY-SA 4.0 | {' '.join(addresses)} | 1 | 1 | 1 |" in found
    assert ", by Ada; Bo, " in found[-1]


def test_a_site_of_many_hands_is_named_where_no_author_is() -> None:
    unnamed = {**SA, "author": None, "url": "https://www.wikihow.com/Knit"}
    found = lines(row("w:1", **unnamed), row("w:2", **{**unnamed, "url": "https://wikihow.com.evil.org/Knit"}))
    assert "by the contributors to wikiHow, <https://www.wikihow.com/Knit>" in found[-2]
    assert "author unknown" in found[-1]
    assert any(line.endswith("| 2 | 1 | 2 |") for line in found)


def test_authors_of_reddit_are_linked_where_their_name_is_one() -> None:
    url = "https://www.reddit.com/r/WritingPrompts/comments/1/_/2"
    assert "by a-b <https://www.reddit.com/user/a-b>," in lines(row("r:1", **{**SA, "author": "a-b", "url": url}))[-1]
    assert "user/" not in lines(row("r:1", **{**SA, "author": "a/b", "url": url}))[-1]
    assert "user/" not in lines(row("r:1", **{**SA, "url": "https://evil.org/reddit.com/"}))[-1]


def test_nothing_from_data_is_markup() -> None:
    evil = "</td><script>x</script> | [a](javascript:b) `c`\r\n## d"
    found = lines(
        row("se:1", evil, **{**SA, "author": evil, "license": evil, "url": "javascript:alert(1)", "created": evil})
    )
    text = "\n".join(found)
    assert "<script" not in text
    assert "](" not in text
    assert "address unknown" in found[-1]
    assert [line for line in found if line.startswith("## ")] == [f"## {escaped(evil)}"]
    assert all(line.count("|") - line.count("\\|") in (0, 6) for line in found)


def test_an_address_cannot_end_its_brackets() -> None:
    assert "address unknown" in lines(row("se:1", **{**SA, "url": "https://a/> <b"}))[-1]


def test_an_apostrophe_stays_an_apostrophe() -> None:
    """As an entity it has a #, which is a mark of Markdown: the backslash before it would break the entity."""
    assert escaped('We\'re "here" & <there>') == 'We\'re "here" &amp; &lt;there&gt;'
