"""A tenant whose every text is a payload: rows of each table, written past the rules that would refuse many of them.

Runs in the installation, see `MAKE`. What the pages show is looked at by test_payloads.py.
"""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from django.db import Error, transaction
from django.db.models import Field, Model
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from approvals.models import Approval, ApprovalDecision
from console.database import BY_TRIGGERS
from console.models import Incident, IncidentEntry, Invitation, Runbook, RunbookVersion
from runs.intake import Order, submit
from runs.models import Agent, Call, MemoryItem, Run, RunInput, Step
from runs.states import CallState, RunState
from tenants import audit
from tenants.ids import encode, new_id
from tenants.models import ApiKey, Member, Tenant, User
from tests.runtime.furnished import Furnished, fill, fixed, furnish, models
from tests.runtime.waiting import ask, make_release, person
from tools.models import McpServer, Tool, ToolVersion

from .payloads import fitting

MAKE = """
import json
from django.db import transaction
from tests.browser import payload_world
from tests.browser.payloads import CORPUS, FEW
with transaction.atomic():
    made = payload_world.make({few} and FEW or CORPUS)
print(json.dumps(made))
"""
WORD = "hostile"
TEXTS = ("CharField", "TextField")
# Made by their own functions below, or told by the database itself.
APART = {
    "run", "call", "step", "event", "run_input", "approvals_approval", "approvals_approvaldecision", "console_incident", "controls",
    "console_incidententry", "runs_memoryitem", "tenants_auditentry", "tenants_credential", "runs_observation", "runs_deletedhistory",
    "tenants_idempotencyrecord", "approvals_opening", "console_incidentrun", "runs_retention", "tenants_ceiling", "tenants_spending",
    *BY_TRIGGERS,
}  # fmt: skip
NAMED = ("console_channel", "tools_rule", "approvals_group", "runs_case")  # their names are held to a pattern
# Words of ours that no stranger writes: kinds, hashes, names of columns.
OURS = {
    "sha256", "digest", "kind", "event", "scope", "effect", "sealed", "mode", "request_id", "checks_version", "state", "surface",
    "risk", "group", "escalates_to",
}  # fmt: skip


@dataclass
class World:
    made: Furnished
    payloads: tuple[str, ...]
    filled: Counter[str] = field(default_factory=Counter)  # table.column -> payloads in it
    refused: Counter[str] = field(default_factory=Counter)
    subjects: list[tuple[Run, Approval]] = field(default_factory=list)

    def at(self, number: int, most: int) -> str:
        return fitting(self.payloads, number, most)

    def count(self, *places: str) -> None:
        for place in places:
            self.filled[place] += 1


def make(payloads: tuple[str, ...]) -> dict[str, Any]:
    """-> who may walk, what stands where. One transaction: no engine sees a run before it is over."""
    world = World(furnish(WORD), payloads)
    people(world)
    installation(world)
    runs = [a_run(world, number, payload) for number, payload in enumerate(payloads)]
    large = a_large_run(world)
    asked = [an_approval(world, number, payload) for number, payload in enumerate(payloads)]
    incidents = [an_incident(world, number, payload) for number, payload in enumerate(payloads)]
    for number, payload in enumerate(payloads):
        remembered(world, number, payload)
        audited(world, number, payload)
    everything_else(world)
    Approval.objects.filter(tenant=world.made.world.tenant).update(expires_at=Now() + timedelta(days=1))
    session = Client()
    session.force_login(world.made.admin.user)
    return {
        "session": session.cookies["sessionid"].value, "word": WORD, "large": large, "runs": runs, "approvals": asked,
        "incidents": incidents, "filled": world.filled, "refused": world.refused, "rows": rows_of(world),
    }  # fmt: skip


def rows_of(world: World) -> dict[str, list[str]]:
    """Table -> the keys of the tenant's rows, for addresses."""
    found = {}
    for table, model in models().items():
        if any(each.attname == "tenant_id" for each in model._meta.concrete_fields) and model._meta.pk.name != "pk":
            found[table] = [str(row.pk) for row in world.made.rows(table)]
    return found


