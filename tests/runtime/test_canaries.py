"""Fifty secrets go out to tools and models that quote them on every path, and none is anywhere afterwards."""

import asyncio
import json
import logging
import secrets
from typing import Any
from urllib.parse import urlsplit

import pytest
from asgiref.sync import sync_to_async
from cryptography.fernet import Fernet
from django.db import connections
from django.test import Client

from approvals.models import Approval
from console.doctor import UNREADABLE, examine
from runs import signoff
from runs.models import ModelDefinition, Run, UnknownWrite
from tenants import controls, credentials
from tenants.models import Credential, EgressAllow, Tenant
from tests.console.callers import caller
from tests.console.live_site import Site, site, topic_of
from tests.console.past import browser
from tests.mcp_server import running
from tools import catalog
from tools.imports import servers
from tools.models import Tool
from tools.redaction import spellings
from tools.spec import ToolSpec

from .parrot import TOOLS, Parrot, listening
from .world import OPEN, World

__all__ = ["site"]
pytestmark = pytest.mark.mission("P10.2")

READS = [mode for mode in TOOLS if mode != "applied"] + ["hang"]
WRITES = ["echo", "applied", "quoting_401", "quoting_500", "cut_400", "broken", "own_error", "misfit", "hang", "drop"]
PYTHON = ["leak_result", "leak_error", "leak_exception", "leak_print"]
CASES = [("read", mode) for mode in READS] + [("write", mode) for mode in WRITES] + [("python", mode) for mode in PYTHON]
ASKED = CASES.index(("write", "echo"))  # this one people are asked about
QUIET = {"hang", "broken", "leak_exception"}  # nothing of these answers is kept
KINDS = ("bearer", "header", "basic")


def canaries() -> dict[str, str]:
    """Two for each case: ordinary, with characters that every encoding changes, and one that is a number."""
    made = {}
    for case in range(len(CASES)):
        for letter in "tm":
            odd = 'q"/+&<%\\' if case % 4 == 1 else ""
            made[f"{letter}{case}"] = f"canary-{letter}{case}-{odd}{secrets.token_urlsafe(18)}"
    made["t2"] = str(secrets.randbelow(10**17) + 10**17)
    return made


def furnish(world: World, url: str, known: dict[str, str]) -> None:
    EgressAllow.objects.create(host_port=urlsplit(url).netloc)
    for case, (effect, mode) in enumerate(CASES):
        for letter in "tm":
            name = f"{letter}{case}"
            kind = KINDS[case % 3] if letter == "t" else "bearer"
            secret = f"clerk:{known[name]}" if kind == "basic" else known[name]
            credentials.store(world.tenant, name, kind, secret, "X-Api-Key" if kind == "header" else "")
        ModelDefinition.objects.create(
            name=f"m{case}", provider="openai", base_url=f"{url}/models/{case}", model="parrot", price_input="1", price_output="1",
            timeout_s=5, credential=f"m{case}", retry={"max_attempts": 2, "backoff_ms": [10]},
        )  # fmt: skip
        catalog.put(None, f"tool_{case}", ToolSpec.model_validate(tool(url, case, effect, mode)))


def tool(url: str, case: int, effect: str, mode: str) -> dict[str, Any]:
    http = {"kind": "http", "url": f"{url}/tools/{case}/{mode}"}
    spec: dict[str, Any] = {
        "adapter": {"kind": "python", "name": mode} if effect == "python" else http, "description": "Leaks", "input_schema": OPEN,
        "effect": "write" if effect == "write" else "read", "credential": f"t{case}", "timeout_s": 30 if effect == "python" else 0.5,
        "retry": {"max_attempts": 2, "backoff_ms": [10]},
    }  # fmt: skip
    if mode == "misfit":
        spec["output_schema"] = {"type": "object", "properties": {"token": {"maxLength": 9}}}
    if effect == "write":
        echo = {"kind": "http", "url": f"{url}/tools/{case}/echo"}
        spec["verify"] = {"adapter": echo, "applied_when": "result.found", "delay_s": 0.1, "probes": 1, "timeout_s": 2}
    return spec


async def case_run(world: World, case: int) -> tuple[Run, str]:
    await world.agent(f"parrot-{case}", (f"tool_{case}",), models={"planner": {"model": f"m{case}"}})
    if case != ASKED:
        await world.permit(f"tool_{case}", "allow", loosen=True)
    ask = await sync_to_async(caller)(world.people["operator"])
    answer = await sync_to_async(ask.post)("/runs", {"agent": f"parrot-{case}", "input": f"case {case}"})
    assert answer.status_code == 202, answer.content
    return await Run.objects.aget(agent_id=f"parrot-{case}"), ask.key


