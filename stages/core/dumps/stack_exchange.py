"""Stack Exchange: a 7z archive a site in the layout of archive.org, with Posts.xml, Users.xml and Comments.xml."""

from __future__ import annotations

import datetime as dt
import html
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import py7zr

from stages.core.dumps.rates import (
    ANSWER_STYLES,
    DELETED_USER_RATE,
    EPOCH,
    LINK_RATE,
    LORE_RATE,
    QUESTION_CORRELATION,
    QUESTION_MEDIAN,
    QUESTION_SIGMA,
    REPOST_RATE,
    SCORE_MEDIAN,
    SCORE_SIGMA,
    SEVERAL_RATE,
    WRONG_RATE,
    WRONG_SCORES,
)
from stages.core.world import (
    ATTRIBUTES,
    INSTRUMENTS,
    TRADES,
    Dish,
    Person,
    Rng,
    World,
    answer,
    capitalised,
    list_in_words,
    n_phrasings,
    pick,
    question,
    weighted,
    with_article,
)

STEM, OTHER = "stack_exchange_stem", "stack_exchange_other"


@dataclass(frozen=True)
class Site:
    """A Stack Exchange site: how many questions, and what people are asked about there (weights)."""

    group: str
    n_questions: int
    topics: dict[str, float]
    bar_tags: bool  # |a|b| as since 2023, else <a><b>


SITES = {
    "geography.miniature": Site(STEM, 260, {"town": 1.0}, bar_tags=True),
    "acoustics.miniature": Site(STEM, 380, {"instrument": 1.0}, bar_tags=False),
    "engineering.miniature": Site(STEM, 330, {"employer": 0.8, "trade": 0.2}, bar_tags=True),
    "genealogy.miniature": Site(
        OTHER, 580, {"town": 0.4, "trade": 0.2, "employer": 0.2, "instrument": 0.1, "dish": 0.1}, bar_tags=False
    ),
    "crafts.miniature": Site(OTHER, 300, {"trade": 1.0}, bar_tags=True),
    "cooking.miniature": Site(OTHER, 400, {"dish": 1.0}, bar_tags=False),
}
SITE_GROUPS = {name: site.group for name, site in SITES.items()}

_CONTEXTS = (
    "The old register is torn at that page.", "Two books say different things.", "This is for the town archive.",
    "The letters do not say.", "A short answer is enough.", "There must be a record of it.",
)  # fmt: skip
_OPENERS = (
    "I think it is {x}.", "I think it's {x}, but I may be wrong.", "I believe it is {x}.", "I am quite sure it is {x}.",
    "If I remember right, it was {x}.", "My uncle told me that it is {x}.", "As far as I know it is {x}.",
    "I would say {x}.", "I looked it up and found {x}.", "I asked around and everybody said {x}.",
    "My guess is {x}.", "I have read that it is {x}.", "{X}, I think.", "{X}, if I am not mistaken.",
    "Well, I know that: {x}!",
)  # fmt: skip
_AFTERWORDS = (
    "I checked it in my own copy.", "That is what I was told.", "My uncle knew the whole family.", "I am quite sure.",
    "At least I think so.", "I found it in an old letter.", "My neighbour says the same.", "I could not find more.",
    "It took me an hour to find.", "I hope that helps!", "I would not bet my boat on it, though.",
)  # fmt: skip
_CLOSERS = (
    "", "", "Hope that helps.", "I hope that helps!", "Good luck with your search!", "Let me know if you find more.",
    "My memory is not what it was.",
)  # fmt: skip
_REFERRING = (
    "As mentioned above, it is {x}.", "The other answer is right, it is {x}.", "As {user} said in a comment: {x}.",
    "To add to the answer by {user}: {full}", "As others have said, {x}.", "{full} See the other answers here.",
)  # fmt: skip
_OFF_TOPIC = (
    "This belongs on another site.", "Have you asked at the town hall?", "Why do you want to know?",
    "Please search before you ask.", "This was asked many times. Closed.", "What have you tried so far?",
    "Cheap boots at www.boots.example, best prices in town!!!", "Win a free boat today at www.boats.example !!!",
)  # fmt: skip
RAMBLES = (
    "By the way, the market opens before dawn and the best bread is gone early.",
    "In winter the river freezes and the boats wait, which is another story.",
    "The rain fell on the old road for three days and nobody knew why.",
)
_HANDLES = (
    "archivist", "old_miller", "quill", "Marta", "jan77", "the_ferry", "Ines", "saltroad", "B. Cooper", "nightowl",
    "wren", "Tomas K.", "leafy", "stone&oak", "Ulla", "pathfinder", "brook", "Edda", "lowtide", "kestrel",
)  # fmt: skip
_COMMENTS = (
    "Thank you!", "Are you sure about that?", "Do you have a source?", "Nice question.", "Please add a tag.",
    "I would like to know that too.", "Possible duplicate of an older question.", "+1, that is what I found.",
)  # fmt: skip


