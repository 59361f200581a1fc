"""The committed world of the engine's tests. Imports wait until Django is set up."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async

from tests import history


@pytest_asyncio.fixture
async def world(request: pytest.FixtureRequest, committed_db: None, urls: Any) -> AsyncIterator[Any]:
    """Afterwards, what the runs wrote is held to the catalogue of events, and the runs to what they wrote."""
    from .world import opened

    async with opened(urls.engine) as made:
        yield made
    if request.node.get_closest_marker("forged") is None:
        assert await sync_to_async(history.faults)() == []
