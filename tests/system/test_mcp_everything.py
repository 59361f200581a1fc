"""The reference MCP server of the protocol's own project, from npm: imported, classified, and called in a run."""

from urllib.parse import urlsplit

import pytest
from asgiref.sync import sync_to_async

from tenants.models import EgressAllow
from tests.runtime.world import World, call
from tools.definitions import Effect
from tools.imports import definitions, servers
from tools.models import McpServer, Tool

pytestmark = pytest.mark.system


def taken_in(url: str) -> list[str]:
    EgressAllow.objects.get_or_create(host_port=urlsplit(url).netloc)
    servers.put(None, "everything", url=url)
    done = servers.import_tools(None, "everything", None)
    for name, effect in (("echo", Effect.READ), ("get-sum", Effect.READ), ("get-structured-content", Effect.READ)):
        definitions.classify(None, f"everything.{name}", effect=effect, idempotency="none", labels=(), reason="read its source")
    return [f"{draft.remote}: {draft.problem or 'imported'}" for draft, _ in done]


@pytest.mark.mission("P2.1")
async def test_the_reference_server_is_imported_classified_and_called_in_a_run(world: World, everything: str) -> None:
    said = await sync_to_async(taken_in)(everything)
    assert "echo: imported" in said and len(said) > 5, said
    names = ("everything.echo", "everything.get-sum", "everything.get-structured-content")
    await world.agent(tools=names)
    run = await world.script(
        call("everything.echo", message="hello"), call("everything.get-sum", a=2, b=40),
        call("everything.get-structured-content", location="Chicago"), {"text": "Done."},
    )  # fmt: skip
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    results = {c.name: c.result for c in await world.calls(run)}
    assert results[names[0]] == {"ok": True, "text": "Echo: hello"}
    assert "42" in results[names[1]]["text"]
    assert results[names[2]]["ok"] is True and "temperature" in results[names[2]]
    server = await McpServer.objects.aget(name="everything")
    assert server.protocol_version and not server.last_error
    assert (await sync_to_async(servers.refresh)("everything")).changed == ()  # it says the same thing twice
    waiting = [tool.name async for tool in Tool.objects.filter(classified=False)]
    assert waiting and not await Tool.objects.filter(classified=False, enabled=True).aexists()
