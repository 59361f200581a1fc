"""The `runbooks` of a configuration document. None is ever deleted: incidents pin their versions."""

from tenants.actors import Actor

from .document import RunbookBlock
from .models import Runbook
from .runbooks import shelf


def put(actor: Actor | None, block: RunbookBlock) -> tuple[shelf.Action, tuple[str, ...]]:
    """-> (what was done, what an update changed)."""
    before = Runbook.objects.select_related("current").filter(name=block.name).first()
    after, action = shelf.put(actor, block.name, block.text, block.tenants, "configuration applied")
    if before is None or action != "update":
        return action, ()
    text = ("text",) if before.current_id != after.pk else ()
    return action, (*text, *(("tenants",) if before.tenants != sorted(set(block.tenants)) else ()))