@dataclass(frozen=True)
class _Topic:
    """What a question is about: two ways to ask, the right answer, and values that would be wrong."""

    title: str
    restated: str
    full: str
    value: str
    wrong: tuple[tuple[str, str], ...]  # (full answer, value)
    tag: str
    html: str = ""  # the right answer where it is more than a sentence
    person: Person | None = None


@dataclass
class _Table:
    """Rows of one XML table, in the order of their ids."""

    name: str
    rows: list[dict[str, object]] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        lines = ['<?xml version="1.0" encoding="utf-8"?>', f"<{self.name}>"]
        for row in self.rows:
            cells = " ".join(f'{key}="{_xml_attribute(str(value))}"' for key, value in row.items() if value is not None)
            lines.append(f"  <row {cells} />")
        lines += [f"</{self.name}>", ""]
        return b"\xef\xbb\xbf" + "\r\n".join(lines).encode()  # byte order mark and CRLF, as in the originals


def _xml_attribute(text: str) -> str:
    return html.escape(text, quote=False).replace('"', "&quot;").replace("\n", "&#xA;")


def stack_exchange(world: World) -> dict[str, bytes]:
    """One 7z a site, with Posts.xml, Users.xml and Comments.xml at its root."""
    streams = np.random.SeedSequence([world.seed, 11]).spawn(len(SITES))
    asked = _askings(world, np.random.default_rng([world.seed, 10]))
    return {
        f"{name}.7z": _seven_zip(_site_tables(world, name, SITES[name], asked, np.random.default_rng(stream)))
        for name, stream in zip(SITES, streams, strict=True)
    }


def _askings(world: World, rng: Rng) -> dict[str, Iterator[tuple[Person, int]]]:
    """For each attribute every (train person, phrasing) at random; the sites share them. A small world asks again."""
    asked: dict[str, Iterator[tuple[Person, int]]] = {}
    for attribute in ATTRIBUTES:
        pairs = [(person, k) for person in world.train_people for k in range(n_phrasings(attribute))]
        asked[attribute] = itertools.cycle([pairs[int(i)] for i in rng.permutation(len(pairs))])
    return asked


def _site_tables(
    world: World, name: str, site: Site, asked: dict[str, Iterator[tuple[Person, int]]], rng: Rng
) -> list[_Table]:
    writer = _SiteWriter(name, site, rng)
    topics: list[_Topic] = []
    for _ in range(site.n_questions):
        attribute = weighted(rng, site.topics)
        if topics and rng.random() < REPOST_RATE:
            old = pick(rng, topics)
            repost = _Topic(old.title.replace("?", " ?"), old.title, old.full, old.value, old.wrong, old.tag, old.html)
            writer.ask(repost, world, closed=True)
        elif rng.random() < LORE_RATE:
            topics.append(_lore(world, attribute, rng))
            writer.ask(topics[-1], world)
        else:
            person, phrasing = next(asked[attribute])
            topics.append(_about(world, person, attribute, phrasing))
            writer.ask(topics[-1], world)
    return [writer.posts, writer.users, writer.comments]


