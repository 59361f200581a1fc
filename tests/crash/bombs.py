"""A model and a tool whose answers never end, or unpack to gigabytes: T44.  python -m tests.crash.bombs PORT

The input of a run says which: `tool stream`, `tool bomb`, `model stream`, `model bomb`; anything else is answered as usual.
"""

import asyncio
import json
import re
import sys
import zlib

PLAIN = "plain"
KINDS = ("tool stream", "tool bomb", "model stream", "model bomb")
ENDS = 1 << 30  # bytes of a stream
BLOCK, BLOCKS = 64 << 20, 160  # 10 GiB in all, which pack to about 10 MiB
CHUNK = b" " * (1 << 16)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"


def packed() -> tuple[bytes, bytes]:
    """The beginning of a gzip stream, and a block that may follow it any number of times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first = packer.compress(b" ") + packer.flush(zlib.Z_FULL_FLUSH)
    return first, packer.compress(b" " * BLOCK) + packer.flush(zlib.Z_FULL_FLUSH)


FIRST, AGAIN = packed()


async def stream(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"\r\n")
    for _ in range(ENDS // len(CHUNK)):
        writer.write(CHUNK)
        await writer.drain()


async def bomb(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"content-encoding: gzip\r\n\r\n" + FIRST)
    for _ in range(BLOCKS):
        writer.write(AGAIN)
        await writer.drain()


def spoken(body: dict[str, object], kind: str) -> bytes:
    """A look-up first, then an answer."""
    asked = b'"tool_call_id"' in json.dumps(body).encode()
    message: dict[str, object] = {"role": "assistant", "content": "Done." if asked or kind == PLAIN else ""}
    if not message["content"]:
        function = {"name": "lookup", "arguments": json.dumps({"q": kind})}
        message["tool_calls"] = [{"id": "call_0", "type": "function", "function": function}]
    usage = {"prompt_tokens": 100, "completion_tokens": 30}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop" if asked else "tool_calls"}], "usage": usage}).encode()


async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"content-length: *(\d+)", head, re.I)
        raw = await reader.readexactly(int(size[1]) if size else 0)
        chat = b"/chat/" in head
        kind = next((each for each in KINDS if each.encode() in raw), PLAIN)
        if kind.startswith("model" if chat else "tool"):
            await (stream if kind.endswith("stream") else bomb)(writer)
        else:
            answer = spoken(json.loads(raw), kind) if chat else b'{"result": "fine"}'
            writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(answer) + answer)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # cut off, as it should be
    finally:
        writer.close()


async def serve(port: int) -> None:
    server = await asyncio.start_server(meet, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