def people(world: World) -> None:
    tenant = world.made.world.tenant
    Tenant.objects.filter(pk=tenant.pk).update(name=world.at(0, 200))
    admin = world.made.admin.user
    User.objects.filter(pk=admin.pk).update(first_name=world.at(1, 150), is_platform_admin=True)
    for number, payload in enumerate(world.payloads[:60]):
        who = person(tenant, world.at(number, 150) if number < 40 else f"{payload[:30]}-{number}", "viewer")
        User.objects.filter(pk=who.user.pk).update(first_name=world.at(number, 150), email=world.at(number, 60))
        member = Member.objects.get(tenant=tenant, user=who.user)
        ApiKey.objects.create(id=f"h{number:011d}", member=member, name=world.at(number, 100), sha256=b"h%d" % number, scopes=["runs:read"])
        again = world.at(number, 150)
        Invitation.objects.create(
            tenant=tenant, username=again, email=again[:200], role="viewer", sha256=b"i%d" % number, made_by=admin,
            expires_at=timezone.now() + timedelta(days=1),
        )  # fmt: skip
        world.count("user.username", "user.first_name", "user.email", "key.name", "invitation.username")


def installation(world: World) -> None:
    """Things that no tenant owns: tools from imports, an agent's instructions, a runbook."""
    tools(world)
    agent = world.made.world.agent
    lines = "\n".join(world.payloads)
    numbers = {"budget": {"max_steps": 6}, "deadlines": {"run_s": 20}, "models": {"planner": {"model": "primary"}}}
    release = make_release(Agent.objects.get(pk=agent.pk), 2, instructions=lines, **numbers)
    Agent.objects.filter(pk=agent.pk).update(live=release)
    agent.live = release
    safe = [payload for payload in world.payloads if payload.isprintable() or "\n" in payload]
    blocks = "\n\n".join(safe)
    items = "\n".join(
        f"{n}. Look at {payload.splitlines()[0]}. And {payload.splitlines()[-1]}" for n, payload in enumerate(safe[:40], start=1)
    )
    source = f"# {safe[0]}\n\n{blocks}\n\n## {safe[1]}\n\n{items}\n\n{blocks}\n"
    book = Runbook.objects.create(name=f"{WORD}-book", tenants=[WORD])
    book.current = RunbookVersion.objects.create(runbook=book, number=1, title=safe[0][:200], source=source[:60_000], sha256="0" * 64)
    book.save()
    for _ in safe:
        world.count("runbook.source", "release.instructions")


def tools(world: World) -> None:
    for number, payload in enumerate(world.payloads):
        name = f"{WORD}_tool" if number == 0 else f"{WORD}_tool_{number}"
        tool, _ = Tool.objects.get_or_create(name=name, defaults={"tenants": [WORD]})
        schema = {
            "type": "object",
            "title": payload,
            "description": payload,
            "properties": {payload: {"type": "string", "description": payload, "enum": [payload]}},
        }
        tool.current = ToolVersion.objects.create(
            tool=tool, number=7, description=payload, effect="write", timeout_s=5, sha256="0" * 64,
            input_schema=schema, output_schema=schema,
            adapter={"kind": "http", "method": "POST", "url": f"https://hostile.example/{payload}"}, labels=[world.at(number, 40)],
            duplicate_when=payload, effect_key=world.at(number, 200), credential=world.at(number, 100),
        )  # fmt: skip
        tool.save()
        McpServer.objects.create(
            name=f"{WORD}-{number}", url=f"https://h.example/{payload}", tenants=[WORD], last_error=world.at(number, 500)
        )
        world.count(
            "tool.description", "tool.input_schema", "tool.adapter", "tool.labels", "tool.duplicate_when", "mcp.url", "mcp.last_error"
        )
    Agent.objects.filter(pk=world.made.world.agent.pk).update(tenants=[WORD])


