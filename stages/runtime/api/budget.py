"""Dollars set aside before each call and put right after it, so that a cap holds whatever runs at once."""

import asyncio

from stages.common.errors import JudgeError
from stages.core.costs import money
from stages.core.reply import Reply
from stages.runtime.api.chat_api import Endpoint
from stages.runtime.api.reply_cache import ReplyCache

ROUNDING = 1e-9  # dollars


class Budget:
    """One run's spending on an endpoint's account, which all runs share."""

    def __init__(self, endpoint: Endpoint, cache: ReplyCache) -> None:
        self.endpoint = endpoint
        self.cache = cache
        self.paid = 0.0  # by this run
        self.n_open = 0  # calls with dollars set aside
        self._settled = asyncio.Event()

    def set_aside(self, amount: float) -> bool:
        """Take what a call may cost from the account; False: the cap leaves too little."""
        limit = self.endpoint.max_cost
        if amount and not self.cache.spend(
            self.endpoint.account, amount, limit=None if limit is None else limit + ROUNDING
        ):
            return False
        self.paid += amount
        self.n_open += 1
        return True

    async def wait_for(self, amount: float, stopped: asyncio.Event) -> None:
        """Set an amount aside; where the cap leaves too little, wait for open calls, which mostly cost less.

        Raises:
            JudgeError: it leaves too little, and no call is open.
        """
        while not self.set_aside(amount):
            if self.n_open == 0:
                raise self.exhausted(amount)
            settled, stop = asyncio.ensure_future(self._settled.wait()), asyncio.ensure_future(stopped.wait())
            await asyncio.wait((settled, stop), return_when=asyncio.FIRST_COMPLETED)
            settled.cancel()
            stop.cancel()
            if stopped.is_set():
                return

    def settle(self, aside: float, cost: float | None) -> None:
        """Put right what was set aside; `cost` None: unknown, so it stays as it is."""
        change = 0.0 if cost is None else cost - aside
        if change:
            self.cache.spend(self.endpoint.account, change, limit=None)
        self.paid += change
        self.n_open -= 1
        self._settled.set()
        self._settled = asyncio.Event()

    def settle_reply(self, aside: float, reply: Reply) -> None:
        """Put right by what the endpoint counted."""
        self.settle(aside, self.endpoint.cost_of(reply.n_prompt_tokens, reply.n_reply_tokens))

    def exhausted(self, amount: float) -> JudgeError:
        """The sentence that ends the run."""
        where = f"{self.endpoint.base_url} ({self.endpoint.model})"
        spent, limit = self.cache.spent(self.endpoint.account), self.endpoint.max_cost or 0.0
        return JudgeError(
            f"{where}: max_cost allows {money(limit)}, got {money(spent)} spent and up to {money(amount)} for what is "
            f"next; raise max_cost and run again, finished replies are kept"
        )
