"""A tenant that has something of everything: at least one row in each table that belongs to tenants, full of one rare word.

A table that a room adds is filled from its columns, so nobody has to remember it here; `FIXED` has what columns cannot say.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.db.models import Field, ForeignKey, Model
from django.utils import timezone

from approvals.models import Approval, ApprovalDecision
from console.database import BY_TRIGGERS
from console.models import Channel
from console.row_security import GUARDED
from runs.intake import Order, submit
from runs.models import Agent, Call, Release, Run, Step, Suite
from runs.states import CallState, RunState
from tenants import controls, credentials
from tenants.ids import new_id
from tenants.models import Tenant, User
from tools.models import Tool, ToolVersion

from .waiting import World, ask, make_world, park, person, running

# Texts that may be empty and that people write: they get the word as well.
WRITTEN = {"reason", "lift_reason", "note", "evidence", "settled_by", "changed_by", "void_reason", "addresses"}
TEXTS = {"CharField", "TextField", "SlugField"}
SIMPLE: dict[str, Any] = {
    "BinaryField": b"{}", "IntegerField": 1, "BigIntegerField": 1, "PositiveIntegerField": 1, "PositiveSmallIntegerField": 1,
    "UUIDField": new_id, "FloatField": 1.0, "BooleanField": False,
}  # fmt: skip


@dataclass
class Furnished:
    world: World
    word: str
    admin: Any
    viewer: Any
    runs: dict[str, Run] = field(default_factory=dict)
    known: dict[type[Model], Any] = field(default_factory=dict)

    def rows(self, table: str) -> list[Any]:
        """This tenant's rows of a guarded table that has its tenant as a column."""
        return list(models()[table]._default_manager.filter(tenant_id=self.world.tenant.id))


def models() -> dict[str, type[Model]]:
    """Guarded table -> model, those that others are parts of first."""
    found = {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}
    return {table: found[table] for table in sorted(GUARDED, key=later) if table in found}


def later(table: str) -> tuple[int, str]:
    """The order of making: what others refer to first."""
    first = (
        "run", "approvals_approval", "approvals_group", "approvals_standinggrant", "console_channel", "tenants_ceiling", "tenants_spending",
    )  # fmt: skip
    return (first.index(table) if table in first else len(first), table)


def furnish(word: str) -> Furnished:
    """`word`: short, lower case and in nobody else's rows; it is the tenant's slug and part of every name and text."""
    world = make_world(word, f"{word}-agent")
    Agent.objects.filter(pk=world.agent.pk).update(tenants=[word])
    Tenant.objects.filter(pk=world.tenant.pk).update(name=f"{word} Ltd")
    controls.ensure(world.tenant)
    made = Furnished(world, word, person(world.tenant, f"ada-{word}", "admin"), person(world.tenant, f"vic-{word}", "viewer"))
    User.objects.filter(username__endswith=f"-{word}").update(is_staff=True, first_name=word, email=f"{word}@example.com")
    made.known |= {Tenant: world.tenant, User: world.operator.user, Tool: tool(word), Release: world.agent.live}
    made.known[Suite] = Suite.objects.create(name=word, description=word, tenants=[word], revision=1)
    make_runs(made)
    for table, model in models().items():
        made.known[model] = last_of(made, model) or fill(made, table, model)
    made.known[Run] = made.runs["ended"]
    return made


def tool(word: str) -> Tool:
    one = Tool.objects.create(name=f"{word}_tool", tenants=[word])
    one.current = ToolVersion.objects.create(
        tool=one, number=1, description=word, effect="write", timeout_s=5, sha256="0" * 64, input_schema={"type": "object"},
        adapter={"kind": "http", "method": "POST", "url": f"https://{word}.example/"},
    )  # fmt: skip
    one.save()
    return one


def make_runs(made: Furnished) -> None:
    """Queued under a key, waiting for an approval, ended with a draft and an unknown write; each with a step and a model call."""
    world, word = made.world, made.word
    order = Order(agent=world.agent.name, input=f"{word} asks", session=word, metadata={word: word})
    made.runs["queued"] = submit(world.starter, order, idempotency_key=f"{word}-key").run
    for name in ("waiting", "ended"):
        made.runs[name] = run = running(world)
        Step.objects.create(run=run, step=1, tenant_id=run.tenant_id, role="planner", model=word, calls=1)
        reply = {"text": f"{word} answers", "calls": []}
        model_call(run, 0, CallState.DISPATCHED, name=word, effect="read", result=reply, dispatched_at=timezone.now())
    run = made.runs["waiting"]
    model_call(run, 1, CallState.WAITING_APPROVAL, name=f"{word}_tool")
    asked = ask(run, tool=f"{word}_tool", why=f"{word} wants it", args=arguments(word))
    ApprovalDecision.objects.create(approval=asked, user=world.approver.user, verdict="approve", digest=asked.digest, reason=word)
    park(run)
    made.known[Approval] = asked
    run = made.runs["ended"]
    said = {"ok": False, "error_type": "drafted", "message": f"{word} was not sent."}
    model_call(run, 1, CallState.BLOCKED, name=f"{word}_tool", error_class="drafted", result=said)
    model_call(run, 2, CallState.DISPATCHED, name=f"{word}_tool", attempt=1, dispatched_at=timezone.now())
    Call.objects.filter(run_id=run.id, step=1, ord=2).update(state=CallState.UNKNOWN)
    error = {"error_type": "timeout", "message": f"{word} did not answer"}
    Run.objects.filter(pk=run.pk).update(
        state=RunState.FAILED, owner=None, outcome="error", ended_at=timezone.now(), last_error=error, cost_micro=1234
    )
    made.known[Run] = run