def a_run(world: World, number: int, payload: str) -> str:
    """One that failed, asked and told with a payload."""
    who = {"id": world.at(number, 128), "attributes": {payload: payload}}
    order = Order(
        agent=world.made.world.agent.name,
        input={"text": payload, "data": {payload: payload}},
        session=world.at(number, 128),
        metadata={payload: payload},
    )
    run = submit(world.made.world.starter, order).run
    RunInput.objects.filter(pk=run.pk).update(user=who, callback={"url": payload, "secret_name": world.at(number, 100)})
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=new_id(), fence=1)
    error = {"error_type": "validation", "message": payload}
    stop = {"limit": "max_steps", "value": payload, "used": payload, "by": payload, "step": 1}
    Run.objects.filter(pk=run.pk).update(
        state=RunState.FAILED, owner=None, outcome="tool_error", ended_at=Now(), last_error=error, stop=stop
    )
    a_step(world, run, 1, number, payload)
    world.count("run.input", "run.data", "run.user", "run.session", "run.metadata", "run.last_error", "run.stop", "run.callback")
    return encode("agt", run.id)


def a_large_run(world: World) -> str:
    """One with a step of each payload: what models and tools say."""
    run = submit(world.made.world.starter, Order(agent=world.made.world.agent.name, input=world.payloads[0])).run
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=new_id(), fence=1)
    for number, payload in enumerate(world.payloads):
        a_step(world, run, number + 1, number, payload)
    last = len(world.payloads)
    Run.objects.filter(pk=run.pk).update(
        state=RunState.SUCCEEDED, owner=None, outcome="completed", ended_at=Now(), step=last, answer_step=last
    )
    return encode("agt", run.id)


def a_step(world: World, run: Run, step: int, number: int, payload: str) -> None:
    Step.objects.create(run=run, step=step, tenant_id=run.tenant_id, role="planner", model=world.at(number, 64), calls=2)
    arguments = json.dumps({payload: payload, "text": payload}).encode()
    reply = {"text": payload, "calls": [{"name": payload, "arguments": {payload: payload}, "id": payload}], "model": payload}
    a_call(run, step, 0, CallState.DISPATCHED, name=world.at(number, 128), effect="read", result=reply, args=arguments)
    why = {"decision": "deny", "why": payload, "by": payload, "approvers": 1, "rev": "1"}
    told = {"ok": False, "error_type": "drafted", "message": payload, payload: [payload]}
    named = {"name": world.at(number, 128), "effect": "write", "provider_id": world.at(number, 128)}
    a_call(run, step, 1, CallState.BLOCKED, args=arguments, proposed=b"{}", decision=why, result=told, error_class="drafted", **named)
    a_call(run, step, 2, CallState.DISPATCHED, args=arguments, result={"ok": True, "text": payload, payload: payload}, **named)
    world.count("step.model", "call.name", "call.args", "call.result", "call.reply", "call.decision", "call.provider_id", "call.error")


def a_call(run: Run, step: int, ord_: int, state: str, **values: Any) -> None:
    sent = {"dispatched_at": timezone.now(), "attempt": 1} if state == CallState.DISPATCHED else {}
    Call.objects.create(run=run, step=step, ord=ord_, tenant_id=run.tenant_id, state=state, fence=1, **sent, **values)
    if sent:
        Call.objects.filter(run_id=run.id, step=step, ord=ord_).update(state=CallState.DONE, ended_at=Now())


def an_approval(world: World, number: int, payload: str) -> str:
    furnished = world.made.world
    run = submit(furnished.starter, Order(agent=furnished.agent.name, input=payload)).run
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=new_id(), fence=1)
    run.refresh_from_db()
    arguments = json.dumps({payload: payload, "more": [payload], "text": payload}).encode()
    Step.objects.create(run=run, step=1, tenant_id=run.tenant_id, role="planner", model="primary", calls=1)
    a_call(run, 1, 1, CallState.WAITING_APPROVAL, name=f"{WORD}_tool", effect="write", args=arguments)
    evidence = [{"step": 1, "ord": 1, "tool": payload, "result_sha256": payload}]
    asked = ask(run, tool=f"{WORD}_tool", why=payload, args=arguments, evidence=evidence)
    seen = {"at": timezone.now().isoformat(), "before": {payload: payload}, "after": {payload: payload, "x": payload}}
    Approval.objects.filter(pk=asked.pk).update(
        preview=seen, proposed=b'{"text":"x"}', void_reason=world.at(number, 200), tool=world.at(number, 64)
    )
    decided = furnished.approver.user
    ApprovalDecision.objects.create(approval=asked, user=decided, verdict="approve", digest=asked.digest, reason=payload)
    Run.objects.filter(pk=run.pk).update(state=RunState.WAITING_APPROVAL, owner=None, waiting_since=Now())
    world.count("approval.why", "approval.args", "approval.evidence", "approval.preview", "approval.tool", "decision.reason")
    world.subjects.append((run, asked))
    return encode("apr", asked.id)


