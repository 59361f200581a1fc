"""The tool calls of the past with everything that decided about them, read from the rows: for `tools.replay`."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from runs.engine.facts import MAY_BE_APPLIED, TOOK_IN
from runs.engine.stance import Stance
from runs.models import Release
from runs.states import CallState
from tenants.ids import first_at
from tools.models import ToolVersion
from tools.replay import PastCall, PastRun, Written

JSON = dict[str, Any]
MOST = 50_000
# What was never decided about (no object of arguments, or not of the tool's schema) would meet nobody under any policy.
WHICH = """
from call c join run r on r.id = c.run_id
where c.ord > 0 and c.run_id >= %(first)s and r.created_at >= %(since)s and (%(tenant)s::uuid is null or r.tenant_id = %(tenant)s)
  and c.args is not null and c.decision is not null and not (c.attempt = 0 and coalesce(c.error_class, '') in ('validation', 'loop'))
"""
COUNT = f"select count(*) from (select 1 {WHICH} limit %(most)s) c"
CALLS = f"""
select c.run_id, c.step, c.ord, c.name, c.effect, c.args, c.state, c.attempt, c.tool_version_id, c.decision, c.dispatched_at,
  coalesce(c.ended_at, s.at, r.created_at), coalesce(s.at, r.created_at),
  t.slug, r.agent_id, r.release_id, i.user, r.mode, r.rungs, i.action is not null
{
    WHICH.replace(
        "where",
        "left join step s on s.run_id = c.run_id and s.step = c.step join tenants_tenant t on t.id = r.tenant_id "
        "join run_input i on i.run_id = r.id where",
        1,
    )
}
order by c.run_id desc, c.step, c.ord limit %(most)s
"""
COSTS = "select run_id, step, cost_micro from call where ord = 0 and cost_micro > 0 and run_id = any(%(runs)s) order by step"
MOMENTS = """
select run_id, (payload->>'step_id')::int, (payload->>'ord')::int, seq, at, kind, payload->'data'->>'decision' from event
where run_id = any(%(runs)s) and kind = any(%(kinds)s) order by run_id, seq
"""
WRITTEN = """
select c.dispatched_at, t.slug, c.name, c.args from call c join tenants_tenant t on t.id = c.tenant_id
where c.effect <> 'read' and c.state in ('dispatched', 'done', 'unknown') and (%(tenant)s::uuid is null or c.tenant_id = %(tenant)s)
  and c.dispatched_at >= date_trunc('day', %(since)s::timestamptz at time zone 'utc') at time zone 'utc'
order by c.dispatched_at desc limit %(most)s
"""
ANSWERED = ("tool_call_completed", "tool_call_failed", "tool_call_unknown")
KINDS = ("policy_decided", "tool_call_started", "approval_requested", *ANSWERED)


Moment = tuple[int, datetime | None]  # number and time of an event
NEVER: Moment = (0, None)


@dataclass(slots=True)
class Moments:
    """The events of one call."""

    decided: list[tuple[Moment, str]] = field(default_factory=list)
    started: list[Moment] = field(default_factory=list)
    requested: list[Moment] = field(default_factory=list)
    answered: list[Moment] = field(default_factory=list)

    def note(self, seq: int, at: datetime, kind: str, decision: str | None) -> None:
        if kind == "policy_decided":
            self.decided.append(((seq, at), decision or ""))
        elif kind == "tool_call_started":
            self.started.append((seq, at))
        else:
            (self.requested if kind == "approval_requested" else self.answered).append((seq, at))

    def of(self, recorded: str) -> Moment:
        """When the decision that was kept was made: asking is told once, or else seen by the request; all else is ruled on anew when
        it is sent."""
        if recorded == "ask":
            return next((moment for moment, decision in self.decided if decision == "ask"), first(self.requested))
        return max([*self.started, *(moment for moment, _ in self.decided)], default=NEVER)


def first(moments: list[Moment]) -> Moment:
    return min(moments, default=NEVER)


def count(tenant: UUID | None, since: datetime) -> int:
    """How many there are, `MOST + 1` at most."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT, asked(tenant, since))
        return int(cursor.fetchone()[0])


