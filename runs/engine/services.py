"""What drives runs, handed to them by the engine: nothing here is global."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.db import close_old_connections, connections

from tools.egress import Egress
from tools.invoke import Tools

from .circuits import Circuits
from .definitions import Definitions
from .journal import Journal
from .lease import Lease
from .retry_budget import RetryBudget
from .seats import Seats

T = TypeVar("T")


class Orm:
    """Rare moves go through the ORM in at most four threads of the engine's own. Shielded: their answer is always read."""

    def __init__(self, threads: int = 4) -> None:
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="orm")

    async def __call__(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        def work() -> T:
            close_old_connections()
            try:
                return function(*args, **kwargs)
            finally:
                if connections["default"].in_atomic_block:
                    connections["default"].close()

        future = asyncio.get_running_loop().run_in_executor(self.pool, work)
        return await asyncio.shield(future)

    def close(self) -> None:
        self.pool.shutdown(wait=True)


@dataclass(slots=True)
class Services:
    journal: Journal
    egress: Egress
    tools: Tools
    definitions: Definitions
    lease: Lease
    orm: Orm
    circuits: Circuits
    seats: Seats = field(default_factory=Seats)
    retry_budget: RetryBudget = field(default_factory=RetryBudget)
    rnd: Callable[[], float] = field(default=random.random)
