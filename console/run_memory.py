"""What a run worked with besides its tools, told apart: what it was given, what its session remembered, where it was pointed to."""

import json
from dataclasses import dataclass
from typing import Any

from runs import memory_people
from runs.models import MemoryItem, MemoryUse, Run
from tenants.actors import Actor

SHOWN = 50


@dataclass(frozen=True, slots=True)
class Used:
    """`item` None: it was deleted or has expired."""

    use: MemoryUse
    item: MemoryItem | None

    @property
    def place(self) -> str:
        return f"{self.use.step}.{self.use.ord}"

    @property
    def text(self) -> str:
        """Of a value that is not sensitive."""
        return line(self.item) if self.item else ""


def line(row: MemoryItem) -> str:
    """What a list shows of an item: nothing where it is sensitive."""
    return "" if row.sensitive else row.value if isinstance(row.value, str) else json.dumps(row.value, ensure_ascii=False)


def of(run: Run, actor: Actor) -> dict[str, Any]:
    """Request context is the run's alone; the other two outlive it, and are shown to those who may read memory."""
    asked = run.asked
    context = [("User", (asked.user or {}).get("id")), ("Session", asked.session)]
    context += [(name.replace("_", " ").capitalize(), value) for name, value in ((asked.user or {}).get("attributes") or {}).items()]
    found = used(run) if actor.can(memory_people.READ) else []
    kinds = MemoryItem.Kind
    return {
        "request_context": [(name, value) for name, value in context if value not in ("", None)],
        "request_metadata": sorted(asked.metadata.items()),
        "session_memory": [one for one in found if one.item and one.item.kind == kinds.SESSION],
        "references": [one for one in found if one.item and one.item.kind == kinds.REFERENCE],
        "forgotten": sum(one.item is None for one in found),
        "may_read_memory": actor.can(memory_people.READ),
    }


def used(run: Run) -> list[Used]:
    """By its calls, in their order."""
    uses = list(MemoryUse.objects.filter(run_id=run.id, tenant_id=run.tenant_id).order_by("step", "ord", "id")[:SHOWN])
    items = MemoryItem.objects.in_bulk([use.item_id for use in uses])
    return [Used(use, items.get(use.item_id)) for use in uses]
