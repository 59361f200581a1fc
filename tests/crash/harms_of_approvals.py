"""The scenarios of the guards around approvals: one mail that people were asked about, and what moves before it is sent."""

import json
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async

from approvals import groups
from approvals.models import Approval
from runs import signoff
from runs.models import Call, Run
from tenants import credentials
from tenants.models import Controls
from tests.runtime.world import TOOLS
from tools import catalog, rules
from tools.models import Permission
from tools.spec import ToolSpec

from .harms import MAIL, Stage

OTHER = {**MAIL, "to": "thief@example.com"}
REV: Any = f"update {Controls._meta.db_table} set rev = rev + 1"
SHOWN: Any = f"update {Approval._meta.db_table} set args = %(args)s"


async def asked(s: Stage, **permission: Any) -> Run:
    """A run whose one mail waits for people."""
    await s.world.agent()
    await s.world.permit("send_email", "ask", **permission)
    run = await s.world.script({"calls": [{"name": "send_email", "arguments": MAIL}]}, {"text": "Done."})
    await s.world.engine()
    await s.world.until(run, "waiting_approval")
    return run


async def approved(s: Stage, run: Run, by: str = "approver", **said: Any) -> None:
    one = await Approval.objects.aget(run_id=run.id, state="pending")
    given = {"verdict": "approve", "digest": one.digest} | said
    await sync_to_async(signoff.decide)(s.world.people[by], one.id, **given)


async def sent_all_the_same(s: Stage, run: Run, what: str) -> str:
    """Once it rests: it ended, or people are asked again."""
    await s.world.until(run, "waiting_approval", "succeeded", "failed")
    return await s.effects(what)


async def moved_before_consumption(s: Stage, run: Run, move: Callable[[], None], what: str) -> str:
    s.before_consumption(move)
    await approved(s, run)
    return await sent_all_the_same(s, run, what)


async def policy_moved(s: Stage) -> str:
    await sync_to_async(groups.put)(None, s.world.tenant, "finance", [])
    run = await asked(s)
    table = Permission._meta.db_table

    def leave_it_to_finance() -> None:
        s.sql(f"update {table} set \"group\" = 'finance' where tool_id = 'send_email'")  # type: ignore[arg-type]
        s.sql(REV)

    return await moved_before_consumption(s, run, leave_it_to_finance, "a mail that only finance may approve by now")


async def credential_moved(s: Stage) -> str:
    tool = TOOLS["send_email"]
    spec = {
        "adapter": {"kind": "http", "url": s.world.url + tool["path"]}, "description": "Send a mail", "effect": "write",
        "input_schema": tool["input"], "credential": "mail",
    }  # fmt: skip
    await sync_to_async(catalog.put)(None, "send_email", ToolSpec.model_validate(spec))
    await sync_to_async(credentials.store)(s.world.tenant, "mail", "bearer", "of-the-help-desk")
    run = await asked(s)

    def swap() -> None:
        s.sql("update tenants_credential set version = version + 1")
        s.sql(REV)

    return await moved_before_consumption(s, run, swap, "a mail in the name of a credential nobody was shown")


async def shown_something_else(s: Stage) -> str:
    run = await asked(s)
    s.sql(SHOWN, args=json.dumps(OTHER, sort_keys=True, separators=(",", ":")).encode())
    await approved(s, run)
    return await sent_all_the_same(s, run, "a mail that was on nobody's screen")


async def one_of_two_dismissed(s: Stage) -> str:
    run = await asked(s, approvers=2)
    await approved(s, run, "second")
    user = s.world.people["second"].user.pk
    dismiss = lambda: s.sql("delete from tenants_member where user_id = %(u)s", u=user)
    return await moved_before_consumption(s, run, dismiss, "a mail for two people, approved by one who still may")


async def more_approvers_wanted(s: Stage) -> str:
    """The policy is the same; what it looks at has changed: the tenant sent a mail meanwhile."""
    rule = {"decision": "ask", "approvers": 2, "when": "day.tools['send_email'].count > 0"}
    await sync_to_async(rules.set_rule)(None, "second-mail", s.world.tenant, **rule)
    run = await asked(s)
    other = await s.world.submit("hello")
    sent = {"step": 1, "ord": 1, "tenant_id": other.tenant_id, "fence": 1, "attempt": 1, "effect": "write", "name": "send_email"}
    await Call.objects.acreate(run_id=other.id, state="dispatched", **sent)
    s.sql("update call set dispatched_at = statement_timestamp() where run_id = %(run)s and ord = 1", run=other.id)
    await approved(s, run)
    return await sent_all_the_same(s, run, "the day's second mail, for which one person is not enough")


async def edited_and_approved_alone(s: Stage) -> str:
    """Also when somebody else agreed, and may no longer."""
    run = await asked(s)
    await approved(s, run, "admin", args=OTHER)
    if alone := await sent_all_the_same(s, run, "a mail that its editor alone approved"):
        return alone
    user = s.world.people["approver"].user.pk
    dismiss = lambda: s.sql("delete from tenants_member where user_id = %(u)s", u=user)
    return await moved_before_consumption(s, run, dismiss, "an edited mail whose only other approver was dismissed")


async def approved_long_ago(s: Stage) -> str:
    run = await asked(s)
    age: Any = f"update {Approval._meta.db_table} set decided_at = now() - interval '1 day'"
    return await moved_before_consumption(s, run, lambda: s.sql(age), "a mail approved the day before")
