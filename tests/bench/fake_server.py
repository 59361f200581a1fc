"""A model and a tool on loopback that cost almost nothing: what is measured is the engine.

`POST /v1/chat/completions` asks for one `lookup` a turn until the conversation holds three answers (TOOL_TURNS), then ends.
`POST /tools/lookup` answers one line.  python -m tests.bench.fake_server PORT [LATENCY_MS]
"""

import asyncio
import json
import os
import sys

import uvloop

TEXT = "All three items are in order, shipped on time and paid for. " * 4
TOOL_TURNS = int(os.environ.get("TOOL_TURNS", "3"))


def completion(body: bytes) -> bytes:
    done = body.count(b'"tool_call_id"')
    message: dict[str, object] = {"role": "assistant", "content": TEXT if done >= TOOL_TURNS else ""}
    if done < TOOL_TURNS:
        function = {"name": "lookup", "arguments": json.dumps({"q": f"item {done}", "n": done})}
        message["tool_calls"] = [{"id": f"call_{done}", "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if done < TOOL_TURNS else "stop"}
    usage = {"prompt_tokens": 100 + 30 * done, "completion_tokens": 30}
    return json.dumps({"id": "c", "object": "chat.completion", "model": "fake", "choices": [choice], "usage": usage}).encode()


class Fake(asyncio.Protocol):
    latency_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + size], self.buffer[end + 4 + size :]
            answer = completion(body) if b"/chat/" in head[:80] else json.dumps({"result": TEXT}).encode()
            if self.latency_s:
                asyncio.get_running_loop().call_later(self.latency_s, self.reply, answer)
            else:
                self.reply(answer)

    def reply(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
            self.transport.write(head + answer)  # type: ignore[attr-defined]


async def serve(port: int, latency_ms: float) -> None:
    Fake.latency_s = latency_ms / 1000
    server = await asyncio.get_running_loop().create_server(Fake, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
