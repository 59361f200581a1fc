"""The cases of a suite over HTTP, as many as there are: a part of them in memory at a time, and no connection between parts."""

from collections.abc import AsyncIterator, Iterator

from .threads import briefly


async def stream(parts: Iterator[str]) -> AsyncIterator[bytes]:
    while (part := await briefly(next, parts, None)) is not None:
        yield part.encode()