def load(tenant: UUID | None, since: datetime) -> tuple[list[PastRun], bool]:
    """Runs that started since then, with their calls; no tenant: of all. -> (newest runs first, whether older ones were left out)."""
    rows = fetched(CALLS, asked(tenant, since))
    cut = len(rows) > MOST
    by_run: dict[UUID, list[Any]] = defaultdict(list)
    for row in rows:
        by_run[row[0]].append(row)
    if cut and len(by_run) > 1:
        del by_run[next(reversed(by_run))]  # the last one may have lost calls
    known = Known.of(by_run)
    return [past_run(run, found, known) for run, found in by_run.items()], cut


def written(tenant: UUID | None, since: datetime) -> list[Written]:
    """The writes that count for the days since then."""
    return [Written(at, slug, name, bytes(args or b"{}")) for at, slug, name, args in fetched(WRITTEN, asked(tenant, since))]


@dataclass(frozen=True, slots=True)
class Known:
    """What the runs refer to."""

    releases: dict[UUID, Release]
    versions: dict[UUID, ToolVersion]
    costs: dict[UUID, list[tuple[int, int]]]
    moments: dict[tuple[UUID, int, int], Moments]

    @classmethod
    def of(cls, by_run: dict[UUID, list[Any]]) -> "Known":
        rows = [row for found in by_run.values() for row in found]
        costs: dict[UUID, list[tuple[int, int]]] = defaultdict(list)
        for run, step, micro in fetched(COSTS, {"runs": list(by_run)}):
            costs[run].append((step, micro))
        return cls(
            Release.objects.in_bulk({row[15] for row in rows}),
            ToolVersion.objects.in_bulk({row[8] for row in rows if row[8]}),
            costs,
            moments([run for run, found in by_run.items() if several_in_a_step(found)]),
        )


def several_in_a_step(rows: Iterable[Any]) -> bool:
    """Only then the order of events within a step matters."""
    steps = [row[1] for row in rows]
    return len(set(steps)) < len(steps)


def moments(runs: list[UUID]) -> dict[tuple[UUID, int, int], Moments]:
    found: dict[tuple[UUID, int, int], Moments] = defaultdict(Moments)
    for run, step, ord_, seq, at, kind, decision in fetched(MOMENTS, {"runs": runs, "kinds": list(KINDS)}) if runs else ():
        found[run, step, ord_].note(seq, at, kind, decision)
    return found


def past_run(run: UUID, rows: list[Any], known: Known) -> PastRun:
    slug, agent, release_id, user, *_, by_hand = rows[0][13:20]
    release = known.releases[release_id]
    calls = tuple(past_call(row, release, known) for row in rows)
    tools = tuple(release.spec.get("tools", ()))
    user = json.loads(user) if user else {}
    return PastRun(run, slug, agent, release.number, user, tools, tuple(known.costs.get(run, ())), calls, by_hand)


def past_call(row: Any, release: Release, known: Known) -> PastCall:
    run, step, ord_, name, effect, args, state, attempt, version_id, decision, dispatched_at, ended_at, asked_at = row[:13]
    recorded, mode, rungs = json.loads(decision), row[17], json.loads(row[18])
    version, heard = known.versions.get(version_id), attempt > 0 and state in TOOK_IN
    stance = Stance.after([rung for rung in rungs if rung.get("step", 0) < step], mode)
    told = known.moments.get((run, step, ord_), Moments())
    moment, at = told.of(str(recorded.get("decision")))
    alone_at = asked_at if recorded.get("decision") == "ask" else dispatched_at or ended_at
    return PastCall(
        step, ord_, name, effect, frozenset(version.labels if version else ()), bytes(args), at=at or alone_at,
        sent_at=dispatched_at if attempt > 0 else None, recorded=recorded, offered=name in release.tools, heard=heard,
        applied=heard and state in MAY_BE_APPLIED, done=state == CallState.DONE,
        has_effect_key=bool(version and version.effect_key), mode=stance.mode,  # type: ignore[arg-type]
        asks_writes=stance.ask_writes, moment=moment, started=first(told.started)[0], answered=first(told.answered)[0],
    )  # fmt: skip


def asked(tenant: UUID | None, since: datetime) -> JSON:
    return {"tenant": tenant, "since": since, "first": first_at(since), "most": MOST + 1}


def fetched(sql: str, values: JSON) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