async def to_the_end(world: World, runs: list[Run]) -> None:
    """Approve what waits, and take a person's word for what stays unknown."""
    await world.until(runs[ASKED], "waiting_approval")
    asked = await Approval.objects.aget(run_id=runs[ASKED].id)
    await sync_to_async(signoff.decide)(world.people["approver"], asked.id, verdict="approve", digest=asked.digest)
    for run in runs:
        await world.until(run)


def dump() -> str:
    """Every row of every table as text; bytes are in hex."""
    said = []
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "select quote_ident(table_name) from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"select row_to_json(t)::text from {table} t")
            said.extend(f"{table} {row}" for (row,) in cursor.fetchall())
    return "\n".join(said)


def leaks(text: str, needles: dict[str, list[str]]) -> list[str]:
    return sorted({name for name, forms in needles.items() for form in forms if form in text})


def everything_shown(world: World, runs: list[Run]) -> str:
    """What the API, the pages and the admin tell people of these runs."""
    page, ask, admin = browser(world.people["operator"]), caller(world.people["operator"]), Client()
    root = world.people["admin"].user
    root.is_staff = root.is_superuser = root.is_platform_admin = True
    root.save()
    admin.force_login(root)
    said = []
    for run in runs:
        said += [ask.get(f"/runs/{run.run_id}{part}") for part in ("", "/steps", "/events?limit=500")]
        said += [page.get(f"/runs/{run.run_id}/")]
    said += [page.get(path) for path in ("/", "/runs/", "/approvals/", "/unknowns/", "/tools/", "/tools/tool_0/")]
    said += [page.get(f"/unknowns/{case.unknown_id}/") for case in UnknownWrite.objects.all()]
    said += [page.get(f"/approvals/{one.approval_id}/") for one in Approval.objects.all()]
    said += [ask.get(path) for path in ("/approvals", "/unknowns", "/tools", "/tools/tool_0", "/agents")]
    said += [admin.get(f"/admin/{path}/") for path in ("tenants/credential", "tenants/auditentry", "runs/run", "tools/tool")]
    said += [admin.get(f"/admin/tenants/credential/{row.pk}/change/") for row in Credential.objects.all()]
    assert {answer.status_code for answer in said} == {200}, [(a.status_code, a.request["PATH_INFO"]) for a in said if a.status_code != 200]
    return "\n".join(json.dumps(dict(answer.headers)) + answer.content.decode() for answer in said)


async def frames(world: World, site: Site, runs: list[Run]) -> str:
    """What an open page of all these runs was sent."""
    got: list[Any] = []
    topics = [topic_of(run) for run in runs]
    async with site.open(world.people["operator"]) as page:
        await page.say({"op": "sub", "topics": topics, "since": dict.fromkeys(topics, 0)})
        while sum(message["d"]["event"] == "run_completed" for message in got) < len(runs):
            got.append(await page.next())
    return json.dumps(got)


