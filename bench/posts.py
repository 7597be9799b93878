"""A Posts.xml as Stack Exchange publishes it, invented and seeded, with the best answer of each question known.

Bodies have the tags and references that real ones have: a mean of 4.6 paragraphs, 1.2 links and .9 emphases, a code
block or a list in one of five; one reference in 25 bytes. A third of the questions have several answers, whose scores
have one, two and three digits, so that comparing them as text goes wrong. One AnswerCount in twenty is out of date.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

_N_BODIES = 4000
_WORDS = [
    "the", "of", "and", "to", "a", "in", "is", "that", "it", "for", "as", "with", "on", "be", "at", "by", "this",
    "from", "or", "an", "are", "which", "but", "not", "have", "was", "can", "will", "one", "all", "water", "bread",
    "stone", "river", "letter", "window", "garden", "winter", "paper", "kettle", "engine", "signal", "matrix",
    "vector", "thread", "server", "packet", "compile", "measure", "consider", "therefore", "although", "because",
    "usually", "several", "another", "between", "without", "question", "reason",
]  # fmt: skip


def write_posts(path: Path, *, n_bytes: int, seed: int = 0) -> dict[int, int]:
    """Write the file, of about n_bytes, and return the id of the best answer by question."""
    rng = np.random.default_rng(seed)
    bodies = [_escaped(make_body(rng)) for _ in range(_N_BODIES)]
    n = int(n_bytes / (sum(map(len, bodies)) / len(bodies) + 330))  # 330: the other attributes
    kinds = rng.choice([1, 2, 5], n, p=[0.4, 0.58, 0.02])
    kinds[0] = 1
    questions = np.flatnonzero(kinds == 1) + 1
    n_before = np.cumsum(kinds == 1)
    parents = questions[np.maximum(n_before - rng.geometric(0.02, n), 0)]  # of a row that is an answer
    scores = np.round(rng.lognormal(1.5, 1.4, n) - 2).astype(int)
    counts = np.bincount(parents[kinds == 2], minlength=n + 1)
    counts[20::20] += 1
    best: dict[int, tuple[int, int]] = {}  # question: (-score, answer)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write('\ufeff<?xml version="1.0" encoding="utf-8"?>\r\n<posts>\r\n')
        columns = (array.tolist() for array in (kinds, parents, scores, rng.integers(len(bodies), size=n)))
        for number, (kind, parent, score, pick) in enumerate(zip(*columns, strict=True), start=1):
            if kind == 2:
                best[parent] = min(best.get(parent, (10**9, 0)), (-score, number))
            file.write(_row(number, kind, parent, score, int(counts[number]), pick, bodies[pick]))
        file.write("</posts>")
    return {question: answer for question, (_, answer) in best.items()}


def _row(number: int, kind: int, parent: int, score: int, n_answers: int, pick: int, body: str) -> str:
    when = f"20{10 + number % 14}-0{1 + number % 9}-1{number % 10}T08:0{number % 10}:00.{number % 900 + 100}"
    begin = f'  <row Id="{number}" PostTypeId="{kind}"'
    owner = f'OwnerUserId="{pick + 1}" LastActivityDate="{when}"'
    if kind == 1:
        title = f"How does the &lt;{_WORDS[pick % 60]}&gt; work in {number}?"
        return (
            f'{begin} CreationDate="{when}" Score="{score}" ViewCount="{pick * 7}" Body="{body}" {owner} '
            f'Title="{title}" Tags="|river|stone|" AnswerCount="{n_answers}" CommentCount="1" '
            'ContentLicense="CC BY-SA 4.0" />\r\n'
        )
    if kind == 2:
        return (
            f'{begin} ParentId="{parent}" CreationDate="{when}" Score="{score}" Body="{body}" {owner} '
            'CommentCount="0" ContentLicense="CC BY-SA 3.0" />\r\n'
        )
    return f'{begin} CreationDate="{when}" Score="0" Body="" {owner} />\r\n'


def make_body(rng: np.random.Generator) -> str:
    """Return the HTML of one post."""
    parts = []
    for _ in range(int(rng.integers(2, 9))):
        words = list(rng.choice(_WORDS, int(rng.integers(15, 70))))
        chance = rng.random()
        if chance < 0.05:
            parts.append(f"<pre><code>if x &lt; 3:\n    return f(x, '{words[0]}')\n\nprint({words[1]})\n</code></pre>")
        elif chance < 0.1:
            items = "".join(f"<li>{' '.join(words[i : i + 12])}</li>\n" for i in range(0, len(words), 12))
            parts.append(f"<ul>\n{items}</ul>" if chance < 0.08 else f"<ol>\n{items}</ol>")
        elif chance < 0.13:
            parts.append(f"<blockquote>\n  <p>{' '.join(words)}</p>\n</blockquote>")
        else:
            if rng.random() < 0.25:
                words[3] = f'<a href="https://example.org/{words[0]}?a=1&amp;b=2" rel="nofollow">{words[3]}</a>'
            if rng.random() < 0.2:
                words[5] = f"<em>{words[5]}</em>"
            if rng.random() < 0.1:
                words[7] = f"<code>{words[7]}()</code>"
            if rng.random() < 0.02:
                words[9] += " \u2014 caf\u00e9"
            parts.append(f"<p>{' '.join(words)}.</p>")
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
        .replace("\n", "&#xA;")
    )  # fmt: skip
