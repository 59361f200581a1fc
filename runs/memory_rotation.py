"""Changing the key that seals memory: as `tenants.rotation` does it for credentials, beside the traffic and in small batches."""

import time
from collections.abc import Iterator
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from tenants import credentials, rotation

from .memory import bound
from .models import MemoryItem


def rotate(batch: int = rotation.BATCH) -> Iterator[int]:
    """Yields how many each batch sealed anew. Rows that somebody holds come in a later round."""
    for round_ in range(rotation.ROUNDS):
        waiting = 0
        for ids in batches(batch):
            sealed = reseal(ids)
            waiting += len(ids) - sealed
            yield sealed
        if not waiting or round_ == rotation.ROUNDS - 1:
            return
        time.sleep(rotation.PAUSE_S)


def sealed_items() -> "QuerySet[MemoryItem]":
    return MemoryItem.objects.filter(sealed__isnull=False).order_by("id")


def batches(size: int) -> Iterator[list[UUID]]:
    """Ids of what our keys open, but not the newest alone."""
    after = UUID(int=0)
    while rows := list(sealed_items().filter(id__gt=after)[:size]):
        after = rows[-1].id
        if due := [row.id for row in rows if not opens(row, newest=True) and opens(row)]:
            yield due


def opens(row: MemoryItem, *, newest: bool = False) -> bool:
    try:
        credentials.open(row.tenant_id, bound(row.id), row.sealed or b"", credentials.newest() if newest else None)
    except credentials.Unreadable:
        return False
    return True


@transaction.atomic
def reseal(ids: list[UUID]) -> int:
    done = 0
    for row in sealed_items().select_for_update(no_key=True, skip_locked=True).filter(id__in=ids):
        try:
            text = credentials.open(row.tenant_id, bound(row.id), row.sealed or b"")
        except credentials.Unreadable:
            continue
        MemoryItem.objects.filter(pk=row.pk).update(sealed=credentials.seal(row.tenant_id, bound(row.id), text))
        done += 1
    return done


def left() -> list[str]:
    """Ids of what the newest key alone does not open."""
    return [row.memory_id for row in sealed_items().iterator(chunk_size=1000) if not opens(row, newest=True)]
