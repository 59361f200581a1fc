"""Ways to change the audit trail as whoever owns the tables and has switched the triggers off."""

import hashlib
import random
from collections.abc import Callable
from typing import Any

import psycopg

from tenants.chain import FIRST, Linked, digest, line
from tenants.verification import ENTRY

Owner = psycopg.Connection[Any]
CHECKED = ("actor", "action", "object_kind", "object_id", "reason", "request_id")


class Nothing(Exception):
    """This one would change nothing here: draw another."""


def random_entry(owner: Owner, dice: random.Random, **also: Any) -> Any:
    rows = owner.execute("select l.chain, l.seq, l.entry_id from tenants_auditlink l order by l.chain, l.seq").fetchall()
    return dice.choice(rows)


def edit(owner: Owner, dice: random.Random) -> str:
    _, _, entry = random_entry(owner, dice)
    column = dice.choice([*CHECKED, "at", "before", "after", "tenant_id", "id"])
    value = {
        "at": "at + interval '1 microsecond'",
        "before": "coalesce(before, '{}'::jsonb) || '{\"x\": 1}'::jsonb",
        "after": "case when after is null then '1.0'::jsonb else null end",
        "tenant_id": "(select id from tenants_tenant t where t.id is distinct from tenant_id order by random() limit 1)",
        "id": "id + 1000000",
    }.get(column, f"left({column} || 'x', 40)")
    owner.execute(f"update tenants_auditentry set {column} = {value} where id = %s".encode(), [entry])
    return f"edit {column}"


def edit_link(owner: Owner, dice: random.Random) -> str:
    _, _, entry = random_entry(owner, dice)
    change = dice.choice(["hash = sha256(hash)", "prev = sha256(prev)", "seq = seq + 1000000", "chain = gen_random_uuid()"])
    owner.execute(f"update tenants_auditlink set {change} where entry_id = %s".encode(), [entry])
    return f"edit link {change}"


def delete(owner: Owner, dice: random.Random) -> str:
    _, _, entry = random_entry(owner, dice)
    tables = dice.choice([("entry",), ("link",), ("entry", "link")])
    if "link" in tables:
        owner.execute("delete from tenants_auditlink where entry_id = %s", [entry])
    if "entry" in tables:
        owner.execute("delete from tenants_auditentry where id = %s", [entry])
    return f"delete {tables}"


def truncate(owner: Owner, dice: random.Random) -> str:
    """The newest of a chain; half of the times the head is put right, and sometimes the checkpoints of the table go as well."""
    chain = random_entry(owner, dice)[0]
    last = owner.execute("select max(seq) from tenants_auditlink where chain = %s", [chain]).fetchone()[0]  # type: ignore[index]
    keep = max(0, last - dice.randint(1, 6))
    gone = "select entry_id from tenants_auditlink where chain = %s and seq > %s"
    entries = [one for (one,) in owner.execute(gone, [chain, keep])]
    owner.execute("delete from tenants_auditlink where entry_id = any(%s)", [entries])
    owner.execute("delete from tenants_auditentry where id = any(%s)", [entries])
    how = dice.choice(["rows", "head", "checkpoints"])
    if how != "rows":
        right_head(owner, chain)
    if how == "checkpoints":
        owner.execute("delete from tenants_auditcheckpoint where chain = %s", [chain])
    return f"truncate {how}"


def right_head(owner: Owner, chain: Any) -> None:
    owner.execute("delete from tenants_audithead where chain = %s", [chain])
    owner.execute(
        "insert into tenants_audithead select chain, seq, hash from tenants_auditlink where chain = %s order by seq desc limit 1", [chain]
    )