async def test_no_canary_is_anywhere_after_every_path_that_quotes_it(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("websockets").setLevel(logging.INFO)
    known = canaries()
    assert len(known) == 50
    monkeypatch.setenv("SIGNALBOX_TOOL_MODULES", "tests.runtime.leaky_tools")
    monkeypatch.setenv("OPENAI_API_KEY", platform := "the-platforms-own-" + secrets.token_urlsafe(12))
    parrot = Parrot(known, [mode for _, mode in CASES])
    async with listening(parrot) as url:
        await sync_to_async(furnish)(world, url, known)
        begun = [await case_run(world, case) for case in range(len(CASES))]
        runs, keys = [run for run, _ in begun], [key for _, key in begun]
        await world.engine()
        await to_the_end(world, runs)
        await asyncio.sleep(0)
        shown = await sync_to_async(everything_shown)(world, runs)
        pushed = await frames(world, site, runs)
        for engine, task in world.engines:
            engine.stop()
            await task

    sent = json.dumps(parrot.headers)
    http = {f"t{n}" for n, (effect, _) in enumerate(CASES) if effect != "python" and KINDS[n % 3] != "basic"}
    assert not [name for name in http | {f"m{n}" for n in range(len(CASES))} if json.dumps(known[name])[1:-1] not in sent], "all were used"
    needles = {name: [form for form in spellings(secret)] for name, secret in known.items()}
    needles |= {f"key {n}": [key, key.split("_", 2)[2]] for n, key in enumerate(keys)} | {"platform": [platform]}
    held = await sync_to_async(dump)()
    printed = "".join(capfd.readouterr())
    found = {
        "database": leaks(held, needles), "logs": leaks(caplog.text + "".join(repr(vars(r)) for r in caplog.records), needles),
        "printed": leaks(printed, needles), "API and pages": leaks(shown, needles), "frames": leaks(pushed, needles),
        "models and tools were told": leaks("\n".join(parrot.told), needles),
    }  # fmt: skip
    assert found == {place: [] for place in found}
    assert not [key for key in (platform, *keys) if key in sent], "only the tenant's own credentials go out"
    answered = {f"t{n}" for n, (_, mode) in enumerate(CASES) if mode not in QUIET}
    kept = "\n".join(row for row in held.splitlines() if row.startswith(("call ", "runs_unknownwrite ")) and '"ord":0,' not in row)
    assert not [name for name in answered if f"[credential {name}]" not in kept], "answers were kept, without the secret"
    assert "refused [credential" in caplog.text and "printed [credential" in caplog.text
    with capfd.disabled():
        print(f"\n  50 canaries over {len(CASES)} cases, {len(parrot.headers)} exchanges: 0 in {len(held)} characters of all tables, "
              f"{len(caplog.text)} of logs, {len(shown)} of API and pages, {len(pushed)} of frames")  # fmt: skip


async def test_a_credential_whose_key_is_lost_is_named_and_nothing_is_sent(world: World, settings: Any) -> None:
    parrot = Parrot({"t0": "canary-of-the-tool", "m0": "canary-of-the-model"}, ["echo"])
    settings.SEALING_KEYS = Fernet.generate_key().decode()
    async with listening(parrot) as url:
        await sync_to_async(furnish_one)(world, url)
        settings.SEALING_KEYS = Fernet.generate_key().decode()
        await world.agent("helper", ("tool_0",), models={"planner": {"model": "primary"}})
        await world.agent("other", ("tool_0",), models={"planner": {"model": "m0"}})
        await world.engine()
        by_tool = await world.until(await world.script({"calls": [{"name": "tool_0", "arguments": {}}]}, {"text": "Done."}))
        by_model = await world.until(await world.submit("hello", "other"))
        assert parrot.headers == []
    result = (await world.calls(by_tool))[1].result
    assert (result["error_type"], "t0" in result["message"], "cannot be opened" in result["message"]) == ("authorization", True, True)
    error = by_model.last_error
    assert (by_model.outcome, error["error_type"], "m0" in error["message"]) == ("model_error", "authorization", True)
    sealed = [bytes(row.sealed).decode() async for row in Credential.objects.all()]
    rest = "\n".join(line for line in (await sync_to_async(dump)()).splitlines() if not line.startswith("tenants_credential "))
    assert not [one for one in sealed if one in rest or one.encode().hex() in rest]
    found = {one.name: one for one in await sync_to_async(lambda: examine(connections["owner"]))()}
    assert found[UNREADABLE].ids == ("acme/m0", "acme/t0") and not found[UNREADABLE].warning
    page = await sync_to_async(everything_shown)(world, [])
    assert page.count('alt="False"') == 2  # in the list of credentials


def furnish_one(world: World, url: str) -> None:
    EgressAllow.objects.create(host_port=urlsplit(url).netloc)
    credentials.store(world.tenant, "t0", "bearer", "canary-of-the-tool")
    credentials.store(world.tenant, "m0", "bearer", "canary-of-the-model")
    ModelDefinition.objects.create(
        name="m0", provider="openai", base_url=f"{url}/models/0", model="parrot", price_input="1", price_output="1", timeout_s=5,
        credential="m0", retry={},
    )  # fmt: skip
    catalog.put(None, "tool_0", ToolSpec.model_validate(tool(url, 0, "read", "echo")))


def test_an_mcp_server_that_quotes_its_key_in_a_description_leaves_no_trace_of_it(db: None) -> None:
    tenant = Tenant.objects.create(slug="acme")
    controls.ensure(tenant)
    credentials.store(tenant, "desk-key", "bearer", "canary-of-the-desk")
    with running() as desk:
        desk.change("echo", description="Says what it is told. Authorization: Bearer canary-of-the-desk")
        EgressAllow.objects.create(host_port=desk.host_port)
        servers.put(None, "desk", url=desk.url, credential="desk-key")
        servers.import_tools(None, "desk", None)
        assert any(seen.headers.get("authorization") == "Bearer canary-of-the-desk" for seen in desk.seen)
    made = Tool.objects.select_related("current").get(name="desk.echo")
    assert made.current is not None and "[credential desk-key]" in made.current.description
    assert "canary" not in json.dumps(made.origin) + made.current.description
