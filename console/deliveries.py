"""The outbox: what is due is leased to one courier, what came of a send is written down, and a person may ask for it again.

Rows are the truth: a courier that dies leaves its rows to the next one once the lease is over, so each message is sent at least
once, always under the same id.
"""

import json
from dataclasses import dataclass
from random import random
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now

from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound
from tenants.ids import decode, encode
from tenants.models import EgressAllow

from .models import Delivery

OUTBOX = "signalbox_outbox"  # a message is due: couriers listen
WAITS_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 28800)  # before the next send; 24 hours in all
GONE = 410
PENDING, DELIVERED, FAILED = Delivery.State.PENDING.value, Delivery.State.DELIVERED.value, Delivery.State.FAILED.value

# At most `room` (else `each`) messages of one host, so that the backlog of a dead one holds up nobody else.
LEASE = """
with first as (
  select id, next_at, lower(split_part(url, '/', 3)) as host from console_delivery
  where state = 'pending' and next_at <= statement_timestamp()
    and coalesce((%(room)s::jsonb ->> lower(split_part(url, '/', 3)))::int, %(each)s) > 0
  order by next_at limit 500
), ranked as (
  select id, host, row_number() over (partition by host order by next_at, id) as place from first
), taken as (
  select d.id, ranked.host from ranked join console_delivery d on d.id = ranked.id
  where ranked.place <= coalesce((%(room)s::jsonb ->> ranked.host)::int, %(each)s)
    and d.state = 'pending' and d.next_at <= statement_timestamp()
  order by d.next_at limit %(most)s for update of d skip locked
)
update console_delivery d set next_at = clock_timestamp() + make_interval(secs => %(lease_s)s)
from taken where d.id = taken.id
returning d.id, d.tenant_id, d.kind, d.event, d.run_id, d.url, d.secret_name, d.body, d.attempts, d.next_at, taken.host,
  extract(epoch from clock_timestamp())::bigint, d.channel_id
"""

# What was answered is kept in any case. What follows from it only while the lease is the one it was sent under: a message that was
# asked for again meanwhile, or that somebody else leased since, is theirs.
RECORD = """
update console_delivery set attempts = attempts + 1,
  log = (select jsonb_agg(line order by n) from jsonb_array_elements(log || jsonb_build_object(
      'at', to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
      'status', %(status)s::int, 'error', %(error)s::text, 'ms', %(ms)s::int)) with ordinality as lines(line, n)
    where n > jsonb_array_length(log) - 19),
  state = case when next_at = %(until)s and state = 'pending' then %(state)s else state end,
  delivered_at = case when next_at = %(until)s and state = 'pending' and %(state)s = 'delivered' then clock_timestamp()
    else delivered_at end,
  next_at = case when next_at = %(until)s and state = 'pending' then clock_timestamp() + make_interval(secs => %(wait_s)s) else next_at end
where id = %(id)s returning state
"""


@dataclass(frozen=True, slots=True)
class Leased:
    """A message that is ours to send until `until`. `now`: the database's, in seconds since 1970. `attempts`: made before."""

    id: UUID
    tenant_id: UUID
    kind: str
    event: str
    run_id: UUID | None
    url: str
    secret_name: str
    body: dict[str, Any]
    attempts: int
    until: Any
    host: str
    now: int
    channel_id: UUID | None = None

    @property
    def message_id(self) -> str:
        return encode("msg", self.id)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one send: a status, or the class of what went wrong (`error`), or both. Never a word of what was sent."""

    status: int | None
    error: str | None
    ms: int


def follows(answer: Answer, attempts: int, rnd: float) -> tuple[str, float]:
    """-> (state, seconds until the next send). Pure. `attempts`: this one counted in. `rnd` in 0..1: not all at the same moment."""
    if answer.status is not None and 200 <= answer.status < 300:
        return DELIVERED, 0.0
    if answer.status == GONE or attempts > len(WAITS_S):
        return FAILED, 0.0
    return PENDING, WAITS_S[attempts - 1] * (0.8 + 0.2 * rnd)


def lease(room: dict[str, int], *, each: int, most: int, lease_s: float) -> list[Leased]:
    """At most `most` due messages, ours for `lease_s`. `room`: host -> how many of it, where not `each`. Nobody is waited for."""
    with connection.cursor() as cursor:
        cursor.execute(LEASE, {"room": json.dumps(room), "each": each, "most": most, "lease_s": lease_s})
        return [Leased(*row) for row in ((*row[:7], json.loads(row[7]), *row[8:]) for row in cursor.fetchall())]


def allowed() -> frozenset[str]:
    """The addresses outside the public internet that may be reached."""
    return frozenset(EgressAllow.objects.values_list("host_port", flat=True))


def record(message: Leased, answer: Answer) -> str:
    """Write the answer down; -> the message's state after it. A row that is gone is delivered to nobody: `failed`."""
    state, wait_s = follows(answer, message.attempts + 1, random())
    values = {"id": message.id, "until": message.until, "state": state, "wait_s": wait_s}
    with connection.cursor() as cursor:
        cursor.execute(RECORD, values | {"status": answer.status, "error": answer.error, "ms": answer.ms})
        row = cursor.fetchone()
    return str(row[0]) if row else FAILED


def find(actor: Actor, delivery_id: str) -> Delivery:
    """Raises NotFound for another tenant's and for what is no id at all."""
    try:
        found = Delivery.objects.filter(pk=decode("msg", delivery_id)).first()
    except ValueError:
        found = None
    if found is None or not actor.sees(found.tenant_id):
        raise NotFound("delivery")
    return found


@transaction.atomic
def redeliver(actor: Actor, delivery_id: str) -> Delivery:
    """Send it again now, under the same id, with the whole row of attempts before it. Refuses: scope_missing 403, not_found 404."""
    actor.need("runs:write")
    seen = find(actor, delivery_id)
    before = Delivery.objects.select_for_update(no_key=True).select_related("tenant").get(pk=seen.pk)
    Delivery.objects.filter(pk=seen.pk).update(state=PENDING, attempts=0, next_at=Now(), delivered_at=None)
    was = {"state": before.state, "attempts": before.attempts}
    audit.append(actor, "delivery.redelivered", "delivery", before, was, {"state": PENDING}, tenant=before.tenant)
    wake()
    return Delivery.objects.get(pk=seen.pk)


def wake() -> None:
    """A hint for couriers, delivered when the transaction commits."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_notify(%s, '')", [OUTBOX])
