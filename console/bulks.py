"""Cancelling or retrying many runs. The list is frozen when a person sees it, and what they start is that list: ids, not a filter.

`console.bulk_work` acts on the items, one run in one transaction.
"""

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db import connection, transaction
from django.db.models import Case, CharField, Count, Exists, OuterRef, Q, QuerySet, Value, When
from django.db.models.functions import Now
from django_q.tasks import async_task

from runs.intake import answered_before
from runs.lifecycle import writes_that_may_be_applied
from runs.models import Run
from runs.states import TERMINAL, RunState
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode, encode
from tenants.models import IdempotencyRecord

from .api import runs as api
from .models import Bulk, BulkItem

MOST = 10_000  # runs of one bulk
ENDPOINT = "POST /runs/bulk"
DRAFTS_KEPT, KEPT = timedelta(days=1), timedelta(days=90)
Act, State, Outcome = Bulk.Act, Bulk.State, BulkItem.Outcome
NO_SUCH_RUN = "There is no such run."
# What keeps a run out of the act when the list is frozen: it is shown with the reason, and left alone.
HINDERED: dict[str, tuple[tuple[Q | Exists, str, str], ...]] = {
    Act.CANCEL: ((Q(state__in=TERMINAL), Outcome.ALREADY, "It has ended already."),),
    Act.RETRY: (
        (Q(state=RunState.SUCCEEDED), Outcome.COULD_NOT, "It succeeded: only a run that failed or was cancelled can be tried again."),
        (~Q(state__in=TERMINAL), Outcome.COULD_NOT, "It has not ended: only a run that failed or was cancelled can be tried again."),
        (Q(asked__action__isnull=False), Outcome.COULD_NOT, "A person named its one call. Ask for it again where they did."),
        (
            Exists(writes_that_may_be_applied(OuterRef("pk"))),
            Outcome.COULD_NOT,
            "The outcome of a write is unknown: trying again could make it twice. Settle it first.",
        ),
    ),
}


# the list ---------------------------------------------------------------------------------------------------------------------


def draft_of(actor: Actor, act: str, run_ids: Sequence[str]) -> Bulk:
    """Of runs chosen one by one. What is nobody's or another tenant's is on the list as a run that is not there.

    Refuses scope_missing 403; bad_act, nothing_chosen, too_many_runs, bad_run 422.
    """
    actor.need("runs:write")
    ids = list(dict.fromkeys(run_ids))
    if not ids:
        raise Refused("nothing_chosen", "Choose runs in the list first.", 422)
    if len(ids) > MOST:
        raise too_many()
    wanted = [_id(one) for one in ids]
    return _draft(actor, act, api.visible(actor).filter(id__in=wanted), wanted)


def draft_matching(actor: Actor, act: str, rows: "QuerySet[Run]", words: str) -> Bulk:
    """Of every run that matches now; `words` say which filter that was. Refuses scope_missing 403; nothing_matches, too_many_runs 422."""
    made = _draft(actor, act, rows, [], words)
    if not made.total:
        made.delete()
        raise Refused("nothing_matches", "No runs match this filter now. Choose another one.", 422)
    return made


def too_many() -> Refused:
    message = f"At most {MOST:,} runs are acted on together. Narrow the filter, or send several lists."
    return Refused("too_many_runs", message, 422, limit=MOST)


def _id(text: str) -> UUID:
    try:
        return decode("agt", text)
    except ValueError:
        raise Refused("bad_run", "Every run must be named by an id like agt_….", 422, field="runs") from None


@transaction.atomic
def _draft(actor: Actor, act: str, rows: "QuerySet[Run]", named: Sequence[UUID], words: str = "") -> Bulk:
    actor.need("runs:write")
    if act not in Act.values:
        raise Refused("bad_act", "act is cancel or retry.", 422, field="act")
    tidy()
    scopes = None if actor.scopes is None else sorted(actor.scopes)
    made = Bulk.objects.create(tenant=actor.tenant, act=act, by=actor.user, scopes=scopes, words=words)
    if _freeze(made, rows) > MOST:
        raise too_many()
    there = list(made.items.order_by("run_id").values_list("run_id", flat=True))
    missing = sorted(set(named).difference(there))
    gone = {"outcome": Outcome.COULD_NOT, "words": NO_SUCH_RUN}
    BulkItem.objects.bulk_create([BulkItem(bulk=made, run_id=one, **gone) for one in missing], batch_size=1000)
    ids = sorted([*there, *missing])
    made.total, made.sha256 = len(ids), sha256("\n".join(encode("agt", one) for one in ids).encode()).hexdigest()
    if actor.platform_admin:
        tenants = list(Run.objects.filter(id__in=there).order_by().values_list("tenant_id", flat=True).distinct()[:2])
        made.tenant_id = None if len(tenants) > 1 else tenants[0] if tenants else actor.tenant.id
    made.save()
    return made


