"""A person tightens a permission in the admin while a run waits for an approval that is given afterwards."""

import pytest
from asgiref.sync import sync_to_async
from django.test import Client

from approvals.models import Approval
from runs import signoff
from tenants.models import AuditEntry, User
from tools.models import Permission

from .world import TICKET, World, call


def changed_in_the_admin(world: World, row: Permission) -> int:
    user = world.people["operator"].user
    User.objects.filter(pk=user.pk).update(is_staff=True)
    browser = Client()
    browser.force_login(user)
    address = f"/admin/tools/permission/{row.pk}/change/"
    shown = browser.get(address).context["adminform"].form.initial
    said = {name: shown[name] for name in ("agent", "user_role", "approvers", "when")} | {"decision": "deny", "reason": "Too many of them."}
    return browser.post(address, said).status_code


@pytest.mark.mission("P10.1", "P10.4")
async def test_a_permission_changed_from_ask_to_deny_while_a_run_waits_denies_it_at_dispatch(world: World) -> None:
    await world.permit("create_ticket", "ask", approvers=1)
    row = await Permission.objects.aget(tool_id="create_ticket", tenant=world.tenant)
    await world.agent()
    run = await world.script(call("create_ticket", **TICKET), {"text": "It could not be done."})
    await world.engine()
    await world.until(run, "waiting_approval")
    assert await sync_to_async(changed_in_the_admin)(world, row) == 302
    approval = await Approval.objects.aget(run_id=run.id)
    said = {"verdict": "approve", "digest": approval.digest, "reason": "fine"}
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, **said)
    done = await world.until(run)

    assert (done.state, done.outcome) == ("succeeded", "completed")
    assert await world.ledger() == []
    asked = (await world.calls(run))[1]
    assert (asked.state, asked.attempt, asked.error_class) == ("blocked", 0, "policy")
    assert asked.result == {
        "ok": False, "error_type": "denied", "message": f"Not sent, although it was approved: Permission {row.pk}.",
    }  # fmt: skip
    await approval.arefresh_from_db()
    assert approval.state == "void"
    assert {"approval_voided", "policy_violated"} <= set(await world.kinds(run))
    entry = await AuditEntry.objects.aget(action="permission.updated")
    assert (entry.before["decision"], entry.after["decision"], entry.reason) == ("ask", "deny", "Too many of them.")
    assert entry.actor == world.people["operator"].user.username
