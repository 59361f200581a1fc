"""What a tenant's runs wrote today (UTC), by tool: for rules over amounts that no single run may see."""

from typing import Any
from uuid import UUID

from django.db import connection

from tools import past

# Sent and not known to have failed. Through the partial index over writes.
TODAY = """
select name, args from call
where tenant_id = %s and effect <> 'read' and state in ('dispatched', 'done', 'unknown')
  and dispatched_at >= date_trunc('day', statement_timestamp() at time zone 'utc') at time zone 'utc'
limit 50000
"""


def today(tenant: UUID) -> dict[str, Any]:
    """{tools: {name: {count, sums: {field: total}}}}."""
    tools: dict[str, Any] = {}
    with connection.cursor() as cursor:
        cursor.execute(TODAY, [tenant])
        for name, args in cursor.fetchall():
            past.add(tools, name, bytes(args or b"{}"))
    return {"tools": tools}
