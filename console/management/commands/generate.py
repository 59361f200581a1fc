"""`manage.py generate`: an invented past of many runs, for benches and for the console under load.

Rows go in by COPY, in states that they may be born in, and from there by the moves that are legal: no trigger is passed over.
"""

from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections, transaction
from psycopg.types.json import Jsonb

from console import document
from console.apply import apply, sandbox_variables
from console.generated import Place, Story, stories
from console.retention import database_now
from runs.models import Agent, Run
from runs.spec import ReleaseSpec, limits
from runs.states import CallState, RunState
from tenants.ids import new_id
from tenants.models import Member, Tenant, User
from tools.models import Tool

DEMO = Path(__file__).resolve().parents[2] / "sandbox" / "demo.yaml"
SIZES = {"small": 1_000, "default": 100_000, "full": 1_000_000}  # runs; about ten events each
AT_ONCE = 10_000
WRITES = {"support-triage": ("search_docs", "create_ticket"), "refund-agent": ("search_docs", "issue_refund"),
          "account-care": ("search_docs", "send_email")}  # fmt: skip
RUN = (
    "id tenant_id agent_id release_id state mode fence entry seq available_at deadline_at step tool_calls writes tokens_in tokens_out"
    " cost_micro starter_id created_at outcome ended_at answer_step last_error waiting_since stop cancel_requested"
)
INPUT = "run_id text session metadata limits traceparent"
STEP = "run_id step tenant_id role model calls at"
CALL = (
    "run_id step ord tenant_id state name tool_version_id effect provider_id args idem_key decision approval_id attempt fence dispatched_at"
    " ended_at result error_class latency_ms tokens_in tokens_out cost_micro"
)
EVENT = "run_id seq tenant_id kind payload at"
APPROVAL = (
    "id tenant_id kind run_id step ord agent tool tool_version_id effect args digest sealed risk why evidence starter_id needed state"
    ' expires_at created_at decided_at void_reason "group"'
)
# The engine that "drove" them holds them for the length of a statement only, in the transaction that lets go of them.
DRIVEN = "update run set state = 'running', owner = %(engine)s where id = any(%(runs)s) and outcome is distinct from 'cancelled'"
ENDED = """update run set owner = null, state = case when outcome is null then 'waiting_approval' when outcome = 'cancelled'
    then 'cancelled' when outcome like 'completed%%' then 'succeeded' else 'failed' end where id = any(%(runs)s)"""
ANSWERED = """update call set state = case when error_class is null then 'done' else 'failed_not_applied' end
    where run_id = any(%(runs)s) and state = 'dispatched'"""


