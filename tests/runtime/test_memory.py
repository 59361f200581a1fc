"""What agents keep between runs: written and read by calls of tools, for those it belongs to, and gone without a trace when deleted."""

import json
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from cryptography.fernet import Fernet
from django.apps import apps
from django.db.models.functions import Now
from django.utils import timezone

from approvals.models import Approval
from runs import forks, memory, memory_people, memory_rotation, releases, signoff
from runs.models import Agent, Call, MemoryItem, MemoryUse, Run
from runs.spec import Memory
from tenants import controls
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import new_id
from tenants.models import AuditEntry, Member, Tenant, User
from tools import catalog
from tools import memory as tools
from tools.models import Permission, Tool, ToolVersion
from tools.spec import ToolSpec

from .world import World, call

MEMORY = {"session": True, "references": True, "sensitive": True, "max_items": 3}
NOTE = {"kind": "session", "key": "likes", "value": "marzipan"}
ALL = {"kind": "session"}


async def remembering(world: World, name: str = "helper", *, may: bool = True, **changes: Any) -> None:
    """An agent with memory, made as people make releases."""

    def make() -> None:
        block = {
            "instructions": "You are a test.", "tools": ["search_docs"], "models": {"planner": {"model": "primary"}},
            "budget": {"max_steps": 12, "max_writes": 9}, "memory": MEMORY | changes,
        }  # fmt: skip
        agent, _ = Agent.objects.get_or_create(name=name)
        releases.promote(None, releases.create(None, agent, block))

    await sync_to_async(make)()
    if may:
        for tool in (tools.WRITE, tools.FORGET):
            await world.permit(tool, "allow", loosen=True)


async def said(world: World, *turns: Any, **order: Any) -> list[Call]:
    """The tool calls of a run that has ended, after these turns."""
    order = {"session": "s1"} | order
    run = await world.script(*turns, {"text": "Done."}, **order)
    await world.until(run)
    return [each for each in await world.calls(run) if each.ord]


async def seen(world: World, kind: str = "session", **order: Any) -> list[Any]:
    [read] = await said(world, call(tools.READ, kind=kind), **order)
    return [item.get("value") for item in read.result["items"]]


def items() -> list[MemoryItem]:
    return list(MemoryItem.objects.order_by("id"))


@pytest.mark.mission("P7.1", "P7.2")
async def test_what_a_run_writes_a_later_run_of_the_same_session_reads_and_nobody_else(world: World) -> None:
    await remembering(world)
    await remembering(world, "other")
    await world.engine()
    user = {"id": "u1", "attributes": {}}
    [write] = await said(world, call(tools.WRITE, **NOTE), user=user)
    assert write.state == "done" and write.result == {"ok": True, "item": (await sync_to_async(items)())[0].memory_id}

    assert await seen(world, user=user) == ["marzipan"]
    assert await seen(world, user=user, session="s2") == []
    assert await seen(world, user={"id": "u2", "attributes": {}}) == []
    assert await seen(world, user=user, agent="other") == []
    assert await seen(world, "reference", user=user) == []
    world.people |= await sync_to_async(another_tenant)()
    assert await seen(world, user=user, by="stranger") == []

    [item] = await sync_to_async(items)()
    assert (item.owner, item.run_id, item.step, item.ord) == ("u1", write.run_id, 1, 1)
    read = await MemoryUse.objects.filter(item_id=item.id, did="read").acount()
    assert read == 1


def another_tenant() -> dict[str, Actor]:
    tenant = Tenant.objects.create(slug="initech")
    controls.ensure(tenant)
    user = User.objects.create(username="stranger")
    Member.objects.create(tenant=tenant, user=user, role="operator")
    return {"stranger": Actor(user, tenant, "operator")}


