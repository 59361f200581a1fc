"""What the regular verification of the audit trail found: kept in a row for each chain, for pages, the doctor and the detectors."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F
from django.db.models.functions import Now

from tenants import verification
from tenants.chain import PLATFORM, Broken, Place
from tenants.models import AuditVerified, Tenant


@dataclass(frozen=True, slots=True)
class Health:
    """`at`: when the chain that has waited longest was last walked to its end; None: never. `broken`: each as `Broken`, in JSON."""

    at: datetime | None
    broken: tuple[dict[str, Any], ...] = ()


def last() -> Health:
    rows = list(AuditVerified.objects.order_by("at"))
    return Health(rows[0].at if rows else None, tuple(row.problem for row in rows if row.problem))


def broken() -> list[dict[str, Any]]:
    return list(last().broken)


def verify(enough: Callable[[], bool]) -> list[Broken]:
    """Walk the chains, the longest unverified first, until it is `enough`; what could not be walked to its end goes on the next time."""
    known, found = verification.expected(), []
    for chain in _in_turn(known.chains()):
        if enough():
            break
        row = AuditVerified.objects.filter(chain=chain).first()
        after = Place(row.walked, bytes(row.walked_hash)) if row and row.walked and not row.problem else None
        looked = verification.look(chain, known, after, enough)
        if looked.broken:
            found.append(looked.broken)
        keep(looked)
    return found


def _in_turn(chains: Iterable[UUID]) -> list[UUID]:
    seen = list(AuditVerified.objects.order_by(F("at")).values_list("chain", flat=True))
    known = set(chains)
    return [*sorted(known - set(seen)), *(chain for chain in seen if chain in known)]


def keep(looked: verification.Looked) -> None:
    """A chain that was not walked to its end keeps what was said of it before."""
    reached = looked.reached
    if not looked.whole:
        going_on = {"walked": reached.seq, "walked_hash": reached.hash}
        if not AuditVerified.objects.filter(chain=looked.chain).update(**going_on):
            AuditVerified.objects.create(chain=looked.chain, **going_on)
        return
    problem = None if looked.broken is None else asdict(looked.broken) | {"chain": str(looked.chain)}
    whole = {"seq": reached.seq, "at": Now(), "problem": problem, "walked": 0, "walked_hash": bytes(32)}
    AuditVerified.objects.update_or_create(chain=looked.chain, defaults=whole)


def names(chains: Iterable[UUID]) -> dict[UUID, str]:
    """Chain -> what people call it."""
    slugs = dict(Tenant.objects.filter(id__in=chains).values_list("id", "slug"))
    return {chain: "platform" if chain == PLATFORM else slugs.get(chain, str(chain)) for chain in chains}