def an_incident(world: World, number: int, payload: str) -> str:
    furnished, title = world.made.world, world.at(number, 200)
    subject = {"tool": payload} if number % 2 else {"agent": payload}
    one = Incident.objects.create(
        tenant=furnished.tenant, title=title, severity="minor", subject=subject, runbook=f"{WORD}-book", runbook_version=1,
        opened_by=furnished.operator.user,
    )  # fmt: skip
    for kind in ("note", "resolved", "acknowledged"):
        IncidentEntry.objects.create(incident=one, actor=furnished.operator.user, kind=kind, text=payload)
    given = {"action": "unknown", "object_kind": payload, "object_id": payload, "given": {payload: payload}, "before": {"text": payload}}
    IncidentEntry.objects.create(incident=one, actor=furnished.operator.user, kind="action", text=payload, data=given)
    IncidentEntry.objects.create(incident=one, actor=None, kind="changed", data={"field": payload, "before": payload, "after": payload})
    world.count("incident.title", "incident.subject", "entry.text", "entry.data")
    return encode("inc", one.id)


def remembered(world: World, number: int, payload: str) -> None:
    tenant = world.made.world.tenant
    source = {"run_id": world.made.runs["ended"].id, "step": 1, "ord": 1, "expires_at": timezone.now() + timedelta(days=1)}
    MemoryItem.objects.create(
        tenant=tenant, kind="session", agent=world.at(number, 64), session=world.at(number, 128), subject=world.at(number, 200),
        key=f"{number} {world.at(number, 120)}", value={payload: payload}, owner=world.at(number, 200),
        labels=[world.at(number, 40)], **source,
    )  # fmt: skip
    world.count("memory.agent", "memory.session", "memory.subject", "memory.key", "memory.value", "memory.owner", "memory.labels")


def audited(world: World, number: int, payload: str) -> None:
    kind = ("tool", "agent", "release", "rule", "credential")[number % 5]
    audit.append(world.made.admin, f"{kind}.changed", kind, world.at(number, 200), {payload: payload}, {payload: [payload]}, payload)
    world.count("audit.object_id", "audit.before", "audit.after", "audit.reason")


def everything_else(world: World) -> None:
    """Each other table of a tenant: rows with a payload in each column of text that has no list of what it may be."""
    for table, model in models().items():
        if table not in APART:
            for number in range(min(len(world.payloads), 120)):
                one_more(world, table, model, number)


def one_more(world: World, table: str, model: type[Model], number: int) -> None:
    texts = {each.attname: world.at(number, each.max_length or 2000) for each in model._meta.concrete_fields if hostile(each)}
    run, asked = world.subjects[number]
    known = world.made.known | {Run: run, Approval: asked}
    named = table in NAMED  # by platform admins or by rules of their own
    texts = {name: text for name, text in texts.items() if not (named and name in ("name", "key"))}
    twin = replace(
        world.made, word=f"{WORD}-{number}" if named else world.at(number, 40), runs=world.made.runs | {"ended": run}, known=known
    )
    try:
        with transaction.atomic():
            row = fill(twin, table, model)
            model._default_manager.filter(pk=row.pk).update(**texts)
    except (Error, ValueError, TypeError) as error:
        world.refused[f"{table}: {str(error).splitlines()[0][:90]}"] += 1
        return
    given = {name for name, value in fixed(twin).get(table, {}).items() if twin.word in str(value)}
    world.count(*(f"{table}.{name}" for name in (texts.keys() | given) - OURS))


def hostile(each: "Field[Any, Any]") -> bool:
    return each.get_internal_type() in TEXTS and not each.choices and not each.primary_key and each.name not in OURS
