"""Changing the key that seals credentials: everything is sealed anew under the newest one, and what is not is counted.

Safe while runs and people use the credentials: each batch locks only its own rows, for as long as it writes them, and passes over
rows that somebody else holds; those come in a later round. It may be stopped and started again at any moment.
"""

import time
from collections.abc import Iterator

from django.db import transaction

from . import credentials
from .models import Credential

BATCH = 200
ROUNDS = 20
PAUSE_S = 0.25  # for whoever holds a row to let go of it


def rotate(batch: int = BATCH) -> Iterator[int]:
    """Yields how many each batch sealed anew. Ends when nothing is left that can be, or after `ROUNDS`."""
    for round_ in range(ROUNDS):
        waiting = 0
        for ids in batches(batch):
            sealed = reseal(ids)
            waiting += len(ids) - sealed
            yield sealed
        if not waiting or round_ == ROUNDS - 1:
            return
        time.sleep(PAUSE_S)


def batches(size: int) -> Iterator[list[int]]:
    """Ids of what our keys open, but not the newest alone. One pass over the table, a page at a time, without locks."""
    newest, after = credentials.newest(), 0
    while rows := list(Credential.objects.filter(id__gt=after).order_by("id")[:size]):
        after = rows[-1].id
        if due := [row.id for row in rows if not credentials.opens(row, newest) and credentials.opens(row)]:
            yield due


@transaction.atomic
def reseal(ids: list[int]) -> int:
    """How many of these rows are sealed under the newest key now. Rows that somebody holds, or that are gone, are passed over."""
    done = 0
    rows = Credential.objects.select_for_update(no_key=True, skip_locked=True).filter(id__in=ids).order_by("id")
    for row in rows:
        try:
            secret = credentials.open(row.tenant_id, row.name, row.sealed)
        except credentials.Unreadable:
            continue
        row.sealed = credentials.seal(row.tenant_id, row.name, secret)
        row.save(update_fields=["sealed"])
        done += 1
    return done


def left() -> list[str]:
    """`tenant/name` of every credential that the newest key alone does not open: the older keys may go when there is none."""
    newest = credentials.newest()
    rows = Credential.objects.select_related("tenant").order_by("id").iterator(chunk_size=1000)
    return [f"{row.tenant.slug}/{row.name}" for row in rows if not credentials.opens(row, newest)]
