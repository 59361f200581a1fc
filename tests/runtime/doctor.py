"""For the end of other tests: whatever they did, the tables hold together."""

import asyncio

from asgiref.sync import sync_to_async
from django.db import connection

from console.doctor import Finding, examine

SWEPT_S = 2.5  # engines sweep once a second: what they close by then (an approval of a run that just ended) was no fault


async def healthy() -> None:
    """Fails with every rule that is violated, and by what. Warnings (no jobs in a test) are no failure."""
    if found := await violations():
        await asyncio.sleep(SWEPT_S)
        found = await violations()
    assert not found, "\n".join(f"{one.name}: {one.meaning} {' '.join(one.ids)}" for one in found)


async def violations() -> list[Finding]:
    def look() -> list[Finding]:
        return [one for one in examine(connection) if not one.warning]

    return await sync_to_async(look)()
