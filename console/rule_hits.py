"""How often rules held lately: decisions that name them, of calls and of answers. By the runs that started since."""

from datetime import datetime
from typing import Any

from django.db import connection

from tenants.ids import first_at

from .metrics import Scope

CALLS = """
select c.decision->>'by', count(*) filter (where c.run_id >= %(day)s), count(*) from call c
where c.run_id >= %(week)s and c.ord > 0 and c.decision->>'by' like 'rule:%%' and (%(tenant)s::uuid is null or c.tenant_id = %(tenant)s)
group by 1
"""
ANSWERS = """
select e.payload->'data'->>'by', count(*) filter (where e.run_id >= %(day)s), count(*) from event e
where e.run_id >= %(week)s and e.kind = 'policy_violated' and e.payload->'data'->>'of' = 'answer'
  and (%(tenant)s::uuid is null or e.tenant_id = %(tenant)s) group by 1
"""


def hits(scope: Scope, day: datetime, week: datetime, *, answers: bool) -> dict[str, tuple[int, int]]:
    """name -> (since `day`, since `week`)."""
    values: dict[str, Any] = {"tenant": scope, "day": first_at(day), "week": first_at(week)}
    found: dict[str, tuple[int, int]] = {}
    with connection.cursor() as cursor:
        for sql in (CALLS, ANSWERS) if answers else (CALLS,):
            cursor.execute(sql, values)
            for by, since_day, since_week in cursor.fetchall():
                name = str(by).removeprefix("rule:")
                before = found.get(name, (0, 0))
                found[name] = (before[0] + since_day, before[1] + since_week)
    return found
