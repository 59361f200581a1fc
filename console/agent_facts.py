"""What an agent's runs of a period cost by role, how its releases compare, and its last runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Left

from runs.models import Agent, Release, Run
from tenants.ids import first_at

from .figures import Figures, figures
from .models import RunHour
from .readings import Cut, Reading

TITLE_FROM = 400  # characters of what was asked that a title is made from
BY_ROLE = """
select coalesce(s.role, ''), c.name, count(*), coalesce(sum(c.tokens_in), 0)::bigint, coalesce(sum(c.tokens_out), 0)::bigint,
  coalesce(sum(c.cost_micro), 0)::bigint
from run r join call c on c.run_id = r.id and c.ord = 0 left join step s on s.run_id = c.run_id and s.step = c.step
where (%(tenant)s::uuid is null or r.tenant_id = %(tenant)s) and (%(release)s::uuid is null or r.release_id = %(release)s)
  and r.id >= %(first)s and r.created_at >= %(since)s and r.created_at < %(until)s and r.agent_id = %(agent)s and c.attempt > 0
group by 1, 2 order by 6 desc, 1, 2
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Model calls of one role, by the model that served them. A step that got no answer has no role: it is empty."""

    role: str
    model: str
    calls: int
    tokens_in: int
    tokens_out: int
    cost_micro: int


@dataclass(frozen=True, slots=True)
class ReleaseLine:
    """A release and what its runs of the period came to."""

    release: Release
    live: bool
    figures: Figures


def roles(cut: Cut, since: datetime, until: datetime) -> list[Spent]:
    """The dearest first."""
    asked = {"tenant": cut.scope, "release": cut.release, "agent": cut.agent, "since": since, "until": until, "first": first_at(since)}
    with connection.cursor() as cursor:
        cursor.execute(BY_ROLE, asked)
        return [Spent(*row) for row in cursor.fetchall()]


def releases(agent: Agent, reading: Reading, most: int = 10) -> list[ReleaseLine]:
    """Those that ran in the period, and the live one, the newest first."""
    runs: dict[UUID, list[RunHour]] = {}
    for row in reading.runs:
        runs.setdefault(row.release_id, []).append(row)
    wanted = {*runs, *([agent.live_id] if agent.live_id else ())}
    found: Iterable[Release] = Release.objects.filter(pk__in=wanted).defer("spec", "tools").order_by("-number")[:most]
    return [ReleaseLine(one, one.pk == agent.live_id, figures_of(one, runs.get(one.pk, ()), reading)) for one in found]


def figures_of(release: Release, runs: Sequence[RunHour], reading: Reading) -> Figures:
    return figures(runs, [row for row in reading.calls if row.release_id == release.pk])


def recent(rows: "QuerySet[Run]", cut: Cut, most: int) -> list[Run]:
    """Of the runs that a person sees, the last ones of this agent, with the beginning of what was asked."""
    found = rows.filter(agent_id=cut.agent).select_related(None).select_related("release").defer("release__spec", "release__tools", "stop")
    found = found.filter(tenant_id=cut.scope) if cut.scope else found
    found = found.filter(release_id=cut.release) if cut.release else found
    return list(found.annotate(asked_text=Left("asked__text", TITLE_FROM)).order_by("-id")[:most])
