"""spending: what the answers, verdicts and grades of endpoints cost in a run, by responder or annotator.

It is what they cost at the endpoints' prices, whoever paid when: a reply that the cache held counts like a new one, so
the figure does not depend on the cache. A request that stands behind several rows (two equal answers look alike in
both orders) counts once. Attempts that brought nothing are not in it; the cache's account of the model has them.
"""

from collections.abc import Iterable
from typing import Any, Literal

import polars as pl

COLUMNS = ("request", "n_prompt_tokens", "n_reply_tokens", "cost")


def spending(tables: Iterable[pl.DataFrame], *, by: Literal["annotator", "responder"]) -> dict[str, dict[str, Any]]:
    """Requests, tokens and dollars by name, for who is an endpoint; dollars are absent where none is known.

    Args:
        tables: rows with COLUMNS, as in schema.RECEIPT and schema.ASKED, and the names.
        by: the column of the names.
    """
    asked = pl.concat([table.select(by, *COLUMNS) for table in tables]).drop_nulls("request")
    found: dict[str, dict[str, Any]] = {}
    for name in asked[by].unique().sort():
        requests = asked.filter(pl.col(by) == name).unique("request").sort("request")
        found[name] = {
            "n_requests": requests.height,
            "n_uncounted": requests["cost"].null_count(),  # without an answer, a count or a price
            "n_prompt_tokens": requests["n_prompt_tokens"].sum(),
            "n_reply_tokens": requests["n_reply_tokens"].sum(),
        }
        if requests["cost"].null_count() < requests.height:
            found[name]["cost"] = requests["cost"].sum()
    return found
