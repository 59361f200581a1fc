"""An incident about a tool and its agent, with everything there that can be done about it. For tests of actions and pages."""

from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from console.incidents import book
from console.incidents.moves import Opening
from console.models import Incident
from console.runbooks import shelf
from runs import releases
from runs.models import Agent, Call, ModelDefinition, Run, Switch
from tenants.actors import Actor
from tenants.models import Ceiling, EgressAllow
from tests.runtime.waiting import World, make_world, person, running
from tools import catalog
from tools.models import Breaker, Permission, Tool
from tools.spec import ToolSpec

HOST = "127.0.0.1:9009"
RELEASE = {"instructions": "Help.", "models": {"planner": {"model": "primary"}}, "budget": {}, "deadlines": {"run_s": 20}}
RUNBOOK = """# The desk is down

[Status](https://status.example/desk) of the desk.

## Contain

1. **Ask people first.** Two of them.

   `action: ask_people tool={tool} approvers=2`

2. **Then take it away.** Everywhere.

   `action: disable_tool tool={tool}`

## Verify

3. Look again.
"""


@dataclass
class Trouble:
    world: World
    incident: Incident
    people: dict[str, Actor]

    def fresh(self) -> Incident:
        return book.fresh(self.incident)


def make_tool(name: str, effect: str = "write", **more: Any) -> None:
    spec = {"adapter": {"kind": "http", "url": f"http://{HOST}/{name}"}, "description": name, "effect": effect, "input_schema": EMPTY}
    catalog.put(None, name, ToolSpec.model_validate(spec | {"timeout_s": 2, "retry": {"max_attempts": 1}} | more))


EMPTY: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def make_trouble() -> Trouble:
    world = make_world()
    root = person(world.tenant, "root", "admin", platform=True)
    people = {
        "viewer": person(world.tenant, "vic", "viewer"), "operator": world.operator, "approver": world.approver,
        "admin": person(world.tenant, "ada", "admin"), "root": root,
    }  # fmt: skip
    EgressAllow.objects.create(host_port=HOST)
    ModelDefinition.objects.create(name="primary", provider="openai", base_url=f"http://{HOST}/v1", model="m")
    make_tool("close_ticket")
    undone = {"tool": "close_ticket", "args": {}, "within_s": 3600}
    make_tool("create_ticket", compensate=undone)
    make_tool("search_docs", "read")
    for words in ("One.", "Two."):
        made = releases.create(None, "support-triage", {**RELEASE, "instructions": words, "tools": ["create_ticket", "search_docs"]})
        releases.promote(None, made)
    shelf.put(None, "desk-is-down", RUNBOOK)
    run = running(world)
    wrote(run)
    subject = {"tool": "create_ticket", "agent": "support-triage"}
    opening = Opening(
        world.tenant.pk, "create_ticket fails too often", "major", "44% of 9", subject, runbook="desk-is-down", runs=((run.pk, 1.0),)
    )
    return Trouble(world, book.fresh(book.by_hand(world.operator, opening, timezone.now())), people)


def wrote(run: Run) -> None:
    version = Tool.objects.get(name="create_ticket").current
    call = Call.objects.create(
        run=run, step=1, ord=1, tenant_id=run.tenant_id, fence=1, name="create_ticket", effect="write", state="dispatched", attempt=1,
        args=b"{}", tool_version_id=version.pk if version else None, dispatched_at=timezone.now(), ended_at=timezone.now(), result={},
    )  # fmt: skip
    Call.objects.filter(run_id=run.pk, step=1, ord=call.ord).update(state="done")


def state() -> dict[str, Any]:
    """Everything that an action may change."""
    agent = Agent.objects.select_related("live").get(name="support-triage")
    return {
        "tools": dict(Tool.objects.values_list("name", "enabled")),
        "permissions": sorted(Permission.objects.values_list("tool_id", "tenant__slug", "agent", "decision", "approvers", "loosen")),
        "switches": sorted(Switch.objects.filter(lifted_at__isnull=True).values_list("scope", "then")),
        "breakers": sorted(Breaker.objects.exclude(forced="").values_list("host_port", "forced")),
        "live": agent.live.number if agent.live else None,
        "ceilings": sorted(Ceiling.objects.values_list("tenant__slug", "agent", "kind", "value")),
    }
