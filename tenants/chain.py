"""The audit trail's chains: what an entry's hash is over, and the walk that finds the first place where a chain does not hold. Pure.

Each tenant has a chain, the platform (no tenant) another. Entry n: hash = SHA-256(hash of entry n - 1, canonical line of entry n).
PostgreSQL writes the hashes when a change commits (`tenants.chain_sql`); this module knows the same line, so that whoever reads the
rows, here or from an export, can work it out again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring as quoted
from typing import Final, NamedTuple
from uuid import UUID

PLATFORM: Final = UUID(int=0)  # the chain of what belongs to no tenant
FIRST: Final = bytes(32)  # what the first entry follows


class Linked(NamedTuple):
    """One link with its entry, as text. `before` and `after` as PostgreSQL prints jsonb. `id` None: the entry is gone."""

    seq: int
    prev: bytes
    hash: bytes
    id: int | None
    tenant: str | None
    at: str
    actor: str
    action: str
    object_kind: str
    object_id: str
    before: str | None
    after: str | None
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Place:
    """How far a chain goes: the number of its last entry and that one's hash."""

    seq: int = 0
    hash: bytes = FIRST


@dataclass(frozen=True, slots=True)
class Broken:
    """Where a chain does not hold, what differs there, and what to do."""

    chain: UUID
    seq: int
    code: str
    what: str
    cure: str


RESTORE = "Restore the audit tables from a backup beside this database and compare; then find who had the owner's role."
WHAT = {  # code -> what differs, the cure
    "content": ("a column of the entry is not what its hash was made of", RESTORE),
    "entry_gone": ("its link is there, the entry is gone", RESTORE),
    "order": ("it does not follow the entry before it", RESTORE),
    "gap": ("this number is missing", RESTORE),
    "head": ("the chain does not end where its head says", RESTORE),
    "unlinked": ("an entry stands outside of the chain", "Compare it with what people remember: it was not written by `audit.append`."),
    "checkpoint": ("the signed checkpoint has another hash", "The chain was written anew since: restore it from a backup from before."),
    "truncated": (
        "a signed checkpoint reaches this far, the chain does not",
        "Restore the newest entries. After a restore of your own, keep the checkpoint file under another name and say so in the log.",
    ),
    "unsigned": (
        "the signature of a checkpoint is not one of our keys'",
        "Give the earlier keys in AUDIT_SIGNING_KEYS; if they are there, somebody wrote the checkpoint.",
    ),
    "lost": ("a checkpoint of the file is not in the table", "Somebody removed it: compare the table with the file, and find who did."),
}


def broken(chain: UUID, seq: int, code: str) -> Broken:
    return Broken(chain, seq, code, *WHAT[code])


def line(row: Linked) -> bytes:
    """The canonical form: a JSON array (RFC 8785: no spaces) of whole numbers, strings and nulls. JSON values go in as their text."""
    texts = (row.tenant, row.at, row.actor, row.action, row.object_kind, row.object_id, row.before, row.after, row.reason, row.request_id)
    rest = ",".join(["null" if text is None else quoted(text) for text in texts])
    return f"[{row.seq},{row.id},{rest}]".encode()


def digest(prev: bytes, canonical: bytes) -> bytes:
    return hashlib.sha256(prev + canonical).digest()


def differs(row: Linked, after: Place) -> str:
    """The code of what is wrong with the entry that comes `after`; empty when it holds."""
    if row.seq != after.seq + 1:
        return "gap"
    if row.prev != after.hash:
        return "order"
    if row.id is None:
        return "entry_gone"
    return "" if digest(row.prev, line(row)) == row.hash else "content"


def walk(chain: UUID, rows: Iterable[Linked], after: Place, marks: Mapping[int, bytes]) -> tuple[Place, Broken | None]:
    """-> (how far it holds, the first break). `rows` in order, from behind `after`; `marks`: what checkpoints say of a number."""
    for row in rows:
        if code := differs(row, after):
            return after, broken(chain, after.seq + 1, code)
        if marks.get(row.seq, row.hash) != row.hash:
            return after, broken(chain, row.seq, "checkpoint")
        after = Place(row.seq, row.hash)
    return after, None


def ending(reached: Place, before: Place | None, now: Place | None, marks: Mapping[int, bytes]) -> str:
    """The code of what is missing at the end of a chain that holds as far as it `reached`.

    Its head as it was `before` the walk and as it is `now`: what was added during the walk is no break.
    """
    if max(marks, default=0) > reached.seq:
        return "truncated"
    if before is not None and before.seq > reached.seq:
        return "head"
    head = now or Place()
    if head.seq == reached.seq:
        return "" if head.hash == reached.hash else "head"
    return "" if head.seq > reached.seq else "head"
