"""What a tenant's runs wrote today (UTC), by tool: for rules over amounts that no single run may see."""

import json
from typing import Any
from uuid import UUID

from django.db import connection

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
            tool = tools.setdefault(name, {"count": 0, "sums": {}})
            tool["count"] += 1
            for field, value in json.loads(bytes(args or b"{}")).items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    tool["sums"][field] = tool["sums"].get(field, 0) + value
    return {"tools": tools}