@pytest.mark.mission("P7.2")
async def test_a_write_asks_a_person_unless_a_permission_loosens_it(world: World) -> None:
    await remembering(world, may=False)
    await world.engine()
    run = await world.script(call(tools.WRITE, **NOTE), {"text": "Done."}, session="s1")
    await world.until(run, "waiting_approval")
    assert await MemoryItem.objects.acount() == 0
    approval = await Approval.objects.aget(run_id=run.id)
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    await world.until(run)
    assert [item.value for item in await sync_to_async(items)()] == ["marzipan"]


@pytest.mark.mission("P7.1")
async def test_a_reference_points_and_is_never_the_thing_itself(world: World) -> None:
    await remembering(world)
    await world.engine()
    account = {"system": "billing", "id": "acct_1001"}
    bad, good = await said(
        world, call(tools.WRITE, kind="reference", key="account", value={**account, "balance": "12.50"}),
        call(tools.WRITE, kind="reference", key="account", value=account), user={"id": "u1", "attributes": {}},
    )  # fmt: skip
    assert (bad.state, bad.error_class, bad.result["error_type"]) == ("failed_not_applied", "validation", "validation")
    assert good.state == "done"
    assert await seen(world, "reference", session="s9", user={"id": "u1", "attributes": {}}) == [account]
    assert await seen(world, "reference", user={"id": "u2", "attributes": {}}) == []


@pytest.mark.mission("P7.2", "P11.2")
async def test_what_a_tainted_run_wrote_taints_who_reads_it(world: World) -> None:
    await remembering(world)

    def label() -> None:
        held = Tool.objects.select_related("current").get(name="search_docs").current
        fields = {name: getattr(held, name) for name in ToolSpec.model_fields if hasattr(ToolVersion, name)}
        catalog.put(None, "search_docs", ToolSpec.model_validate(fields | {"labels": ["untrusted"]}))

    await sync_to_async(label)()
    await remembering(world, retention_days=31)
    await world.permit(tools.FORGET, "allow", loosen=True)
    await world.permit(tools.WRITE, "deny", when="'untrusted' in run.labels && args.key == 'after'")
    await sync_to_async(loosened)(world)
    await world.engine()
    await said(world, call("search_docs", query="refunds"), call(tools.WRITE, **NOTE))
    [item] = await sync_to_async(items)()
    assert item.labels == ["untrusted"]

    after = {**NOTE, "key": "after"}
    read, write = await said(world, call(tools.READ, **ALL), call(tools.WRITE, **after))
    assert read.result["labels"] == ["untrusted"]
    assert write.decision["decision"] == "deny"
    [clean] = await said(world, call(tools.WRITE, **after))
    assert clean.state == "done"


def loosened(world: World) -> None:
    Permission.objects.create(tool_id=tools.WRITE, tenant=world.tenant, decision="allow", loosen=True)


@pytest.mark.mission("P7.2", "P4.2")
async def test_a_second_send_of_a_write_writes_once_and_another_engines_not_at_all(world: World) -> None:
    await remembering(world)
    run = await world.submit("x", session="s1")
    await Run.objects.filter(pk=run.pk).aupdate(fence=3)
    place = memory.Place(run.id, 1, 1, 3)
    tell = sync_to_async(memory.carry_out)
    first = await tell(world.tenant.id, place, "write", NOTE, Memory(session=True), ())
    await tell(world.tenant.id, memory.Place(run.id, 2, 1, 3), "write", {**NOTE, "value": "nougat"}, Memory(session=True), ())
    again = await tell(world.tenant.id, place, "write", NOTE, Memory(session=True), ())
    assert again == first
    assert [item.value for item in await sync_to_async(items)()] == ["nougat"]

    stale = await tell(world.tenant.id, memory.Place(run.id, 3, 1, 2), "write", {**NOTE, "key": "late"}, Memory(session=True), ())
    assert stale.data["error_type"] == "conflict"
    assert await MemoryItem.objects.acount() == 1


