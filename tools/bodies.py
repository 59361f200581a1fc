"""Bodies of answers as they come in: decoded piece by piece, never more than a limit."""

import zlib
from collections.abc import AsyncIterator
from typing import Literal

import aiohttp


class Unreadable(Exception):
    """The body is larger than the limit, or is not encoded as it says."""

    def __init__(self, reason: Literal["too_large", "encoding"], message: str) -> None:
        super().__init__(message)
        self.reason: Literal["too_large", "encoding"] = reason


async def decoded(response: aiohttp.ClientResponse, max_bytes: int) -> AsyncIterator[bytes]:
    """The body, unpacked (gzip, deflate), at most `max_bytes` both packed and unpacked. Raises Unreadable."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "deflate"):
        raise Unreadable("encoding", "the answer has an encoding that was not asked for")
    if response.method != "HEAD" and (response.content_length or 0) > max_bytes:
        raise Unreadable("too_large", f"the answer is larger than {max_bytes} bytes")
    inflate = _Inflate(max_bytes) if encoding in ("gzip", "deflate") else None
    received = unpacked = 0
    async for chunk in response.content.iter_any():
        received += len(chunk)
        piece = inflate.feed(chunk, unpacked) if inflate else chunk
        unpacked += len(piece)
        if received > max_bytes or unpacked > max_bytes:
            raise Unreadable("too_large", f"the answer is larger than {max_bytes} bytes")
        yield piece
    if inflate and received and not inflate.complete:
        raise Unreadable("encoding", "the compressed answer is cut off")


class _Inflate:
    """gzip or zlib, one bounded piece at a time: a bomb is cut before it is unpacked."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._stream = zlib.decompressobj(wbits=47)

    @property
    def complete(self) -> bool:
        return self._stream.eof

    def feed(self, chunk: bytes, so_far: int) -> bytes:
        out = bytearray()
        room = self._max_bytes + 1 - so_far
        while chunk:
            if self._stream.eof:  # gzip may hold several members
                self._stream = zlib.decompressobj(wbits=47)
            try:
                out += self._stream.decompress(chunk, room - len(out))
            except zlib.error:
                raise Unreadable("encoding", "the compressed answer is broken") from None
            if len(out) >= room:
                raise Unreadable("too_large", f"the answer is larger than {self._max_bytes} bytes")
            chunk = self._stream.unused_data
        return bytes(out)
