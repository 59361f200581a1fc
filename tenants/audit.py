"""The audit trail: one row for each change by a person or a key, written in the transaction of the change."""

import json
from contextlib import nullcontext
from types import EllipsisType
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from .actors import Actor
from .models import AuditEntry, Tenant, User
from .scope import installation_wide

SYSTEM = "system"


def append(
    actor: Actor | User | None,
    action: str,
    object_kind: str,
    object_id: object,
    before: Any = None,
    after: Any = None,
    reason: str = "",
    *,
    tenant: Tenant | EllipsisType | None = ...,
    request_id: str = "",
) -> AuditEntry:
    """`before` and `after`: JSON values, times, decimals and uuids; never secrets, never text of runs (hashes and references).

    Without `tenant` the entry goes on the chain of the actor's tenant; `tenant=None` is the platform's chain, where changes
    to installation objects belong. `actor` None: the system itself. Call it inside the transaction of the change.
    """
    if isinstance(actor, Actor):
        tenant = actor.tenant if tenant is ... else tenant
        request_id = request_id or actor.request_id
    user = actor.user if isinstance(actor, Actor) else actor
    chain = None if tenant is ... else tenant
    with installation_wide() if chain is None else nullcontext():  # anybody may add to the platform's chain, and not read it
        return AuditEntry.objects.create(
            tenant=chain,
            actor=user.get_username() if user else SYSTEM,
            action=action,
            object_kind=object_kind,
            object_id=str(object_id)[:200],
            before=_plain(before),
            after=_plain(after),
            reason=_fits(reason, 1000),
            request_id=request_id[:100],
        )


def _plain(value: Any) -> Any:
    return None if value is None else json.loads(json.dumps(value, cls=DjangoJSONEncoder))


def _fits(text: str, length: int) -> str:
    """An entry must never fail because somebody explained too much: cut, and show that it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"
