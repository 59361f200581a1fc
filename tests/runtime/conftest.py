"""The committed world of the engine's tests. Imports wait until Django is set up."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio


@pytest_asyncio.fixture
async def world(committed_db: None, urls: Any) -> AsyncIterator[Any]:
    from .world import opened

    async with opened(urls.engine) as made:
        yield made
