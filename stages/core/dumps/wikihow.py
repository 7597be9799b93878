"""wikiHow: articles in the layout of wikihowAll.csv, with a category."""

from __future__ import annotations

import csv
import io

import numpy as np

from stages.core.dumps.rates import WIKIHOW_COPY_RATE, WIKIHOW_EMPTY_RATE, WIKIHOW_JUNK_RATE, WIKIHOW_METHOD_RATE
from stages.core.world import HowTo, Rng, World, how_tos, pick

_JUNK = ("Advertisement", "[[Image:1.jpg]]", "Credit: wikiphoto.", "See http://a.example .", "{{box}}")


def wikihow(world: World) -> dict[str, bytes]:
    """The columns of wikihowAll.csv (headline, title, text), and the category and address, which public scrapes lack.

    Without an address the reader would take the real wikiHow's, which follows from the title.
    """
    rng = np.random.default_rng([world.seed, 12])
    articles = how_tos(world)
    rows: list[tuple[str, ...]] = []
    for i in map(int, rng.permutation(len(articles))):
        rows.append(_wikihow_row(articles[i], rng))
        if rng.random() < WIKIHOW_COPY_RATE:
            headline, title, *others = _wikihow_row(articles[i], rng)
            rows.append((headline, f"{title} Easily", *others))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(("headline", "title", "text", "category", "url"))
    writer.writerows(rows)
    return {"wikihowAll.csv": buffer.getvalue().encode()}


def _wikihow_row(article: HowTo, rng: Rng) -> tuple[str, str, str, str, str]:
    title = f"How to {article.title}" + ("2" if rng.random() < WIKIHOW_METHOD_RATE else "")
    headline = ",".join(f"\n{headline}" for headline, _ in article.steps)
    details = [detail for _, detail in article.steps]
    if rng.random() < WIKIHOW_JUNK_RATE:
        details[int(rng.integers(len(details)))] += f" {pick(rng, _JUNK)}"
    if rng.random() < 0.15:
        details[0] = f"This article explains how to do it. {details[0]}"
    text = "" if rng.random() < WIKIHOW_EMPTY_RATE else "\n\n".join(f" {detail}" for detail in details) + "\n\n"
    return headline, title, text, article.category, f"https://wikihow.miniature/{'-'.join(article.title.split())}"
