"""Calls of a model in flight at once, over all engines: each living engine has its share of the model's `max_concurrency`."""

import asyncio
from collections import Counter, defaultdict, deque


class Seats:
    """Of one engine, by model. `share`: how many it has now; asked each time, since engines come and go."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.lines: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self.shares: dict[str, int] = {}

    def now(self, model: str, share: int) -> bool:
        """True: there was one, and it is taken."""
        self.shares[model] = share
        self._call_up(model)  # the share may have grown
        if self.lines[model] or self.taken[model] >= share:
            return False
        self.taken[model] += 1
        return True

    async def take(self, model: str, seconds: float, poked: asyncio.Event) -> bool:
        """Wait in line. True: taken, the caller leaves it again. False: `seconds` have passed, or it was poked."""
        line = self.lines[model]
        line.append(mine := asyncio.get_running_loop().create_future())
        self._call_up(model)
        poke = asyncio.ensure_future(poked.wait())
        try:
            await asyncio.wait({mine, poke}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if mine.done():
                self.leave(model)
            raise
        finally:
            poke.cancel()
            if not mine.done():
                line.remove(mine)
        return mine.done()

    def leave(self, model: str) -> None:
        self.taken[model] -= 1
        self._call_up(model)

    def _call_up(self, model: str) -> None:
        line = self.lines[model]
        while line and self.taken[model] < self.shares.get(model, 1):
            self.taken[model] += 1
            line.popleft().set_result(None)