class Command(BaseCommand):
    help = (
        "Fill an empty installation with an invented past: tenants, agents, runs, calls, events, approvals. The same seed, the same rows."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--size", choices=SIZES, default="default", help="small 1,000 runs, default 100,000, full 1,000,000")
        parser.add_argument("--runs", type=int, help="so many runs instead")
        parser.add_argument("--days", type=float, default=30, help="how far back they reach (30)")
        parser.add_argument("--tenants", type=int, default=4, help="how many tenants share them (4)")
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--force", action="store_true", help="also into an installation that has runs")

    def handle(self, *args: Any, size: str, days: float, tenants: int, seed: int, force: bool, **options: Any) -> None:
        count = options["runs"] or SIZES[size]
        if Run.objects.exists() and not force:
            raise CommandError("This installation has runs. Invented ones among them cannot be told apart: use an empty one, or --force.")
        places, began, done, events = furnish(tenants), monotonic(), 0, 0
        until = database_now().replace(minute=0, second=0, microsecond=0)
        told = stories(places, count, until, days, seed)
        while batch := list(islice(told, AT_ONCE)):
            write(batch)
            done, events = done + len(batch), events + sum(len(story.events) for story in batch)
            self.stdout.write(f"{done:,} of {count:,} runs, {events:,} events, {monotonic() - began:.0f} s")
        with connections["owner"].cursor() as cursor:
            cursor.execute("vacuum (analyze) run, call, step, event, run_input, approvals_approval")
        since = f"{until - timedelta(days + 2):%Y-%m-%dT00:00:00Z}"
        self.stdout.write(f"Done in {monotonic() - began:.0f} s. Count the hours: manage.py rollups --since {since}")


def furnish(tenants: int) -> list[Place]:
    """The agents and tools of the demo in so many tenants, each with somebody who starts runs."""
    raw = document.read(DEMO.read_bytes())
    raw["tenants"] = [*raw["tenants"], *({"slug": f"tenant-{n:02}"} for n in range(3, tenants + 1))][:tenants]
    apply(None, document.load(raw, variables=sandbox_variables()))
    versions = {tool.name: tool.current_id for tool in Tool.objects.all()}
    found = []
    for block in raw["tenants"]:
        tenant = Tenant.objects.get(slug=block["slug"])
        user, _ = User.objects.get_or_create(username=f"starter-{tenant.slug}")
        Member.objects.get_or_create(tenant=tenant, user=user, defaults={"role": "operator"})
        for agent in Agent.objects.filter(name__in=WRITES, live__isnull=False).select_related("live").order_by("name"):
            release = agent.live
            assert release is not None
            within = limits(ReleaseSpec.model_validate(release.spec), None).model_dump(mode="json")
            read, write_ = ((name, versions[name]) for name in WRITES[agent.name])
            found.append(Place(tenant.pk, agent.name, release.pk, release.release_id, within, read, write_, user.pk))  # type: ignore[arg-type]
    return found


@transaction.atomic(using="owner")
def write(batch: list[Story]) -> None:
    copy("run", RUN, (run_row(story) for story in batch))
    copy("run_input", INPUT, ((s.id, s.question, "", Jsonb({}), Jsonb(s.place.limits), "") for s in batch))
    copy("step", STEP, (row for story in batch for row in step_rows(story)))
    copy("call", CALL, (call_row(story, call) for story in batch for call in story.calls))
    copy("event", EVENT, ((s.id, n, s.place.tenant, kind, payload, at) for s in batch for n, (kind, payload, at) in enumerate(s.events, 1)))
    copy("approvals_approval", APPROVAL, (approval_row(story, story.approval) for story in batch if story.approval))
    with connections["owner"].cursor() as cursor:
        for statement in (DRIVEN, ENDED, ANSWERED):
            cursor.execute(statement, {"engine": new_id(), "runs": [story.id for story in batch]})


def copy(table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with connections["owner"].cursor() as cursor, cursor.copy(f"copy {table} ({', '.join(columns.split())}) from stdin") as into:
        for row in rows:
            into.write_row(row)


def run_row(s: Story) -> tuple[Any, ...]:
    ended = s.now if s.outcome else None
    writes = sum(call["effect"] != "read" for call in s.sent)
    late = s.at + timedelta(seconds=s.place.limits["run_s"])
    return (
        s.id, s.place.tenant, s.place.agent, s.place.release, RunState.QUEUED.value, "normal", 1, 1, len(s.events), s.at, late, s.step,
        len(s.sent), writes, s.total("tokens_in"), s.total("tokens_out"), s.total("cost_micro"), s.place.starter, s.at, s.outcome, ended,
        s.answer_step, Jsonb(s.last_error) if s.last_error else None, None if ended else s.now,
        Jsonb({"by": "operator", "step": 0}) if s.outcome == "cancelled" else None, s.outcome == "cancelled",
    )  # fmt: skip


def step_rows(s: Story) -> Iterator[tuple[Any, ...]]:
    for call in s.calls:
        if not call["ord"]:
            yield s.id, call["step"], s.place.tenant, "planner", "primary", call["asked"], call["ended_at"]


def call_row(s: Story, c: dict[str, Any]) -> tuple[Any, ...]:
    result = Jsonb(c["result"]) if "result" in c else None
    decision = Jsonb(c["decision"]) if "decision" in c else None
    return (
        s.id, c["step"], c["ord"], s.place.tenant, c.get("state", CallState.DISPATCHED).value, c["name"], c.get("version"), c["effect"],
        c.get("provider_id"), c.get("args"), c.get("idem_key"), decision, c.get("approval_id"), c["attempt"], 1, c.get("dispatched_at"),
        c.get("ended_at"), result, c.get("error"), c.get("latency_ms"), c.get("tokens_in", 0), c.get("tokens_out", 0),
        c.get("cost_micro", 0),
    )  # fmt: skip


def approval_row(s: Story, a: dict[str, Any]) -> tuple[Any, ...]:
    decided = None if a["state"] == "pending" else a["at"] + timedelta(minutes=1)
    later = a["at"] + timedelta(days=7)
    return (
        a["id"], s.place.tenant, "call", s.id, a["step"], a["ord"], s.place.agent, a["tool"], a["version"], "write", a["args"], a["digest"],
        Jsonb({}), "normal", "Writes are asked about.", Jsonb([]), s.place.starter, 1, a["state"], later, a["at"], decided, "", "",
    )  # fmt: skip