@pytest.mark.mission("P7.2", "P9.3")
async def test_a_run_that_changes_nothing_writes_and_forgets_nothing(world: World) -> None:
    await remembering(world)
    await world.engine()
    await said(world, call(tools.WRITE, **NOTE))
    run = await world.script(
        call(tools.WRITE, **{**NOTE, "value": "nougat"}), call(tools.FORGET, kind="session", key="likes"), {"text": "Done."}, session="s1"
    )
    await world.until(run)
    await said(world, call(tools.WRITE, **NOTE))
    again = await sync_to_async(forks.fork)(world.people["operator"], run.id, 1, forks.Changes())
    await world.until(again)
    assert {each.error_class for each in await world.calls(again) if each.ord} == {"rehearsed"}
    assert [item.value for item in await sync_to_async(items)()] == ["marzipan"]


def hidden(name: str, **arguments: Any) -> dict[str, Any]:
    """A scripted call whose canary is not in the script as it is: the question of a run is its caller's, and stays."""
    raw = json.dumps(arguments).replace("canary", "\\u0063anary")
    return {"calls": [{"name": name, "arguments_raw": raw}]}


def rows_with(word: str) -> list[str]:
    """Every table that holds the word, as text or in its bytes."""
    with_word = (
        model for model in apps.get_models(include_auto_created=True) if any(holds(row, word) for row in model._default_manager.all())
    )
    return sorted(model._meta.db_table for model in with_word)


def holds(row: Any, word: str) -> bool:
    values = [getattr(row, field.attname) for field in row._meta.concrete_fields]
    plain = [bytes(each).decode(errors="replace") if isinstance(each, bytes | memoryview) else str(each) for each in values]
    return any(word in each for each in plain)


@pytest.mark.mission("P7.2")
async def test_a_sensitive_value_lies_sealed_and_in_no_row_of_the_runs_that_wrote_and_read_it(world: World) -> None:
    await remembering(world)
    await world.engine()
    secret = "canary-9131"
    [wrote] = await said(world, hidden(tools.WRITE, kind="session", key="iban", value=secret, sensitivity="sensitive"))
    assert json.loads(bytes(wrote.args))["value"] == "(sealed)"
    assert await seen(world) == [None]
    [read] = await said(world, call(tools.READ_SENSITIVE, **ALL))
    assert read.result["items"][0]["sensitive"] is True and "value" not in read.result["items"][0]
    run = await world.submit("x", session="s1")
    await world.until(run)
    held = await Run.objects.aget(id=run.id)
    place = memory.Place(run.id, 9, 1, held.fence)
    told = await sync_to_async(memory.carry_out)(world.tenant.id, place, "read_sensitive", ALL, Memory(session=True), ())
    assert told.data["items"][0]["value"] == secret and secret not in json.dumps(told.kept)
    assert await sync_to_async(rows_with)(secret) == []

    [item] = await sync_to_async(items)()
    assert item.value is None and await sync_to_async(memory.opened)(item) == secret
    with pytest.raises(Refused, match="memory:read_sensitive"):
        await sync_to_async(memory_people.reveal)(world.people["operator"], item)
    assert await sync_to_async(memory_people.reveal)(world.people["admin"], item) == secret
    assert await AuditEntry.objects.filter(action="memory.viewed", object_id=item.memory_id).acount() == 1
    assert await sync_to_async(lambda: list(memory_people.search(world.people["admin"], text=secret)))() == []


@pytest.mark.mission("P7.2")
async def test_without_the_releases_word_no_tool_reads_what_is_sensitive(world: World) -> None:
    await remembering(world, sensitive=False)
    release = await sync_to_async(lambda: Agent.objects.get(name="helper").live)()
    assert set(release.spec["tools"]) == {"search_docs", tools.READ, tools.WRITE, tools.FORGET} == set(release.tools)
    await world.engine()
    [denied] = await said(world, call(tools.READ_SENSITIVE, **ALL))
    assert denied.decision["by"] == "not_listed"


