"""Synchronous work from the asynchronous views."""

from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

T = TypeVar("T")


async def briefly(work: Callable[..., T], *args: Any) -> T:
    """Synchronous work in the request's thread. Its connection goes back to the pool at once, not when the request ends."""

    def work_and_let_go() -> T:
        try:
            return work(*args)
        finally:
            for connection in connections.all(initialized_only=True):
                if not connection.in_atomic_block:
                    connection.close_if_unusable_or_obsolete()

    return await sync_to_async(work_and_let_go)()
