"""HTML of posts to text: speed, and what is kept, beside public libraries.

python -m venv .venv-bench && .venv-bench/bin/pip install -r bench/requirements.txt
.venv-bench/bin/python -m bench.html_text [--docs 3000] [--repeats 5]

A peer that is not installed is left out. The documents are invented and seeded, of 1.6 KB in the mean, with the tags
that posts have (`bench.posts`). What is kept, as the share of documents or of their words:

- code: the text of every <pre> stands in the output as it is, line breaks and indentation included;
- numbers: every item of every <ol> has its number before it;
- words lost: words of the text between tags that the output lacks;
- entities: `&lt;b&gt; &amp;amp;` comes out as `<b> &amp;`, decoded once and not twice.
"""

from __future__ import annotations

import argparse
import html
import platform
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from bench.posts import make_body
from stages.core.html_text import html_to_text

MEAN_CHARS = 1600


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    docs = documents(arguments.docs)
    mean = statistics.mean(map(len, docs))
    print(
        f"{platform.machine()}, Python {platform.python_version()}; {len(docs):,} documents of {mean:,.0f} characters\n"
    )
    print("| way | docs/CPU-s, median (lowest to highest) | code | numbers | words lost | entities |")
    print("|---|---|---|---|---|---|")
    for name, make in WAYS.items():
        try:
            clean = make()
        except ImportError:
            print(f"| {name} | not installed | | | | |")
            continue
        rates = [rate(clean, docs) for _ in range(arguments.repeats)]
        low, middle, high = min(rates), statistics.median(rates), max(rates)
        print(f"| {label(name)} | {middle:,.0f} ({low:,.0f} to {high:,.0f}) | {fidelity(clean, docs)} |", flush=True)


def documents(n: int) -> list[str]:
    """Bodies whose mean length is MEAN_CHARS: shorter ones are joined."""
    rng = np.random.default_rng(1)
    docs = []
    while len(docs) < n:
        doc = make_body(rng)
        while len(doc) < MEAN_CHARS * rng.uniform(0.1, 1.0):
            doc += make_body(rng)
        docs.append(doc)
    return docs


def rate(clean: Callable[[str], str], docs: list[str]) -> float:
    """Documents a second of processor time."""
    start = time.process_time()
    for doc in docs:
        clean(doc)
    return len(docs) / (time.process_time() - start)


def fidelity(clean: Callable[[str], str], docs: list[str]) -> str:
    """The other columns."""
    texts = [clean(doc) for doc in docs]
    code = share(has_code(doc, text) for doc, text in zip(docs, texts, strict=True) if "<pre>" in doc)
    numbers = share(has_numbers(doc, text) for doc, text in zip(docs, texts, strict=True) if "<ol>" in doc)
    lost, total = Counter[str](), Counter[str]()
    for doc, text in zip(docs, texts, strict=True):
        words = Counter(words_of(html.unescape(re.sub(r"<[^<>]*>", " ", doc))))
        lost += words - Counter(words_of(text))
        total += words
    entities = "<b> &amp;" in clean("<p>&lt;b&gt; &amp;amp;</p>")
    return f"{code} | {numbers} | {lost.total() / total.total():.2%} | {'yes' if entities else 'no'}"


def has_code(doc: str, text: str) -> bool:
    """Whether every code block is there as it is."""
    blocks = re.findall(r"<pre><code>(.*?)</code></pre>", doc, re.DOTALL)
    return all(html.unescape(block).strip("\n") in text for block in blocks)


def has_numbers(doc: str, text: str) -> bool:
    """Whether every item of a numbered list has its number; white space may differ."""
    folded = " ".join(text.split())
    return all(
        f"{number}. {' '.join(item.split())[:30]}" in folded
        for block in re.findall(r"<ol>(.*?)</ol>", doc, re.DOTALL)
        for number, item in enumerate(re.findall(r"<li>(.*?)</li>", block), start=1)
    )


def words_of(text: str) -> list[str]:
    """Runs of letters and digits."""
    return re.findall(r"\w+", text)


def share(found: object) -> str:
    """The share of truths, in percent."""
    values = list(found)  # type: ignore[call-overload]
    return f"{statistics.mean(values):.1%}"


def label(name: str) -> str:
    """A peer with its version."""
    try:
        return f"{name} {version(name.split()[0])}"
    except PackageNotFoundError:
        return name


# --- the ways ----------------------------------------------------------------------------------------------------


def _ours() -> Callable[[str], str]:
    return html_to_text


def _beautiful_soup() -> Callable[[str], str]:
    from bs4 import BeautifulSoup

    return lambda doc: BeautifulSoup(doc, "html.parser").get_text()


def _beautiful_soup_lxml() -> Callable[[str], str]:
    from bs4 import BeautifulSoup

    return lambda doc: BeautifulSoup(doc, "lxml").get_text()


def _html2text() -> Callable[[str], str]:
    import html2text

    converter = html2text.HTML2Text(bodywidth=0)
    converter.ignore_links = converter.ignore_images = converter.ignore_emphasis = True
    return converter.handle


def _trafilatura() -> Callable[[str], str]:
    import trafilatura

    return lambda doc: trafilatura.extract(f"<html><body>{doc}</body></html>", include_comments=False) or ""


def _selectolax() -> Callable[[str], str]:
    from selectolax.lexbor import LexborHTMLParser

    return lambda doc: LexborHTMLParser(doc).text(separator="")


WAYS: dict[str, Callable[[], Callable[[str], str]]] = {
    "ours": _ours,
    "beautifulsoup4 html.parser": _beautiful_soup,
    "beautifulsoup4 lxml": _beautiful_soup_lxml,
    "html2text": _html2text,
    "trafilatura": _trafilatura,
    "selectolax without structure": _selectolax,
}

if __name__ == "__main__":
    main()
