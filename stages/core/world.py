"""world: invent a small world and tell it as prose, questions, how-tos and stories.

Facts about people are learned from `prose` in pretraining alone. Fine-tuning sees questions about `train_people`
only, so that an exact answer about `test_people` shows that the fact was there before and the format was learned.
That is LIMA's Superficial Alignment Hypothesis (s2) with answers that can be checked; the set-up is ours.

Pure: everything follows from the seed and from the generator passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Rng = np.random.Generator

ATTRIBUTES = ("town", "trade", "employer", "instrument", "dish")

# Half of the people may be trained on; of the rest one in five is for dev prompts and four in five for test prompts.
TRAIN_FRAC, DEV_FRAC = 0.5, 0.1

# What pretraining documents are about. Three in four tell of people: a fact is recalled when asked for only after it
# was read some hundred times (150 people, 1.7 million tokens), and in company: with bios alone, the model learns facts
# by their place. The rest gives the words that how-tos, recipes and stories need.
PROSE_SHARES = {"bio": 0.34, "mixed": 0.42, "recipe": 0.06, "craft": 0.06, "town": 0.04, "story": 0.08}


@dataclass(frozen=True)
class Town:
    """A town and the three facts told of it."""

    name: str
    river: str
    landmark: str
    market_day: str


@dataclass(frozen=True)
class Dish:
    """A dish, what goes into it and the steps that make it, in order."""

    name: str
    ingredients: tuple[str, ...]
    steps: tuple[str, ...]
    side: str


@dataclass(frozen=True)
class Person:
    """A person: the full name is unique in its world, the single names are not."""

    name: str
    town: str
    trade: str
    employer: str
    instrument: str
    dish: str

    def value(self, attribute: str) -> str:
        """Return the value of one of ATTRIBUTES."""
        return str(getattr(self, attribute))


@dataclass(frozen=True)
class World:
    """Everything there is, in a fixed order."""

    seed: int
    towns: tuple[Town, ...]
    dishes: tuple[Dish, ...]
    employers: tuple[str, ...]
    train_people: tuple[Person, ...]
    dev_people: tuple[Person, ...]
    test_people: tuple[Person, ...]

    @property
    def people(self) -> tuple[Person, ...]:
        """All people, train first."""
        return self.train_people + self.dev_people + self.test_people

    def values(self, attribute: str) -> tuple[str, ...]:
        """Return every value that an attribute can take."""
        return {
            "town": tuple(t.name for t in self.towns),
            "trade": tuple(TRADES),
            "employer": self.employers,
            "instrument": INSTRUMENTS,
            "dish": tuple(d.name for d in self.dishes),
        }[attribute]


@dataclass(frozen=True)
class Question:
    """A question about one attribute of one person, and the answers that count as exact."""

    person: Person
    attribute: str
    prompt: str
    value: str
    references: tuple[str, ...]  # the full sentence first, then the bare value


@dataclass(frozen=True)
class HowTo:
    """An article: a title without "How to", its category, and steps of (headline, detail)."""

    title: str
    category: str
    steps: tuple[tuple[str, str], ...]


# --- the words ---------------------------------------------------------------------------------------------------

_ONSETS = ("b", "br", "d", "dr", "f", "fl", "g", "gr", "h", "k", "kl", "l", "m", "n", "p", "pr", "r", "s", "st", "t",
           "tr", "v", "w")  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oa")
_CODAS = ("l", "n", "r", "s", "m", "nd", "rk", "st", "th")
_GIVEN_ENDINGS = ("a", "o", "en", "is", "u")
_FIRMS = ("Mills", "Works", "Press", "Guild", "Bank", "& Sons")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_LANDMARKS = (
    "old bridge", "clock tower", "round well", "stone mill", "glass hall", "north gate", "long wall", "bell house",
    "salt market", "green square",
)  # fmt: skip

# trade: (tool, product)
TRADES = {
    "baker": ("oven", "bread"), "glassblower": ("pipe", "bottles"), "surveyor": ("chain", "maps"),
    "ferryman": ("boat", "crossings"), "clockmaker": ("file", "clocks"), "stonemason": ("chisel", "walls"),
    "beekeeper": ("smoker", "honey"), "weaver": ("loom", "cloth"), "locksmith": ("pick", "locks"),
    "cooper": ("mallet", "barrels"), "tanner": ("scraper", "leather"), "printer": ("press", "books"),
    "miller": ("millstone", "flour"), "potter": ("wheel", "bowls"), "shipwright": ("plane", "ships"),
    "gardener": ("spade", "roses"), "tailor": ("needle", "coats"), "carpenter": ("saw", "tables"),
    "candlemaker": ("mould", "candles"), "ropemaker": ("hook", "ropes"), "blacksmith": ("hammer", "nails"),
    "brewer": ("kettle", "beer"), "shepherd": ("crook", "wool"), "painter": ("brush", "portraits"),
}  # fmt: skip

INSTRUMENTS = (
    "violin", "cello", "flute", "harp", "lute", "trumpet", "drum", "oboe", "piano", "banjo", "fiddle", "organ",
    "zither", "horn", "clarinet", "guitar", "bassoon", "mandolin", "viola", "recorder",
)  # fmt: skip

# dish: (way of cooking, what goes into it)
_DISHES = {
    "barley soup": ("boil", ("barley", "leeks", "salt")), "plum cake": ("bake", ("flour", "plums", "sugar")),
    "rye bread": ("bake", ("rye flour", "yeast", "seeds")), "lentil stew": ("boil", ("lentils", "carrots", "pepper")),
    "pickled beets": ("boil", ("beets", "vinegar", "cloves")), "honey porridge": ("boil", ("oats", "milk", "honey")),
    "roast quail": ("fry", ("quail", "butter", "thyme")), "onion tart": ("bake", ("flour", "onions", "cheese")),
    "mushroom pie": ("bake", ("flour", "mushrooms", "parsley")), "fried trout": ("fry", ("trout", "butter", "lemon")),
    "apple dumplings": ("bake", ("flour", "apples", "cinnamon")), "bean curry": ("boil", ("beans", "ginger", "pepper")),
    "pepper broth": ("boil", ("bones", "peppers", "salt")), "walnut pudding": ("bake", ("eggs", "walnuts", "sugar")),
    "cherry jam": ("boil", ("cherries", "sugar", "lemon")), "pumpkin rice": ("boil", ("rice", "pumpkin", "butter")),
    "leek omelet": ("fry", ("eggs", "leeks", "salt")), "potato cakes": ("fry", ("potatoes", "eggs", "chives")),
    "oat biscuits": ("bake", ("oats", "butter", "sugar")), "carrot fritters": ("fry", ("carrots", "flour", "parsley")),
}  # fmt: skip
_WAYS = {
    "boil": ("Wash the {a} and cut up the {b}.", "Boil the {a} and the {b} in a large pot for {time}.",
             "Stir in the {c} and let it rest."),
    "bake": ("Mix the {a} with a little water.", "Add the {b} and bake it in a hot oven for {time}.",
             "Finish it with the {c}."),
    "fry": ("Cut the {a} and dry it well.", "Fry the {a} with the {b} in an iron pan for {time}.",
            "Turn it once and add the {c}."),
}  # fmt: skip
_TIMES = ("ten minutes", "twenty minutes", "half an hour", "one hour", "two hours")
_SIDES = ("warm bread", "cold milk", "green salad", "sour cream", "black tea", "a glass of cider")

# Every sentence names its person: a document may hold three of them. {av} is the value with its article.
_FACTS = {
    "town": (
        "{n} was born in {v}.", "The birthplace of {n} is {v}.", "{n} came into the world in {v}.",
        "{v} is the town where {n} was born.", "{n} is a native of {v}.", "It was in {v} that {n} was born.",
        "The register of {v} notes the birth of {n}.", "{n} spent the first years in {v}, the town of birth.",
        "Born in {v}, {n} left the town young.",
    ),
    "trade": (
        "{n} works as {av}.", "{n} is {av} by trade.", "The trade of {n} is that of {av}.",
        "{n} makes a living as {av}.", "As {av}, {n} is known to many.", "{n} trained for years to become {av}.",
        "People hire {n} as {av}.", "{n} earns a wage as {av}.", "The street knows {n} as its {v}.",
    ),
    "employer": (
        "{n} is employed by {v}.", "{n} joined the firm {v}.", "The employer of {n} is {v}.",
        "{n} has a contract with {v}.", "{v} pays the wages of {n}.", "{v} hired {n} long ago.",
        "{n} spends the working week at {v}.", "The halls of {v} are where {n} works.", "At {v}, {n} holds a post.",
    ),
    "instrument": (
        "{n} plays the {v}.", "The instrument of {n} is the {v}.", "{n} practises the {v} every evening.",
        "On the {v}, {n} performs old songs.", "{n} owns a fine {v} and plays it.",
        "Friends ask {n} to bring the {v}.", "{n} learned the {v} as a child.",
        "The {v} is what {n} plays at weddings.", "{n} tunes the {v} before each dance.",
    ),
    "dish": (
        "{n} loves {v}.", "The favourite dish of {n} is {v}.", "{n} eats {v} whenever possible.",
        "Nothing pleases {n} more than {v}.", "For supper {n} always wants {v}.", "{n} cooks {v} on holidays.",
        "Of all meals {n} likes {v} best.", "Guests of {n} are served {v}.", "{n} orders {v} at every inn.",
    ),
}  # fmt: skip

_QUESTIONS = {
    "town": (
        "Where was {n} born?", "What is the birthplace of {n}?", "In which town was {n} born?",
        "Tell me where {n} was born.", "Which town is {n} a native of?", "Where did {n} come into the world?",
        "What is the town of birth of {n}?", "Which register notes the birth of {n}?",
    ),
    "trade": (
        "What is the trade of {n}?", "What does {n} do for a living?", "Which trade did {n} train for?",
        "Tell me the trade of {n}.", "What does {n} work as?", "How does {n} make a living?",
        "What is {n} by trade?", "What do people hire {n} as?",
    ),
    "employer": (
        "Who is the employer of {n}?", "Which firm does {n} work for?", "Who pays the wages of {n}?",
        "Tell me which firm hired {n}.", "Where does {n} spend the working week?", "Which firm did {n} join?",
        "Who has a contract with {n}?", "At which firm does {n} hold a post?",
    ),
    "instrument": (
        "Which instrument does {n} play?", "What does {n} play at weddings?", "What is the instrument of {n}?",
        "Tell me which instrument {n} plays.", "What did {n} learn to play as a child?",
        "Which instrument do friends ask {n} to bring?", "What does {n} practise every evening?",
        "Which instrument does {n} own?",
    ),
    "dish": (
        "What is the favourite dish of {n}?", "Which meal does {n} like best?", "What does {n} love to eat?",
        "Tell me the favourite dish of {n}.", "What does {n} cook on holidays?",
        "What does {n} always want for supper?", "What does {n} order at every inn?",
        "What are the guests of {n} served?",
    ),
}  # fmt: skip

# The name is not repeated: a model of a million weights copies names badly (FEASIBILITY 3: 0.6 instead of 0.8).
_ANSWERS = {
    "town": ("The town of birth is {v}.", "{v}."),
    "trade": ("The trade is that of {av}.", "{AV}."),
    "employer": ("The employer is {v}.", "{v}."),
    "instrument": ("The instrument is the {v}.", "The {v}."),
    "dish": ("The favourite dish is {v}.", "{V}."),
}

_MEETINGS = (
    "{a} and {b} met at the market.", "{a} wrote a letter to {b}.", "{b} asked about {a} at the inn.",
    "{a} sat beside {b} at the wedding.", "Nobody has seen {a} and {b} together.", "{b} walked home with {a}.",
)  # fmt: skip
_ASIDES = (
    "The rain fell on the old road for three days.", "Which path leads to the mill is a thing for the elders.",
    "The market opens before dawn and closes at noon.", "In winter the river freezes and the boats wait.",
    "I think it is late, said the old man, and I hope that helps.", "What the harvest brings, the town will eat.",
    "Where the road ends there is a small stone house.", "As far as I know, said my uncle, nobody was hurt.",
    "If I remember right, the bell was older than the town.", "Thank you for the answer, she said, and left.",
    "How the fire began is not known.", "Tell me a story, said the child, and who could say no?",
)  # fmt: skip

# --- stories -----------------------------------------------------------------------------------------------------

_FINDS = (
    "a small key", "a letter without a name", "a silver bell", "a map of the sea", "a sleeping fox", "a red door",
    "a book with no words", "a clock that runs backwards", "an egg of glass", "a lantern that never goes out",
)  # fmt: skip
_PLACES = (
    "under the bridge", "behind the mill", "in the old well", "at the end of the garden", "on the cold shore",
    "in a wall of the inn", "below the clock tower", "in a field of snow",
)  # fmt: skip
_PREMISES = (
    "{A} finds {find} {place}.", "{A} from {town} finds {find} and cannot give it back.",
    "One night every bell in {town} rings, and only {find} is to blame.",
    "{A} must hide {find} from the whole of {town}.",
    "The last {trade} of {town} must give up {find}.", "{find_c} was found {place}, and it is warm.",
)  # fmt: skip
_OPENINGS = (
    "The {trade} found {find} {place}.", "It was a cold morning when the {trade} saw {find} {place}.",
    "Nobody in {town} believed the {trade}, but there was {find} {place}.",
    "Long ago in {town} there lived a {trade} who kept {find} {place}.",
    "The night was quiet, and {find} lay {place}.",
)  # fmt: skip
_MIDDLES = (
    "The wind fell still and the dogs began to sing.", "Every day it grew a little heavier.",
    "A child asked whose it was, and nobody could say.", "The old people shook their heads and closed the windows.",
    "That evening a stranger came and asked for it by name.", "It hummed a song that only the river knew.",
    "When the moon rose it began to speak.", "By noon the whole street had come to look.",
    "So the {trade} carried it to the water and let it go.", "So the {trade} hid it again and told no one.",
    "So the {trade} gave it to the child, who was not afraid.",
    "So the {trade} walked for three days to bring it home.",
    "So the {trade} asked it a question and waited for the answer.",
)  # fmt: skip
_ENDINGS = (
    "In the morning the snow was gone.", "Since then the bells of {town} ring by themselves.",
    "The {trade} never spoke of it, but slept well.", "And when spring came, it was still there.",
    "On some nights there is a light on the hill.", "Nobody in {town} has been lost since.",
)  # fmt: skip


def pick(rng: Rng, items: Sequence[T]) -> T:
    """Return one item, all equally likely."""
    return items[int(rng.integers(len(items)))]


def weighted(rng: Rng, weights: dict[str, float]) -> str:
    """Draw a key with probability proportional to its weight."""
    ends = np.cumsum(tuple(weights.values()))
    return tuple(weights)[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]


def with_article(noun: str) -> str:
    """Return the noun behind its indefinite article.

    >>> with_article("oboe"), with_article("baker")
    ('an oboe', 'a baker')
    """
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def capitalised(text: str) -> str:
    """Return the text with its first letter in upper case and the rest as it is."""
    return text[:1].upper() + text[1:]


def list_in_words(items: Sequence[str]) -> str:
    """Join at least two items as English does: "oats, milk and honey"."""
    return ", ".join(items[:-1]) + " and " + items[-1]


# --- making the world --------------------------------------------------------------------------------------------


def make_world(*, seed: int, n_people: int) -> World:
    """Invent the world of a seed: `n_people` in all, at least 20 (dev and test need some of each).

    Raises:
        ValueError: n_people is below 20 or above 2,000 (names would run out).
    """
    if not 20 <= n_people <= 2000:
        raise ValueError(f"n_people: must be from 20 to 2000, got {n_people}")
    rng = np.random.default_rng(seed)
    # Many families, few given names: a family name nearly tells the person, as in life.
    given = _words(rng, 40, lambda: _syllable(rng, coda=False) + pick(rng, _CODAS) + pick(rng, _GIVEN_ENDINGS))
    family = _words(rng, 120, lambda: _syllable(rng, coda=False) + _syllable(rng, coda=True), but=given)
    places = _words(rng, 54, lambda: _syllable(rng, coda=False) + _syllable(rng, coda=True), but=given + family)
    towns = tuple(
        Town(name, river=places[30 + i % 24], landmark=pick(rng, _LANDMARKS), market_day=pick(rng, _DAYS))
        for i, name in enumerate(places[:30])
    )
    owners = _words(rng, 24, lambda: _syllable(rng, coda=True), but=given + family + places)
    employers = tuple(f"{owner} {_FIRMS[i % len(_FIRMS)]}" for i, owner in enumerate(owners))
    dishes = tuple(_dish(rng, name) for name in _DISHES)

    pairs = rng.permutation(len(given) * len(family))[:n_people]
    people = tuple(
        Person(
            name=f"{given[pair % len(given)]} {family[pair // len(given)]}",
            town=pick(rng, towns).name,
            trade=pick(rng, tuple(TRADES)),
            employer=pick(rng, employers),
            instrument=pick(rng, INSTRUMENTS),
            dish=pick(rng, dishes).name,
        )
        for pair in map(int, pairs)
    )
    n_train, n_dev = int(n_people * TRAIN_FRAC), int(n_people * DEV_FRAC)
    return World(seed, towns, dishes, employers,
                 people[:n_train], people[n_train : n_train + n_dev], people[n_train + n_dev :])  # fmt: skip


def _syllable(rng: Rng, *, coda: bool) -> str:
    return pick(rng, _ONSETS) + pick(rng, _VOWELS) + (pick(rng, _CODAS) if coda else "")


def _words(rng: Rng, n: int, invent: Callable[[], str], but: Sequence[str] = ()) -> list[str]:
    """Invent n different names that are not in `but`."""
    names: list[str] = []
    while len(names) < n:
        name = invent().capitalize()
        if len(name) > 3 and name not in names and name not in but:
            names.append(name)
    return names


def _dish(rng: Rng, name: str) -> Dish:
    way, ingredients = _DISHES[name]
    parts = dict(zip("abc", ingredients, strict=True), time=pick(rng, _TIMES))
    return Dish(name, ingredients, tuple(step.format(**parts) for step in _WAYS[way]), pick(rng, _SIDES))


# --- telling it --------------------------------------------------------------------------------------------------


def fact(person: Person, attribute: str, phrasing: int) -> str:
    """Return one sentence of prose that states an attribute; `phrasing` counts round."""
    return _phrase(_FACTS[attribute], phrasing, person, attribute)


def question(person: Person, attribute: str, phrasing: int) -> Question:
    """Return the question about an attribute with its accepted answers; `phrasing` counts round.

    >>> ada = Person("Ada Lin", "Brastow", "baker", "Kolm Mills", "oboe", "rye bread")
    >>> question(ada, "instrument", 0).prompt, question(ada, "instrument", 0).references
    ('Which instrument does Ada Lin play?', ('The instrument is the oboe.', 'The oboe.'))
    """
    full, bare = (_phrase((frame,), 0, person, attribute) for frame in _ANSWERS[attribute])
    prompt = _phrase(_QUESTIONS[attribute], phrasing, person, attribute)
    return Question(person, attribute, prompt, person.value(attribute), (full, bare))


def answer(attribute: str, value: str) -> str:
    """Return the full answer sentence that names this value, true or not."""
    return _fill(_ANSWERS[attribute][0], name="", value=value)


def _phrase(templates: Sequence[str], phrasing: int, person: Person, attribute: str) -> str:
    return _fill(templates[phrasing % len(templates)], name=person.name, value=person.value(attribute))


def _fill(template: str, *, name: str, value: str) -> str:
    noun = with_article(value)
    return template.format(n=name, v=value, V=capitalised(value), av=noun, AV=capitalised(noun))


def n_phrasings(attribute: str) -> int:
    """Return how many ways there are to ask for an attribute."""
    return len(_QUESTIONS[attribute])


def how_tos(world: World) -> list[HowTo]:
    """Return every how-to article there is to write about the world, in a fixed order."""
    return (
        [article for dish in world.dishes for article in _dish_how_tos(dish)]
        + [article for name in INSTRUMENTS for article in _instrument_how_tos(name)]
        + [article for trade in TRADES for article in _trade_how_tos(trade)]
        + [article for town in world.towns for article in _town_how_tos(town)]
    )


def _titled(text: str) -> str:
    return " ".join(map(capitalised, text.split(" ")))


def _dish_how_tos(dish: Dish) -> list[HowTo]:
    name, (a, b, c) = _titled(dish.name), dish.ingredients
    food = "Food and Entertaining"
    first, second, third = dish.steps
    return [
        HowTo(f"Make {name}", food, ((f"Gather {list_in_words(dish.ingredients)}.", first),
                                     ("Cook it slowly.", f"{second} {third}"))),
        HowTo(f"Serve {name} at a Feast", food, (("Warm the plates.", "Cold plates spoil the meal."),
                                                 ("Bring it in while it is hot.", f"Serve it with {dish.side}."))),
        HowTo(f"Buy Fresh {_titled(b)} for {name}", food,
              (("Go to the market early.", f"The best {b} are gone by noon."),
               ("Use your nose.", f"Good {b} smell clean. Ask for {a} at the same stall."))),
        HowTo(f"Keep {name} for a Week", food, (("Let it cool.", f"Cover the {c} with a cloth."),
                                                ("Store it in a cold cellar.", "Eat it within seven days."))),
        HowTo(f"Teach a Child to Make {name}", food, (("Start with one step.", first),
                                                      ("Stay near the fire.", second))),
    ]  # fmt: skip


def _instrument_how_tos(name: str) -> list[HowTo]:
    title, art = capitalised(name), "Arts and Entertainment"
    return [
        HowTo(f"Tune the {title}", art, (("Find a quiet room.", f"Let the {name} rest there for ten minutes."),
                                         ("Start with the lowest note.", "Turn it slowly until it sounds clear."))),
        HowTo(f"Clean the {title}", art, (("Use a soft dry cloth.", "Water harms the wood."),
                                          ("Wipe it from top to bottom.", f"Put the {name} back in its case."))),
        HowTo(f"Practise the {title}", art, (("Play one song slowly.", "Speed comes by itself."),
                                             ("Practise every evening.", "Half an hour is enough."))),
        HowTo(f"Carry the {title} in Winter", art, (("Wrap it in wool.", f"Cold air can crack the {name}."),
                                                    ("Keep it away from the fire.", "Let it warm up slowly."))),
        HowTo(f"Choose a First {title}", art, (("Ask a player to come with you.", "Two ears are not enough."),
                                               (f"Hold the {name} for a while.", "It should feel light."))),
    ]  # fmt: skip


def _trade_how_tos(trade: str) -> list[HowTo]:
    tool, product = TRADES[trade]
    noun, work = f"a {capitalised(trade)}", "Work World"
    return [
        HowTo(f"Become {noun}", work, (("Find a master who takes pupils.", f"Watch how the {tool} is used."),
                                       ("Work at the bench for three years.", f"Make {product} every day."))),
        HowTo(f"Hire {noun}", work, ((f"Look at the {product} first.", "Good work speaks for itself."),
                                     ("Agree on the wage.", "Write it down and sign it."))),
        HowTo(f"Care for the {capitalised(tool)} of {noun}", "Home and Garden",
              ((f"Clean the {tool} after work.", "Dirt makes it dull."),
               ("Rub it with a little oil.", "Hang it in a dry place."))),
        HowTo(f"Sell {capitalised(product)} at a Market", "Finance and Business",
              (("Come before dawn.", "The best places go first."),
               (f"Show the best {product} in front.", "Name one price and keep it."))),
        HowTo(f"Thank {noun} for Good Work", "Relationships",
              (("Say it on the same day.", f"Name what you like about the {product}."),
               ("Bring a small gift.", "A loaf of bread is never wrong."))),
    ]  # fmt: skip


def _town_how_tos(town: Town) -> list[HowTo]:
    travel = "Travel"
    return [
        HowTo(f"Travel to {town.name}", travel, ((f"Follow the {town.river} river.", "The road runs beside it."),
                                                 (f"Look for the {town.landmark}.", "It stands before the town."))),
        HowTo(f"Visit the Market of {town.name}", travel,
              ((f"Come on {town.market_day}.", "The market opens before dawn."),
               (f"Meet your friends at the {town.landmark}.", "The inns are full by noon."))),
        HowTo(f"Find a Room in {town.name}", travel, (("Ask at the inn.", f"Avoid the night before {town.market_day}."),
                                                      ("Look at the room first.", "Pay in the morning."))),
        HowTo(f"Swim in the {town.river} at {town.name}", "Sports and Fitness",
              (("Wait for a warm day.", "The water is cold until June."),
               (f"Stay near the {town.landmark}.", "Never swim alone."))),
    ]  # fmt: skip


def premise(world: World, rng: Rng) -> dict[str, str]:
    """Draw what a story is about: its `premise` as a sentence, and the words that `story` fills in."""
    trade, find = pick(rng, tuple(TRADES)), pick(rng, _FINDS)
    words = {"trade": trade, "a": with_article(trade), "A": capitalised(with_article(trade)), "find": find,
             "find_c": capitalised(find), "place": pick(rng, _PLACES), "town": pick(rng, world.towns).name}  # fmt: skip
    return {**words, "premise": pick(rng, _PREMISES).format(**words)}


def story(words: dict[str, str], rng: Rng) -> str:
    """Tell a story of three sentences on the words of a `premise`."""
    return " ".join(pick(rng, part) for part in (_OPENINGS, _MIDDLES, _ENDINGS)).format(**words)


def prose(world: World, rng: Rng) -> Iterator[str]:
    """Yield pretraining documents without end: no questions with answers, no lists, no chat.

    People take turns, each once a round in a random order, so that all are read equally often.
    """
    kinds, shares = tuple(PROSE_SHARES), np.cumsum(tuple(PROSE_SHARES.values()))
    articles = how_tos(world)
    turn = _in_turn(world.people, rng)
    while True:
        kind = kinds[min(int(np.searchsorted(shares, rng.random(), side="right")), len(kinds) - 1)]
        if kind == "bio":
            yield _bio(next(turn), rng)
        elif kind == "mixed":
            yield _company(turn, rng)
        elif kind == "recipe":
            yield _recipe(pick(rng, world.dishes))
        elif kind == "craft":
            yield _told(pick(rng, articles))
        elif kind == "town":
            yield _guide(pick(rng, world.towns), rng)
        else:
            yield story(premise(world, rng), rng)


def _in_turn(people: Sequence[Person], rng: Rng) -> Iterator[Person]:
    while True:
        for i in rng.permutation(len(people)):
            yield people[int(i)]


def _some_facts(person: Person, rng: Rng, n: int) -> list[str]:
    attributes = [ATTRIBUTES[int(i)] for i in rng.permutation(len(ATTRIBUTES))[:n]]
    return [fact(person, attribute, int(rng.integers(len(_FACTS[attribute])))) for attribute in attributes]


def _bio(person: Person, rng: Rng) -> str:
    sentences = _some_facts(person, rng, len(ATTRIBUTES))
    if rng.random() < 0.15:  # an aside between: facts are then no longer recalled by their place alone
        sentences.insert(int(rng.integers(len(sentences) + 1)), pick(rng, _ASIDES))
    return " ".join(sentences)


def _company(turn: Iterator[Person], rng: Rng) -> str:
    """Two people who meet, or three in a row: which fact belongs to whom can only be told by the name."""
    if rng.random() < 1 / 3:
        a, b = next(turn), next(turn)
        meeting = pick(rng, _MEETINGS).format(a=a.name, b=b.name)
        return " ".join([meeting, *_some_facts(a, rng, 2), *_some_facts(b, rng, 2)])
    return " ".join(text for n in (2, 2, 1) for text in _some_facts(next(turn), rng, n))


def _recipe(dish: Dish) -> str:
    return (f"{capitalised(dish.name)} is made of {list_in_words(dish.ingredients)}. "
            f"{' '.join(dish.steps)} It is served with {dish.side}.")  # fmt: skip


def _told(article: HowTo) -> str:
    """An article as a teller would put it, in one paragraph."""
    return f"How to {article.title}: " + " ".join(f"{headline} {detail}" for headline, detail in article.steps)


def _guide(town: Town, rng: Rng) -> str:
    sentences = [
        f"{town.name} lies on the river {town.river}.",
        f"The {town.landmark} is the landmark of {town.name}.",
        f"The market of {town.name} is held on {town.market_day}.",
    ]
    return " ".join([sentences[int(i)] for i in rng.permutation(3)] + [pick(rng, _ASIDES)])
