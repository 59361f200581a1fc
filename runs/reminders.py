"""Requests that nobody answers: reminders while their time runs, and after half of it also the group that theirs escalates to.

Each is one guarded move under the run's lock, so it happens once, whoever sweeps. What is sent about it follows from the row.
"""

from uuid import UUID

from django.db import connection, transaction

from approvals import gate
from approvals.models import Approval, Group
from approvals.people import groups_of
from approvals.timing import due

from .events import Kind, event
from .history import append
from .models import Run

# `timing.due` decides; this only finds those it may say something about.
WAITING = """
select a.id, a.run_id from approvals_approval a
left join approvals_group g on g.tenant_id = a.tenant_id and g.name = a."group"
where a.state = 'pending' and a.expires_at > statement_timestamp() and (
  (a.reminders < 3 and statement_timestamp() >= a.created_at + (a.expires_at - a.created_at) * 0.25 * (a.reminders + 1))
  or (a.escalated_at is null and g.escalates_to <> '' and statement_timestamp() >= a.created_at + (a.expires_at - a.created_at) * 0.5))
order by a.expires_at limit %s
"""


def sweep(limit: int = 100) -> int:
    """How many reminders and escalations there were. A run that somebody holds is left to the next round."""
    with connection.cursor() as cursor:
        cursor.execute(WAITING, [limit])
        found = cursor.fetchall()
    return sum(_move(approval_id, run_id) for approval_id, run_id in found)


@transaction.atomic
def _move(approval_id: UUID, run_id: UUID) -> int:
    run = Run.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=run_id).first()
    if run is None:
        return 0
    with connection.cursor() as cursor:
        cursor.execute("select statement_timestamp()")
        (now,) = cursor.fetchone()
    approval = Approval.objects.get(pk=approval_id)
    upward = Group.objects.filter(tenant_id=approval.tenant_id, name=approval.group).exclude(escalates_to="").exists()
    sent = approval.reminders, approval.escalated_at is not None
    found = due(approval.created_at, approval.expires_at, now, reminders=sent[0], escalated=sent[1], escalates=upward)
    reminded = bool(found.reminder) and gate.remind(approval, found.reminder)
    escalated = found.escalate and gate.escalate(approval)
    if escalated:
        approval.refresh_from_db()
        data = {"approval_id": approval.approval_id, "groups": groups_of(approval)}
        told = event(Kind.APPROVAL_ESCALATED, step_id=approval.step, ord=approval.ord, tool=approval.tool or None, data=data)
        append(run, [told])
        Run.objects.filter(pk=run.pk).update(seq=run.seq)
    return reminded + escalated
