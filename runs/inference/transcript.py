"""The messages of a conversation that only grows: what each comes to on the wire, and in size, is worked out once.

A run of 500 steps sends its whole conversation 500 times. Encoding it anew each time costs more than everything else the engine does.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

JSON = dict[str, Any]
Piece = Callable[[JSON], bytes]


def size_of(messages: Sequence[JSON]) -> int:
    """Bytes of these messages as JSON, with a comma after each; whatever JSON cannot say counts as text."""
    text = json.dumps(messages, ensure_ascii=False, separators=(",", ":"), default=str, skipkeys=True)
    return (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))) - 1 if messages else 0


def ids_of(messages: Iterable[Mapping[str, Any]]) -> set[Any]:
    """The ids of all calls that were asked for."""
    return {call.get("id") for message in messages for call in message.get("tool_calls") or ()}


class Transcript(list[JSON]):
    """A list to which messages are only added; one that is in it is never changed."""

    __slots__ = ("_encoded", "_ids", "_measured", "_named", "_piece", "_size", "_text")

    def __init__(self, messages: Iterable[JSON] = ()) -> None:
        super().__init__(messages)
        self._size = self._measured = self._encoded = 0
        self._piece: Piece | None = None
        self._text = bytearray()
        self._ids: set[Any] = set()
        self._named = 0

    def call_ids(self) -> set[Any]:
        """As `ids_of`. Not to be changed."""
        self._ids |= ids_of(self[self._named :])
        self._named = len(self)
        return self._ids

    def size(self) -> int:
        """As `size_of`."""
        self._size += size_of(self[self._measured :])
        self._measured = len(self)
        return self._size

    def encoded(self, piece: Piece) -> bytes:
        """Every message as `piece` encodes it, with commas between. Whatever `piece` raises; then nothing is lost for the next time."""
        if piece is not self._piece:
            self._piece, self._encoded, self._text = piece, 0, bytearray()
        for message in self[self._encoded :]:
            text = piece(message)
            self._text += b"," + text if self._encoded else text
            self._encoded += 1
        return bytes(self._text)
