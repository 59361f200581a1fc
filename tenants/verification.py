"""Does the audit trail still say what was written? Walks the chains from their rows, and holds them to heads and checkpoints.

Everything is read in an order that lets it run beside traffic: heads first, so that what is added meanwhile is more than expected.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from . import checkpoints
from .chain import PLATFORM, Broken, Linked, Place, broken, ending, walk
from .checkpoints import Checkpoint
from .models import AuditCheckpoint, AuditHead, AuditLink, Tenant

BATCH = 5000
ENTRY = """to_char(e.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), e.actor, e.action, e.object_kind, e.object_id,
  e.before::text, e.after::text, e.reason, e.request_id"""
LINKS = f"""
select l.seq, l.prev, l.hash, e.id, e.tenant_id::text, {ENTRY}
from tenants_auditlink l left join tenants_auditentry e on e.id = l.entry_id
where l.chain = %s and l.seq > %s order by l.seq
"""
OUTSIDE = """
select e.id from tenants_auditentry e where e.tenant_id {} and not exists (select from tenants_auditlink l where l.entry_id = e.id)
order by e.id limit 1
"""


@dataclass(frozen=True, slots=True)
class Looked:
    """One chain: how far it holds, its first break, and whether the end was reached."""

    chain: UUID
    reached: Place
    broken: Broken | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of the chains before they are walked."""

    heads: dict[UUID, Place] = field(default_factory=dict)
    marks: dict[UUID, dict[int, bytes]] = field(default_factory=dict)  # chain -> number -> the hash that was signed
    forged: dict[UUID, Broken] = field(default_factory=dict)  # checkpoints that are wrong in themselves

    def chains(self) -> list[UUID]:
        """The platform's first."""
        linked = AuditLink.objects.order_by().values_list("chain", flat=True).distinct()
        tenants = Tenant.objects.values_list("id", flat=True)
        return sorted({PLATFORM, *tenants, *self.heads, *self.marks, *self.forged, *linked})


def expected() -> Expected:
    """The file is read before the table: a checkpoint is in the table first."""
    found = Expected()
    copies = list(checkpoints.kept())
    stored = {of_row(row) for row in AuditCheckpoint.objects.order_by("chain", "seq").iterator()}
    for one in sorted(stored, key=lambda each: (each.chain, each.seq)):
        _mark(found, one)
    for one in copies:
        _mark(found, one)
        if one not in stored:
            found.forged.setdefault(one.chain, broken(one.chain, one.seq, "lost"))
    found.heads.update({row.chain: Place(row.seq, bytes(row.hash)) for row in AuditHead.objects.all()})
    return found


def _mark(found: Expected, one: Checkpoint) -> None:
    if not checkpoints.holds(one):
        found.forged.setdefault(one.chain, broken(one.chain, one.seq, "unsigned"))
    elif found.marks.setdefault(one.chain, {}).setdefault(one.seq, one.hash) != one.hash:
        found.forged.setdefault(one.chain, broken(one.chain, one.seq, "checkpoint"))


def of_row(row: AuditCheckpoint) -> Checkpoint:
    at = row.at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return Checkpoint(row.chain, row.seq, bytes(row.hash), at, row.key, bytes(row.signature))


def verify(chains: Iterable[UUID] | None = None) -> Iterator[Looked]:
    """Each chain from its first entry to its last, one after the other; all of them unless some are named."""
    known = expected()
    for chain in known.chains() if chains is None else chains:
        yield look(chain, known)


def look(chain: UUID, known: Expected, after: Place | None = None, enough: Callable[[], bool] = lambda: False) -> Looked:
    """One chain from behind `after`, which held. `enough` is asked now and then: then the rest is left for the next time."""
    marks = known.marks.get(chain, {})
    start = after or Place()
    with transaction.atomic():
        reached, found = walk(chain, _rows(chain, start.seq, enough), start, marks)
    if found is None and enough():
        return Looked(chain, reached, whole=False)
    found = found or known.forged.get(chain) or _end(chain, reached, known.heads.get(chain), marks)
    return Looked(chain, reached, found or _outside(chain, reached))


def _end(chain: UUID, reached: Place, before: Place | None, marks: dict[int, bytes]) -> Broken | None:
    row = AuditHead.objects.filter(chain=chain).first()
    code = ending(reached, before, Place(row.seq, bytes(row.hash)) if row else None, marks)
    return broken(chain, reached.seq + 1 if code == "truncated" else reached.seq, code) if code else None


def _outside(chain: UUID, reached: Place) -> Broken | None:
    """An entry that no link names. Entry and link commit together, so there is none at any moment."""
    with connection.cursor() as cursor:
        cursor.execute(OUTSIDE.format("is null" if chain == PLATFORM else "= %(chain)s"), {"chain": chain})
        return broken(chain, reached.seq, "unlinked") if cursor.fetchone() else None


def _rows(chain: UUID, after: int, enough: Callable[[], bool]) -> Iterator[Linked]:
    """Through a cursor of the server: a chain may be longer than memory."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(LINKS, [chain, after])
        while rows := cursor.fetchmany(BATCH):
            for row in rows:
                yield _linked(row)
            if enough():
                return


def _linked(row: tuple[Any, ...]) -> Linked:
    return Linked(row[0], bytes(row[1]), bytes(row[2]), *row[3:])


# checkpoints ------------------------------------------------------------------------------------------------------------------


def checkpoint() -> list[Broken]:
    """Sign the end of every chain that has grown. -> the chains that are not signed, because what was added does not hold."""
    found: list[Broken] = []
    made: list[Checkpoint] = []
    signed = {row.chain: of_row(row) for row in AuditCheckpoint.objects.order_by("chain", "-seq").distinct("chain")}
    for head in AuditHead.objects.order_by("chain"):
        last = signed.get(head.chain)
        if last is None or last.seq < head.seq:
            one = _signed(Place(head.seq, bytes(head.hash)), head.chain, last)
            if isinstance(one, Broken):
                found.append(one)
            else:
                made.append(one)
    rows = [AuditCheckpoint(chain=one.chain, seq=one.seq, hash=one.hash, at=one.at, key=one.key, signature=one.signature) for one in made]
    AuditCheckpoint.objects.bulk_create(rows)
    checkpoints.keep(made)
    return found


def _signed(head: Place, chain: UUID, last: Checkpoint | None) -> Checkpoint | Broken:
    if last is not None and not checkpoints.holds(last):
        return broken(chain, last.seq, "unsigned")
    start = Place(last.seq, last.hash) if last else Place()
    with transaction.atomic():
        reached, found = walk(chain, takewhile(lambda row: row.seq <= head.seq, _rows(chain, start.seq, lambda: False)), start, {})
    if found is None and reached != head:
        found = broken(chain, reached.seq, "head")
    return found or checkpoints.signed(chain, head.seq, head.hash, _now())


def _now() -> str:
    with connection.cursor() as cursor:
        cursor.execute("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        return str(cursor.fetchone()[0])
