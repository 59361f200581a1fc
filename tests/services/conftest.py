"""The engine's world on the PostgreSQL that DATABASE_URL names."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio


@pytest_asyncio.fixture
async def world(committed_db: None, urls: Any) -> AsyncIterator[Any]:
    from tests.runtime.world import opened

    async with opened(urls.engine) as made:
        yield made