@pytest.mark.mission("P7.2")
async def test_a_deleted_item_is_in_no_table_afterwards_forks_and_requests_included(world: World) -> None:
    await remembering(world, may=False)
    await world.engine()
    canary = "canary-7731"
    run = await world.script(hidden(tools.WRITE, kind="session", key="likes", value=canary), {"text": "Done."}, session="s1")
    await world.until(run, "waiting_approval")
    asked = await Approval.objects.aget(run_id=run.id)
    await sync_to_async(signoff.decide)(world.people["approver"], asked.id, verdict="approve", digest=asked.digest)
    await world.until(run)
    first = await world.script(call(tools.READ, **ALL), {"text": "Done."}, session="s1")
    await world.until(first)
    await world.until(await sync_to_async(forks.fork)(world.people["operator"], first.id, 2, forks.Changes()))
    await world.until(await sync_to_async(forks.fork)(world.people["operator"], first.id, 1, forks.Changes(reads="recorded")))
    assert await sync_to_async(rows_with)(canary) == ["approvals_approval", "call", "runs_memoryitem"]

    [item] = await sync_to_async(items)()
    receipt = await sync_to_async(memory_people.delete)(world.people["operator"], item, "the customer asked")
    assert (receipt.items, receipt.calls, receipt.running) == (1, 4, 0)
    assert await sync_to_async(rows_with)(canary) == []
    entry = await AuditEntry.objects.aget(action="memory.deleted")
    assert entry.reason == "the customer asked" and entry.after["sha256"] == receipt.sha256
    await sync_to_async(memory_people.tidy)()
    assert await MemoryUse.objects.acount() == 0


@pytest.mark.mission("P7.2")
async def test_an_answer_that_is_written_after_the_deletion_is_emptied_when_its_run_has_ended(world: World) -> None:
    await remembering(world)
    await world.engine()
    await said(world, hidden(tools.WRITE, kind="session", key="likes", value="canary-5"))
    [read] = await said(world, call(tools.READ, **ALL))
    [item] = await sync_to_async(items)()
    await sync_to_async(memory_people.delete)(world.people["operator"], item, "r")
    late = Call.objects.filter(run_id=read.run_id, step=read.step, ord=read.ord)
    await late.aupdate(result=read.result)
    assert await sync_to_async(memory_people.tidy)() == (0, 2)
    assert await sync_to_async(rows_with)("canary-5") == []


@pytest.mark.mission("P7.2")
async def test_what_has_expired_is_read_by_nobody_and_goes_for_good(world: World) -> None:
    await remembering(world)
    await world.engine()
    await said(world, hidden(tools.WRITE, kind="session", key="likes", value="canary-6", ttl_days=1))
    await said(world, call(tools.WRITE, **{**NOTE, "key": "other"}))
    expiring = MemoryItem.objects.filter(key="likes")
    assert (await expiring.aget()).expires_at < (await MemoryItem.objects.aget(key="other")).expires_at
    await expiring.aupdate(expires_at=Now() - timedelta(seconds=1))
    assert await seen(world) == ["marzipan"]
    assert await sync_to_async(memory_people.expire)() == 1
    assert await sync_to_async(rows_with)("canary-6") == []
    assert [item.key for item in await sync_to_async(items)()] == ["other"]
    assert await AuditEntry.objects.filter(action="memory.expired", actor="system").acount() == 1


@pytest.mark.mission("P7.2")
async def test_a_tool_call_forgets_and_a_full_memory_refuses(world: World) -> None:
    await remembering(world, max_items=1)
    await world.engine()
    written, full, again, forgot, nothing, room = await said(
        world, call(tools.WRITE, **NOTE), call(tools.WRITE, **{**NOTE, "key": "b"}), call(tools.WRITE, **{**NOTE, "value": "nougat"}),
        call(tools.FORGET, kind="session", key="likes"), call(tools.FORGET, kind="session", key="nothing"),
        call(tools.WRITE, **{**NOTE, "key": "b", "value": 5}),
    )  # fmt: skip
    assert (full.result["error_type"], full.error_class) == ("memory_full", "validation")
    assert again.result == written.result
    assert (forgot.result["forgotten"], nothing.result["forgotten"]) == (True, False)
    assert room.state == "done" and [item.value for item in await sync_to_async(items)()] == [5]