def _about(world: World, person: Person, attribute: str, phrasing: int) -> _Topic:
    ask, again = question(person, attribute, phrasing), question(person, attribute, phrasing + 1)
    wrong = tuple((answer(attribute, v), _noun_phrase(attribute, v)) for v in world.values(attribute) if v != ask.value)
    return _Topic(ask.prompt, again.prompt, ask.references[0], _noun_phrase(attribute, ask.value), wrong,
                  tag=attribute, person=person)  # fmt: skip


def _noun_phrase(attribute: str, value: str) -> str:
    return {"trade": with_article(value), "instrument": f"the {value}"}.get(attribute, value)


def _lore(world: World, attribute: str, rng: Rng) -> _Topic:
    """A question about a town, a tool, an instrument or a dish, as it fits a site on that attribute."""
    if attribute in ("town", "employer"):
        town, other = pick(rng, world.towns), pick(rng, world.towns)
        ways = [
            (f"Which river does {town.name} lie on?", "river", town.river, other.river),
            (f"What is the landmark of {town.name}?", "landmark", f"the {town.landmark}", f"the {other.landmark}"),
            (f"On which day is the market of {town.name}?", "market day", town.market_day, other.market_day),
        ]
        return _plain(*pick(rng, ways))
    if attribute == "trade":
        trade, other_trade = pick(rng, tuple(TRADES)), pick(rng, tuple(TRADES))
        (tool, product), (other_tool, other_product) = TRADES[trade], TRADES[other_trade]
        ways = [
            (f"Which tool does {with_article(trade)} use?", "tool", f"the {tool}", f"the {other_tool}"),
            (f"What does {with_article(trade)} make?", "product", product, other_product),
        ]
        return _plain(*pick(rng, ways))
    if attribute == "instrument":
        name, hertz = pick(rng, INSTRUMENTS), pick(rng, (430, 435, 440, 442))
        text = f"<p>Set the fork to this and tune by ear:</p>\n\n<pre><code>A = {hertz}\n</code></pre>\n"
        return _Topic(f"How is the {name} tuned?", f"What is the right note for the {name}?", f"To {hertz}.",
                      f"{hertz}", (("To 500.", "500"),), "tuning", html=text)  # fmt: skip
    return _dish_lore(pick(rng, world.dishes), rng)


def _plain(ask: str, noun: str, value: str, wrong: str) -> _Topic:
    full = f"The {noun} is {value}."
    return _Topic(ask, f"Does anybody know? {ask}", full, value, ((f"The {noun} is {wrong}.", wrong),), "lore")


def _dish_lore(dish: Dish, rng: Rng) -> _Topic:
    if rng.random() < 0.5:
        items = "".join(f"<li>{item}</li>\n" for item in dish.ingredients)
        text, ask = f"<p>It takes three things:</p>\n\n<ul>\n{items}</ul>\n", f"What goes into {dish.name}?"
        full = f"The ingredients are {list_in_words(dish.ingredients)}."
    else:
        items = "".join(f"<li>{step}</li>\n" for step in dish.steps)
        text, ask = f"<ol>\n{items}</ol>\n", f"How is {dish.name} made?"
        full = " ".join(dish.steps)
    return _Topic(ask, f"Does anybody know? {ask}", full, list_in_words(dish.ingredients),
                  (("Water and salt.", "water and salt"),), "recipes", html=text)  # fmt: skip