def _freeze(bulk: Bulk, rows: "QuerySet[Run]") -> int:
    """Insert-select: the runs never come here. -> how many, one more than MOST at most."""
    hindered = HINDERED[bulk.act]
    outcome = Case(
        *(When(met, then=Value(outcome)) for met, outcome, _ in hindered), default=Value(Outcome.WAITING.value), output_field=CharField()
    )
    words = Case(*(When(met, then=Value(words)) for met, _, words in hindered), default=Value(""), output_field=CharField())
    planned = rows.order_by("id").annotate(plan=outcome, plan_words=words).values_list("id", "state", "plan", "plan_words")[: MOST + 1]
    try:
        select, params = planned.query.sql_with_params()
    except EmptyResultSet:
        return 0
    with connection.cursor() as cursor:
        into = "insert into console_bulkitem (bulk_id, run_id, was, outcome, words)"
        cursor.execute(f"{into} select %s, chosen.* from ({select}) chosen", [bulk.pk, *params])
        return int(cursor.rowcount)


def tidy() -> None:
    """What nobody started, and what is long over. The audit trail keeps who did what, and why."""
    old = Bulk.objects.filter(Q(state=State.DRAFT, created_at__lt=Now() - DRAFTS_KEPT) | Q(ended_at__lt=Now() - KEPT))
    ids = list(old.values_list("id", flat=True)[:20])
    IdempotencyRecord.objects.filter(endpoint=ENDPOINT, object_id__in=ids).delete()
    Bulk.objects.filter(pk__in=ids).delete()


# starting and stopping --------------------------------------------------------------------------------------------------------


@transaction.atomic
def start(actor: Actor, bulk: Bulk, reason: str) -> bool:
    """False: it was started before. Only who was shown the list starts it. Refuses scope_missing 403, not_found 404, reason_missing 422."""
    actor.need("runs:write")
    if bulk.by_id != actor.user.pk:
        raise NotFound("bulk")
    if not reason.strip() or "\0" in reason:
        raise Refused("reason_missing", "Say why. The reason is kept with your name.", 422, field="reason")
    drafts = Bulk.objects.filter(pk=bulk.pk, state=State.DRAFT)
    if not drafts.update(state=State.RUNNING, started_at=Now(), reason=reason.strip()[:1000]):
        return False
    told = {"act": bulk.act, "runs": bulk.total, "acts_on": left(bulk).count(), "sha256": bulk.sha256, "chosen": bulk.words or "one by one"}
    audit.append(actor, "bulk.started", "bulk", bulk, None, told, reason.strip(), tenant=bulk.tenant)
    finish(bulk)
    transaction.on_commit(lambda: enqueue(bulk), robust=True)  # the watchman's round finds it in any case
    return True


def enqueue(bulk: Bulk) -> None:
    async_task("console.tasks.bulk", str(bulk.pk))


@transaction.atomic
def submit(actor: Actor, act: str, run_ids: Sequence[str], reason: str, *, key: str | None, body_sha256: bytes) -> tuple[Bulk, bool]:
    """Freeze and start in one go, as the API does; or give back the one that this key was answered with, and True.

    Refuses as `draft_of` and `start` do, and with idempotency_in_flight 409, idempotency_key_reused, idempotency_key_invalid 422.
    """
    actor.need("runs:write")
    if key is not None and (earlier := answered_before(actor.tenant, ENDPOINT, key, body_sha256)):
        return find(actor, encode("blk", earlier)), True
    made = draft_of(actor, act, run_ids)
    start(actor, made, reason)
    if key is not None:
        IdempotencyRecord.objects.create(tenant=actor.tenant, key=key, endpoint=ENDPOINT, body_sha256=body_sha256, object_id=made.pk)
    return find(actor, str(made)), False


@transaction.atomic
def stop(actor: Actor, bulk: Bulk) -> bool:
    """Leave the rest untouched; anybody who may act on runs may stop it. False: it was over. Refuses scope_missing 403."""
    actor.need("runs:write")
    going = Bulk.objects.filter(pk=bulk.pk, state=State.RUNNING)
    if not going.update(state=State.STOPPED, ended_at=Now(), stopped_by=actor.user, held_up=""):
        return False
    untouched = left(bulk).update(outcome=Outcome.UNTOUCHED)
    audit.append(actor, "bulk.stopped", "bulk", bulk, None, {"untouched": untouched}, tenant=bulk.tenant)
    return True


def finish(bulk: Bulk) -> bool:
    """Done once no item waits. False: some do, or it is over."""
    waits = Exists(BulkItem.objects.filter(bulk=OuterRef("pk"), outcome=Outcome.WAITING))
    over = Bulk.objects.filter(~waits, pk=bulk.pk, state=State.RUNNING)
    return bool(over.update(state=State.DONE, ended_at=Now(), held_up=""))


# reading ----------------------------------------------------------------------------------------------------------------------


def left(bulk: Bulk) -> "QuerySet[BulkItem]":
    return BulkItem.objects.filter(bulk_id=bulk.pk, outcome=Outcome.WAITING)


def visible(actor: Actor) -> "QuerySet[Bulk]":
    """Everybody's in the tenant, so that it is known who did what; a list that was not started is its maker's alone."""
    rows = Bulk.objects.select_related("tenant", "by", "stopped_by").exclude(Q(state=State.DRAFT) & ~Q(by=actor.user))
    return rows if actor.platform_admin else rows.filter(tenant=actor.tenant)


def find(actor: Actor, text: str) -> Bulk:
    try:
        found = visible(actor).filter(id=decode("blk", text)).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("bulk")
    return found


def tally(bulk: Bulk) -> dict[str, int]:
    """Outcome -> runs, every outcome."""
    counted = dict(bulk.items.order_by().values_list("outcome").annotate(Count("id")))
    return {outcome: counted.get(outcome, 0) for outcome in Outcome.values}