@pytest.mark.mission("P7.2")
@pytest.mark.parametrize("value", ["x" * (5 << 20), {"deep": ["x" * 4000, "y" * 4200]}], ids=["5 MB", "more than 8 KiB"])
async def test_what_is_too_large_is_not_kept(world: World, value: Any) -> None:
    await remembering(world)
    run = await world.submit("x", session="s1")
    place = memory.Place(run.id, 1, 1, 0)
    told = await sync_to_async(memory.carry_out)(world.tenant.id, place, "write", {**NOTE, "value": value}, Memory(session=True), ())
    assert told.error == "validation" and "8192 are kept at most" in told.data["message"]
    assert await MemoryItem.objects.acount() == 0


@pytest.mark.mission("P7.2")
async def test_a_person_corrects_and_all_of_a_subject_is_forgotten_with_a_receipt(world: World) -> None:
    await remembering(world)
    await world.engine()
    user = {"id": "u1", "attributes": {}}
    pointer = {"system": "billing", "id": "acct_1"}
    await said(world, call(tools.WRITE, **NOTE), call(tools.WRITE, kind="reference", key="account", value=pointer), user=user)
    await said(world, call(tools.WRITE, **NOTE), user={"id": "u2", "attributes": {}})
    people = {name: person for name, person in world.people.items() if name in ("viewer", "operator")}
    one = await MemoryItem.objects.select_related("tenant").aget(subject="u1", kind="session")
    correct, forget = sync_to_async(memory_people.correct), sync_to_async(memory_people.forget)
    with pytest.raises(Refused, match="memory:write"):
        await correct(people["viewer"], one, "nougat", "r")
    with pytest.raises(Refused, match="Say why"):
        await correct(people["operator"], one, "nougat", " ")
    await correct(people["operator"], one, "nougat", "they said so")
    assert await seen(world, user=user) == ["nougat"]

    planned = await forget(people["operator"], world.tenant, subject="u1", dry_run=True)
    assert (planned.items, planned.dry_run, await MemoryItem.objects.acount()) == (2, True, 3)
    done = await forget(people["operator"], world.tenant, subject="u1", reason="their right")
    assert (done.items, done.calls, done.sha256) == (2, planned.calls, planned.sha256)
    assert [item.subject for item in await sync_to_async(items)()] == ["u2"]
    audited = [entry async for entry in AuditEntry.objects.filter(action__startswith="memory.").order_by("id")]
    assert [entry.action for entry in audited] == ["memory.corrected", "memory.forgotten"]
    assert "u1" not in json.dumps([[entry.object_id, entry.before, entry.after] for entry in audited])


@pytest.mark.mission("P7.2", "P10.2")
async def test_a_new_sealing_key_opens_memory_without_the_old_one(world: World, settings: Any) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    settings.SEALING_KEYS = old
    row = MemoryItem(
        id=new_id(), tenant=world.tenant, kind="session", agent="helper", key="iban", owner="u1", run_id=new_id(), step=1, ord=1,
        expires_at=timezone.now() + timedelta(days=1),
    )  # fmt: skip
    memory.fill(row, "canary-1", sensitive=True)
    await row.asave()
    settings.SEALING_KEYS = f"{new},{old}"
    assert await sync_to_async(memory_rotation.left)() == [row.memory_id]
    assert await sync_to_async(lambda: sum(memory_rotation.rotate()))() == 1
    settings.SEALING_KEYS = new
    held = (await sync_to_async(items)())[0]
    assert await sync_to_async(memory.opened)(held) == "canary-1" and await sync_to_async(memory_rotation.left)() == []