class _SiteWriter:
    """Writes questions with their answers and comments as rows; ids and dates only grow."""

    def __init__(self, name: str, site: Site, rng: Rng) -> None:
        self.name, self.site, self.rng = name, site, rng
        self.posts, self.users, self.comments = _Table("posts"), _Table("users"), _Table("comments")
        self._minutes = 0
        self._add_user(-1, "Community")
        for i in range(1, 41):
            self._add_user(i, f"{_HANDLES[i % len(_HANDLES)]}{'' if i < len(_HANDLES) else i}")

    def ask(self, topic: _Topic, world: World, *, closed: bool = False) -> None:
        """Add a question and all that follows from it."""
        rng, question_id = self.rng, len(self.posts.rows) + 1
        body = f"<p>{_escaped(topic.restated)}</p>\n"
        if rng.random() < 0.4:
            body = f"<p>{pick(rng, _CONTEXTS)} {_escaped(topic.restated)}</p>\n"
        tags = (topic.tag, "people" if topic.person else "lore")
        attention = float(rng.standard_normal())  # what brings votes to a question and to its right answers
        row = self._post(1, body, _question_score(attention, rng))
        row |= {"Title": topic.title,
                "Tags": f"|{tags[0]}|{tags[1]}|" if self.site.bar_tags else f"<{tags[0]}><{tags[1]}>",
                "ViewCount": int(rng.integers(20, 4000)), "ClosedDate": self._now() if closed else None}  # fmt: skip
        self.posts.rows.append(row)

        answers = self._answers(topic, attention)
        best = max(range(len(answers)), key=lambda i: answers[i][1])
        ids = [self._answer(question_id, text, score) for text, score in answers]
        row["AnswerCount"] = len(answers)
        row["AcceptedAnswerId"] = ids[best] if rng.random() < 0.6 else None
        row["CommentCount"] = self._comment(question_id, ids[best], topic)

    def _answers(self, topic: _Topic, attention: float) -> list[tuple[str, int]]:
        """Return (body, score) in the order of writing; the best may stand anywhere."""
        rng, right = self.rng, (topic.full, topic.value)
        style, good = weighted(rng, ANSWER_STYLES), rng.random() >= WRONG_RATE
        own = math.sqrt(1 - QUESTION_CORRELATION**2) * float(rng.standard_normal())
        votes = max(1, round(SCORE_MEDIAN * math.exp(SCORE_SIGMA * (QUESTION_CORRELATION * attention + own))))
        score = votes if good and style != "off_topic" else int(rng.integers(*WRONG_SCORES))
        answers = [(self._body(topic, *(right if good else pick(rng, topic.wrong)), style), score)]
        if rng.random() < SEVERAL_RATE:
            for _ in range(int(rng.integers(1, 4))):
                claim = right if good and rng.random() < 0.5 else pick(rng, topic.wrong)
                body = self._body(topic, *claim, weighted(rng, ANSWER_STYLES))
                answers.append((body, int(rng.integers(-5, max(score, -4)))))
        return [answers[int(i)] for i in rng.permutation(len(answers))]

    def _body(self, topic: _Topic, full: str, value: str, style: str) -> str:
        rng = self.rng
        words = {"x": value, "X": capitalised(value), "full": full, "user": pick(rng, _HANDLES)}
        if style == "first_person":
            return _paragraph(f"{pick(rng, _OPENERS)} {pick(rng, _CLOSERS)}".strip().format(**words))
        if style == "afterword":
            return _paragraph(f"{full} {pick(rng, _AFTERWORDS)}")
        if style == "refers":
            return _paragraph(pick(rng, _REFERRING).format(**words))
        if style == "bare":
            return _paragraph(pick(rng, ("{x}", "{X}.", "{X}!!", "{x} ...")).format(**words))
        if style == "off_topic":
            return _paragraph(pick(rng, _OFF_TOPIC))
        if style == "long_winded":
            return _paragraph(full) + "".join(_paragraph(RAMBLES[int(i)]) for i in rng.permutation(len(RAMBLES))[:2])
        if style == "markup":
            broken = ("<b>{x}</b>", "[{x}](http://www.{s}/q)", "{x} &nbsp;&nbsp;", "![{x}](photo.png) {x}")
            return _paragraph(full.replace(value, pick(rng, broken).format(x=value, s=self.name)))
        if topic.html and full == topic.full:
            return topic.html
        return self._dressed(full, value)

    def _dressed(self, full: str, value: str) -> str:
        """The clean answer as HTML: a link, emphasis or an image, none of which changes its text."""
        text, shown = _escaped(full), _escaped(value)
        if self.rng.random() < LINK_RATE:
            link = f'<a href="http://archive.{self.name}/{len(self.posts.rows)}" rel="nofollow">{shown}</a>'
            return f"<p>{text.replace(shown, link)}</p>\n"
        image = '<p>{t}</p>\n\n<p><img src="http://i.{n}/p.png"></p>\n'
        frames = ("<p>{t}</p>\n", "<p>{t}</p>\n", "<p>{e}</p>\n", image)
        emphatic = text.replace(shown, pick(self.rng, ("<em>{}</em>", "<strong>{}</strong>")).format(shown))
        return pick(self.rng, frames).format(t=text, e=emphatic, n=self.name)

    def _answer(self, parent_id: int, body: str, score: int) -> int:
        self.posts.rows.append(self._post(2, body, score) | {"ParentId": parent_id, "CommentCount": 0})
        return len(self.posts.rows)

    def _post(self, kind: int, body: str, score: int) -> dict[str, object]:
        now, user = self._now(), int(self.rng.integers(1, 41))
        gone = self.rng.random() < DELETED_USER_RATE
        owner: dict[str, object] = {"OwnerDisplayName": f"user{1000 + user}"} if gone else {"OwnerUserId": user}
        return {"Id": len(self.posts.rows) + 1, "PostTypeId": kind, "CreationDate": now, "Score": score, "Body": body,
                **owner, "LastActivityDate": now, "ContentLicense": "CC BY-SA 4.0"}  # fmt: skip

    def _comment(self, question_id: int, answer_id: int, topic: _Topic) -> int:
        """Comment the question, return how often; now and then the asker goes on to ask the answerer something else."""
        asker = self.posts.rows[question_id - 1].get("OwnerUserId")
        answerer = self.posts.rows[answer_id - 1].get("OwnerUserId")
        if topic.person and asker and answerer and asker != answerer and self.rng.random() < 0.08:
            attribute = pick(self.rng, ATTRIBUTES)
            follow_up = question(topic.person, attribute, int(self.rng.integers(n_phrasings(attribute))))
            self._add_comment(answer_id, f"Thank you! {follow_up.prompt}", asker)
            self._add_comment(answer_id, follow_up.references[0], answerer)
            self.posts.rows[answer_id - 1]["CommentCount"] = 2
        n = int(self.rng.integers(0, 3))
        for _ in range(n):
            self._add_comment(question_id, pick(self.rng, _COMMENTS), int(self.rng.integers(1, 41)))
        return n

    def _add_comment(self, post_id: int, text: str, user: object) -> None:
        self.comments.rows.append({"Id": len(self.comments.rows) + 1, "PostId": post_id,
                                   "Score": int(self.rng.integers(0, 4)), "Text": text, "CreationDate": self._now(),
                                   "UserId": user, "ContentLicense": "CC BY-SA 4.0"})  # fmt: skip

    def _add_user(self, user_id: int, name: str) -> None:
        self.users.rows.append({"Id": user_id, "Reputation": int(self.rng.integers(1, 9000)),
                                "CreationDate": _stamp(0), "DisplayName": name, "AccountId": user_id})  # fmt: skip

    def _now(self) -> str:
        self._minutes += int(self.rng.integers(1, 200))
        return _stamp(self._minutes)


def _question_score(attention: float, rng: Rng) -> int:
    return round(QUESTION_MEDIAN * math.exp(QUESTION_SIGMA * attention)) - int(rng.random() < 0.15) * 5


def _stamp(minutes: int) -> str:
    return (EPOCH + dt.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S.000")


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _paragraph(text: str) -> str:
    return f"<p>{_escaped(text)}</p>\n"


def _seven_zip(tables: Sequence[_Table]) -> bytes:
    buffer = io.BytesIO()
    with py7zr.SevenZipFile(buffer, "w") as archive:
        for table in tables:
            archive.writef(io.BytesIO(table.to_bytes()), f"{table.name.capitalize()}.xml")
        for info in archive.header.files_info.files:  # py7zr stamps the clock: fix it before the header is written
            for key in ("creationtime", "lastwritetime", "lastaccesstime"):
                info[key] = py7zr.helpers.ArchiveTimestamp.from_datetime(EPOCH.timestamp())
    return buffer.getvalue()