def model_call(run: Run, ord: int, state: str, **values: Any) -> Call:
    given = {"effect": "write", "args": arguments(values["name"]), "fence": 1} | values
    return Call.objects.create(run=run, step=1, ord=ord, tenant_id=run.tenant_id, state=state, **given)


def arguments(word: str) -> bytes:
    return f'{{"to":"{word}"}}'.encode()


def fill(made: Furnished, table: str, model: type[Model]) -> Any:
    given = {each.attname: value for each in model._meta.concrete_fields if (value := filled(made, each)) is not None}
    rows = model._default_manager.using("owner" if table in BY_TRIGGERS else "default")
    return rows.create(**given | fixed(made).get(table, {}))


def last_of(made: Furnished, model: type[Model]) -> Any:
    """One that making the runs has left."""
    names = {each.attname for each in model._meta.concrete_fields}
    run, approval = made.known[Run].pk, made.known[Approval].pk
    wanted = {"tenant_id": made.world.tenant.id, "run_id": run, "approval_id": approval}
    for name, value in wanted.items():
        if name in names:
            return next(iter(model._default_manager.filter(**{name: value})[:1]), None)
    return None


def filled(made: Furnished, each: "Field[Any, Any]") -> Any:
    """None: left to the database or to the model."""
    if isinstance(each, ForeignKey):
        known = made.known.get(each.related_model)  # type: ignore[arg-type]
        return known.pk if known is not None and (not each.null or each.related_model is Tenant) else None
    kind = each.get_internal_type()
    if each.name in ("tenant_id", "run_id"):
        return made.world.tenant.id if each.name == "tenant_id" else made.known[Run].pk
    if kind == "ArrayField":
        return [made.word] if each.name in WRITTEN else None
    if each.name in WRITTEN and kind in TEXTS:
        return made.word
    if each.has_default() or each.has_db_default() or each.null or each.blank:
        return None
    if kind in TEXTS:
        return each.choices[0][0] if each.choices else made.word[: each.max_length]  # type: ignore[index]
    if kind == "DateTimeField":
        return timezone.now() + timedelta(hours=1)
    value = SIMPLE.get(kind, {made.word: made.word} if kind == "JSONField" else None)
    return value() if callable(value) else value


def fixed(made: Furnished) -> dict[str, dict[str, Any]]:
    """Table -> what its columns cannot say."""
    word, tenant, others = made.word, made.world.tenant, made.world.second.user
    secret = credentials.seal(tenant.id, word, f"secret-of-{word}")
    proposal = {"kind": "rule", "name": word, "tenant": word, "decision": "ask", "when": "true"}
    return {
        "approvals_delegation": {"to_id": others.pk},
        "approvals_standinggrant": {"most": 3, "agent": f"{word}-agent", "tool": f"{word}_tool"},
        "console_channel": {"kind": "webhook", "url": f"https://{word}.example/hook", "events": ["approval.requested"]},
        "console_delivery": {
            "kind": "callback", "event": "run.failed", "run_id": made.runs["ended"].id, "url": f"https://{word}.example/back",
            "body": {"event": "run.failed", "data": {"text": word}},
            "log": [{"at": "2026-01-02T03:04:05.678Z", "status": 500, "error": word, "ms": 9}],
            "channel_id": getattr(made.known.get(Channel), "pk", None),
        },
        "console_bulk": {"state": "done", "reason": word, "words": word},
        "console_callhour": {"kind": "tool", "classes": {word: 1}, "retry_classes": {word: 1}, "latency_ms": {"9": 1}},
        "console_runhour": {"states": {word: 1}, "outcomes": {word: 1}, "steps": {"1": 1}, "duration_ms": {"9": 1}, "cost": {"9": 1}},
        "console_incident": {"subject": {"tool": f"{word}_tool"}, "runbook": word},
        "console_incidententry": {"kind": "action", "data": {"action": "unknown", "given": {}, "before": {"text": word}}},
        "console_policybacktest": {"proposal": proposal, "days": 7, "state": "failed", "result": {"error": word}},
        "runs_memoryitem": {"kind": "session", "value": word, "session": word, "subject": word, "labels": [word]},
        "runs_case": {"key": word, "spec": {"key": word, "input": {"text": word}}},
        "runs_evaluation": {"state": "done", "result": {"message": word}},
        "runs_score": {"measures": {"steps": {"value": 1, "n": 1, "at": ["1"], "names": [word]}}},
        "runs_draftdecision": {"step": 1, "ord": 9, "verdict": "dismissed"},
        "runs_switch": {"scope": "tenant", "drill": True},
        "runs_unknownwrite": {"step": 1, "ord": 2, "tool": f"{word}_tool", "run_id": made.runs["ended"].id, "evidence": word},
        "tenants_reservation": {"micro": 0},
        "tenants_ceiling": {"kind": "cost_usd_per_day", "value": 10**9},
        "tenants_credential": {"name": word, "sealed": secret},
        "tools_breaker": {"host_port": f"{word}.example:443", "state": "open"},
        "tools_permission": {"decision": "ask", "agent": f"{word}-agent"},
        "tools_policyversion": {"number": 1, "document": {"permissions": [], "rules": []}},
        "tools_rule": {"decision": "ask", "when": f"call.tool == '{word}_tool'"},
    }  # fmt: skip