def insert(owner: Owner, dice: random.Random) -> str:
    chain, _, entry = random_entry(owner, dice)
    copied = """insert into tenants_auditentry (tenant_id, at, actor, action, object_kind, object_id, before, after, reason, request_id)
        select tenant_id, at, 'mallory', action, object_kind, object_id, before, after, reason, request_id
        from tenants_auditentry where id = %s returning id"""
    made = owner.execute(copied, [entry]).fetchone()[0]  # type: ignore[index]
    if dice.random() < 0.6:
        linked = """insert into tenants_auditlink (entry_id, chain, seq, prev, hash)
            select %s, h.chain, h.seq + 1, h.hash, sha256(%s) from tenants_audithead h where h.chain = %s"""
        owner.execute(linked, [made, bytes(str(made), "ascii"), chain])
        return "insert with a link"
    return "insert without a link"


def swap(owner: Owner, dice: random.Random) -> str:
    """Two entries change their places: of one chain, or of two tenants."""
    (_, _, a), (_, _, b) = random_entry(owner, dice), random_entry(owner, dice)
    if a == b:
        raise Nothing
    owner.execute("update tenants_auditlink set entry_id = -1 where entry_id = %s", [a])
    owner.execute("update tenants_auditlink set entry_id = %s where entry_id = %s", [a, b])
    owner.execute("update tenants_auditlink set entry_id = %s where entry_id = -1", [b])
    return "swap"


def exchange(owner: Owner, dice: random.Random) -> str:
    """The contents of two entries."""
    (_, _, a), (_, _, b) = random_entry(owner, dice), random_entry(owner, dice)
    columns = "tenant_id, at, actor, action, object_kind, object_id, before, after, reason, request_id"
    changed = f"""update tenants_auditentry e set ({columns}) = (select {columns} from tenants_auditentry o
        where o.id = case e.id when %(a)s then %(b)s::bigint else %(a)s end) where e.id in (%(a)s, %(b)s)"""
    if a == b:
        raise Nothing
    owner.execute(changed.encode(), {"a": a, "b": b})
    return "exchange"


def rewrite(owner: Owner, dice: random.Random) -> str:
    """An edit with every later hash and the head put right: a chain that holds in itself, and is not the one that was signed."""
    chain, _, entry = random_entry(owner, dice)
    owner.execute("update tenants_auditentry set actor = left(actor, 40) || '!' where id = %s", [entry])
    rows = owner.execute(
        f"""select l.seq, l.prev, l.hash, e.id, e.tenant_id::text, {ENTRY} from tenants_auditlink l
            join tenants_auditentry e on e.id = l.entry_id where l.chain = %s order by l.seq""".encode(),
        [chain],
    )
    prev = FIRST
    for row in [Linked(*row) for row in rows]:
        made = digest(prev, line(row))
        owner.execute("update tenants_auditlink set prev = %s, hash = %s where entry_id = %s", [prev, made, row.id])
        prev = made
    right_head(owner, chain)
    if dice.random() < 0.5:
        owner.execute("delete from tenants_auditcheckpoint where chain = %s", [chain])
    return "rewrite"


def forge(owner: Owner, dice: random.Random) -> str:
    changes = ["hash = sha256(hash)", "seq = seq - 1", "at = at + interval '1 second'", "signature = sha256(signature)", "key = 'x'"]
    change = dice.choice(changes)
    owner.execute(f"update tenants_auditcheckpoint set {change} where id = (select max(id) from tenants_auditcheckpoint)".encode())
    return f"forge {change}"


WAYS: tuple[Callable[[Owner, random.Random], str], ...] = (
    edit, edit, edit, edit_link, delete, delete, truncate, truncate, insert, swap, exchange, rewrite, forge,
)  # fmt: skip


def fingerprint(owner: Owner) -> str:
    """Of everything that a verification reads."""
    tables = ("tenants_auditentry", "tenants_auditlink", "tenants_audithead", "tenants_auditcheckpoint")
    rows = [str(owner.execute(f"select * from {table} order by 1, 2".encode()).fetchall()) for table in tables]
    return hashlib.sha256("".join(rows).encode()).hexdigest()
