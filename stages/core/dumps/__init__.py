"""dumps: write the world as the five upstreams would, in their real file formats and with their dirt.

`DUMPS[source](world)` gives {file name: bytes}; the same world gives the same bytes. No dev or test person is named in
anything that could be trained on. The layouts are those of archive.org's Stack Exchange dumps, wikihowAll.csv,
Pushshift's monthly files and the Super-Natural Instructions repository.
"""

from collections.abc import Callable

from stages.core.dumps.authored import authored
from stages.core.dumps.natural_instructions import natural_instructions
from stages.core.dumps.reddit import reddit
from stages.core.dumps.stack_exchange import SITE_GROUPS, stack_exchange
from stages.core.dumps.wikihow import wikihow
from stages.core.world import World

__all__ = ["DUMPS", "SITE_GROUPS"]

DUMPS: dict[str, Callable[[World], dict[str, bytes]]] = {
    "stack_exchange": stack_exchange,
    "wikihow": wikihow,
    "reddit": reddit,
    "natural_instructions": natural_instructions,
    "authored": authored,
}
