"""Approving other arguments on the page, what somebody is told before they decide, the password again, and several at once."""

import json
import re
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from approvals import groups
from approvals.models import Approval, ApprovalDecision, GlassReview, Group, StandingGrant
from console import step_up
from runs.models import Call
from runs.states import CallState
from tenants.actors import Actor
from tenants.models import AuditEntry, EgressAllow
from tests.runtime.waiting import DIGEST, World, add_call, ask, call_of, make_world, park, person, running, waiting
from tools import catalog
from tools.models import ToolVersion
from tools.spec import ToolSpec

from .test_approvals_pages import HTMX, buttons, client_of, post, raw, shown, state_of, text_of, url

REFUND = {"account_id": "acct_1001", "amount": 40, "currency": "USD", "reason": "duplicate", "key": "k-1", "token": "hush-hush"}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["account_id", "amount"],
    "properties": {
        "account_id": {"type": "string", "pattern": "^acct_[0-9]{4}$"},
        "amount": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
        "currency": {"enum": ["USD", "EUR"]},
        "reason": {"type": "string", "maxLength": 40},
        "key": {"type": "string", "readOnly": True},
        "token": {"type": "string", "writeOnly": True},
        "notify": {"type": "boolean"},
    },
}


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def tool(world: World) -> ToolVersion:
    EgressAllow.objects.create(host_port="127.0.0.1:9")
    spec = {
        "adapter": {"kind": "http", "url": "http://127.0.0.1:9/refunds"}, "description": "Sends money back.", "effect": "write",
        "input_schema": SCHEMA,
    }  # fmt: skip
    catalog.put(None, "issue_refund", ToolSpec.model_validate(spec))
    return ToolVersion.objects.get(tool_id="issue_refund")


@pytest.fixture
def refund(world: World, tool: ToolVersion) -> Approval:
    return asked(world, tool)


def asked(world: World, tool: ToolVersion, args: Any = REFUND, **values: Any) -> Approval:
    run = running(world)
    add_call(run, name="issue_refund", args=raw(args), tool_version_id=tool.pk)
    sealed = {"args_sha256": "0" * 64, **dict.fromkeys(("tenant", "run", "call", "tool_version", "credential", "destination"), "x")}
    sealed |= {"effect": "write", "policy": "p", "key": "k"}
    given = {"tool": "issue_refund", "tool_version_id": tool.pk, "args": raw(args), "sealed": sealed} | values
    approval = ask(run, **given)
    park(run)
    return approval


def form(page: str) -> dict[str, str]:
    """What a browser would send of the edit form as it was shown."""
    said = {name: value for value, name in re.findall(r'<input[^>]*value="([^"]*)"[^>]*name="(arg/[^"]+)"', page)}
    for name, inner in re.findall(r'<select[^>]*name="(arg/[^"]+)"[^>]*>(.*?)</select>', page, re.S):
        chosen = re.search(r'<option value="([^"]*)" selected', inner)
        said[name] = chosen[1].replace("&quot;", '"') if chosen else ""
    return said


def edited(client: Client, approval: Approval, headers: dict[str, str] | None = None, **typed: str) -> Any:
    page = shown(client, url(approval, edit="1"))
    said = form(page) | {f"arg/{name}": value for name, value in typed.items() if name in SCHEMA["properties"]}  # type: ignore[operator]
    said |= {name: value for name, value in typed.items() if f"arg/{name}" not in said or name == "password"}
    reason = {"reason": typed["why"]} if "why" in typed else {"reason": ""}
    return client.post(url(approval), said | {"edit": "1", "digest": approval.digest} | reason, headers=headers or {})


def newest(old: Approval) -> Approval:
    return Approval.objects.get(replaces=old.pk)


# editing ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P10.4")
def test_an_edit_makes_a_new_request_that_needs_another_person(world: World, refund: Approval) -> None:
    abe, otto = client_of(world.approver), client_of(world.operator)
    answer = edited(otto, refund, amount="20")
    new = newest(refund)
    assert (answer.status_code, answer["Location"]) == (303, url(new))
    assert json.loads(bytes(new.args)) == REFUND | {"amount": 20} and json.loads(bytes(new.proposed or b"")) == REFUND
    assert (state_of(refund), state_of(new), new.edited_by) == ("void", "pending", world.operator.user)
    page = text_of(shown(otto, url(new)))
    assert "Your edit needs another person." in page and "1 of 2, still needed: 1; not you" in page
    assert f"{world.operator.user.username} changed amount removed: 40 → added: 20" in page
    page = shown(abe, url(new))
    assert buttons(page) == ["reject", "approve"] and "Approve with edit" in page
    assert re.search(r"<del>.*?40.*?</del>.*?<ins>.*?20.*?</ins>", page, re.S)
    assert post(abe, new, digest=new.digest).status_code == 303 and state_of(new) == "approved"
    assert call_of(running_of(new)).state == CallState.READY


def running_of(approval: Approval) -> Any:
    return Call.objects.select_related("run").get(run_id=approval.run_id, step=1, ord=1).run


def test_an_edit_says_whose_yes_no_longer_counts(world: World, tool: ToolVersion) -> None:
    approval = asked(world, tool, needed=2)
    abe, amy = client_of(world.approver), client_of(world.second)
    post(abe, approval, digest=approval.digest)
    edited(amy, approval, amount="20")
    new = newest(approval)
    page = text_of(shown(abe, url(new)))
    assert f"The earlier yes of {world.approver.user.username} no longer counts." in page
    assert buttons(shown(abe, url(new))) == ["reject", "approve"]
    assert f'href="{url(new)}"' in shown(abe, url(approval))


def test_the_form_has_an_editor_for_each_kind_and_none_for_what_is_locked(world: World, refund: Approval) -> None:
    page = shown(client_of(world.approver), url(refund, edit="1"))
    assert re.search(r'<input[^>]*value="40"[^>]*name="arg/amount"', page) and 'inputmode="decimal"' in page
    assert '<option value="&quot;USD&quot;" selected>USD</option>' in page and 'name="arg/key"' not in page and "locked" in page
    assert re.search(r'<select[^>]*name="arg/notify"', page) and re.search(r'type="password"[^>]*name="arg/token"', page)
    assert 'data-key="e"' in shown(client_of(world.approver), url(refund))


@pytest.mark.mission("P10.2")
def test_what_is_secret_never_reaches_a_page_and_stays_as_it_was(world: World, refund: Approval) -> None:
    abe = client_of(world.approver)
    pages = [shown(abe, path) for path in (url(refund), url(refund, edit="1"), "/approvals/", "/approvals/?part=list")]
    answer = edited(abe, refund, amount="20", headers=HTMX)
    new = newest(refund)
    assert answer["HX-Redirect"] == url(new)
    assert json.loads(bytes(new.args))["token"] == "hush-hush"
    pages += [shown(abe, url(one)) for one in (new, refund)]
    assert all("hush-hush" not in page for page in pages)
    edited(client_of(world.operator), new, token="another-one")
    last = newest(new)
    assert json.loads(bytes(last.args))["token"] == "another-one" and "another-one" not in shown(abe, url(last))


@pytest.mark.parametrize(
    ("typed", "field", "words"),
    [
        ({"amount": "3000"}, "amount", "maximum"), ({"amount": "lots"}, "amount", "Type a number"), ({"amount": ""}, "amount", "needed"),
        ({"account_id": "acct_x"}, "account_id", "does not match"), ({"reason": "x" * 41}, "reason", "longer"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_what_does_not_fit_is_told_at_the_field_and_what_was_typed_stays(
    world: World, refund: Approval, typed: dict[str, str], field: str, words: str, headers: dict[str, str]
) -> None:
    answer = edited(client_of(world.approver), refund, headers, why="because", currency='"EUR"', **typed)
    page = answer.content.decode()
    assert answer.status_code == 422 and ("<html" in page) is not bool(headers)
    assert f'aria-describedby="arg/{field}-error"' in page and words in text_of(page[page.index(f'id="arg/{field}-error"') :])[:300]
    assert ">because</textarea>" in page and '<option value="&quot;EUR&quot;" selected>' in page
    if typed[field]:
        assert f'value="{typed[field]}"' in page
    assert state_of(refund) == "pending" and not Approval.objects.filter(replaces=refund.pk).exists()


def test_an_edit_of_nothing_is_refused(world: World, refund: Approval) -> None:
    answer = edited(client_of(world.approver), refund)
    assert answer.status_code == 422 and "Nothing is changed" in answer.content.decode() and state_of(refund) == "pending"


def test_locked_fields_are_not_read_from_the_form(world: World, refund: Approval) -> None:
    client_of(world.approver).post(url(refund), {"edit": "1", "digest": refund.digest, "arg/amount": "20", "arg/key": "other"})
    assert json.loads(bytes(newest(refund).args)) == REFUND | {"amount": 20}


def test_who_edits_too_late_sees_who_won_and_keeps_what_was_typed(world: World, refund: Approval) -> None:
    abe = client_of(world.approver)
    typed = form(shown(abe, url(refund, edit="1"))) | {"arg/amount": "20", "edit": "1", "digest": refund.digest, "reason": "half"}
    post(client_of(world.second), refund, "reject", reason="no refund", digest=refund.digest)
    answer = abe.post(url(refund), typed)
    page = text_of(answer.content.decode())
    assert answer.status_code == 409 and "amy-acme rejected this" in page and "What you wrote instead, not recorded:amount: 20" in page
    assert ">half</textarea>" in answer.content.decode() and not Approval.objects.filter(replaces=refund.pk).exists()


def test_an_edit_of_what_was_edited_meanwhile_leads_to_the_new_request(world: World, refund: Approval) -> None:
    abe = client_of(world.approver)
    edited(client_of(world.operator), refund, amount="20")
    answer = abe.post(url(refund), {"edit": "1", "digest": refund.digest, "arg/amount": "30"})
    assert answer.status_code == 409 and f'href="{url(newest(refund))}"' in answer.content.decode()
    assert Approval.objects.filter(run_id=refund.run_id).count() == 2


@pytest.mark.parametrize("who", ["starter", "viewer"])
def test_who_may_not_decide_may_not_edit_either(world: World, refund: Approval, who: str) -> None:
    actor: Actor = world.starter if who == "starter" else person(world.tenant, "vi", "viewer")
    client = client_of(actor)
    assert 'name="edit"' not in shown(client, url(refund)) and 'name="arg/' not in shown(client, url(refund, edit="1"))
    answer = client.post(url(refund), {"edit": "1", "digest": refund.digest, "arg/amount": "20"})
    assert answer.status_code == 403 and state_of(refund) == "pending"


# what is told -----------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P10.4")
def test_the_facts_say_how_far_the_tool_reached_and_how_it_went_before(world: World, tool: ToolVersion) -> None:
    for verdict in ("approve", "approve", "reject"):
        old = asked(world, tool)
        post(client_of(world.approver), old, verdict, reason="seen", digest=old.digest)
    sent = running(world)
    for ord_ in (1, 2):
        values = {"effect": "write", "dispatched_at": timezone.now(), "state": "dispatched", "name": "issue_refund"}
        Call.objects.create(run=sent, tenant_id=sent.tenant_id, fence=1, step=1, ord=ord_, **values)
    page = text_of(shown(client_of(world.approver), url(asked(world, tool))))
    assert "2 changesby this tool, in 1 run of acme" in page
    assert "2 approved, 1 rejectedthis agent, this tool" in page
    assert "Record of support-triage, 7 daysNo runs ended" in page and "Please refund me" in page


def test_the_policy_that_asked_is_named_with_the_steps_that_made_it_ask(world: World, tool: ToolVersion) -> None:
    approval = asked(world, tool)
    because = [{"step": 3, "tool": "search_docs", "brought": "untrusted"}]
    Call.objects.filter(run_id=approval.run_id).update(decision={"decision": "ask", "by": "rule:no-exfiltration", "because": because})
    page = shown(client_of(world.approver), url(approval))
    assert "Rule no-exfiltration, because of step 3 (search_docs brought untrusted)" in text_of(page)
    assert "#step-3" in page


def test_a_standing_grant_that_approved_it_is_named(world: World, refund: Approval) -> None:
    grant = StandingGrant.objects.create(
        tenant=world.tenant, agent="support-triage", tool="issue_refund", most=3, expires_at=timezone.now() + timedelta(hours=1),
        reason="small ones are fine", created_by=world.approver.user,
    )  # fmt: skip
    Approval.objects.filter(pk=refund.pk).update(state="approved", grant=grant, decided_at=Now())
    page = shown(client_of(world.second), url(refund))
    assert f"standing grant of {world.approver.user.username}" in text_of(page) and f'href="/grants/{grant}/"' in page
    assert "small ones are fine" in page


def test_drift_names_what_moved_and_leads_to_the_new_request(world: World, refund: Approval) -> None:
    new = ask(running_of(refund), tool="issue_refund", tool_version_id=refund.tool_version_id, args=raw(REFUND), digest="e" * 64,
              sealed=refund.sealed | {"policy": "q"})  # fmt: skip
    page = shown(client_of(world.approver), url(refund))
    assert "What would be sent has changed: policy." in text_of(page) and f'href="{url(new)}"' in page
    assert "What would be sent has changed: policy." in text_of(shown(client_of(world.approver), url(new)))


def test_only_the_people_of_its_group_get_buttons_and_others_are_told_who(world: World, refund: Approval) -> None:
    groups.put(None, world.tenant, "finance", [world.second.user.username])
    Approval.objects.filter(pk=refund.pk).update(group="finance")
    page = shown(client_of(world.operator), url(refund))
    assert buttons(page) == [] and "The group finance decides this, and you are not in it. Ask amy-acme." in text_of(page)
    assert buttons(shown(client_of(world.second), url(refund))) == ["reject", "approve"]
    assert "For others" in shown(client_of(world.operator), "/approvals/") and Group.objects.exists()


# breaking the glass -----------------------------------------------------------------------------------------------------------


def test_an_approver_breaks_the_glass_with_a_reason_in_a_step_of_its_own(world: World, tool: ToolVersion) -> None:
    approval = asked(world, tool, needed=2)
    abe = client_of(world.approver)
    page = shown(abe, url(approval))
    assert buttons(page) == ["reject", "approve", "break"] and "has to look at it afterwards" in page
    short = post(abe, approval, break_glass="1", reason="now", digest=approval.digest)
    assert short.status_code == 422 and re.search(r'<dialog [^>]*id="confirm-break"[^>]* open>', short.content.decode())
    assert state_of(approval) == "pending"
    assert post(abe, approval, break_glass="1", reason="nobody else is awake", digest=approval.digest).status_code == 303
    assert state_of(approval) == "approved" and GlassReview.objects.filter(approval=approval).exists()
    assert "broke the glass" in shown(abe, url(approval))


def test_who_is_not_in_the_group_may_break_the_glass_only_as_an_approver(world: World, refund: Approval) -> None:
    groups.put(None, world.tenant, "finance", [world.second.user.username])
    Approval.objects.filter(pk=refund.pk).update(group="finance")
    assert "confirm-break" in shown(client_of(world.approver), url(refund))
    assert "confirm-break" not in shown(client_of(world.operator), url(refund))
    assert "confirm-break" not in shown(client_of(world.second), url(refund))  # one of the group decides by the rules
    said = {"break_glass": "1", "reason": "nobody is awake", "digest": refund.digest}
    assert post(client_of(world.operator), refund, **said).status_code == 403 and state_of(refund) == "pending"
    assert post(client_of(world.approver), refund, **said).status_code == 303 and state_of(refund) == "approved"


# the password again -----------------------------------------------------------------------------------------------------------


def stale(actor: Actor) -> Client:
    """Signed in, the password typed six minutes ago."""
    actor.user.set_password("correct horse")
    actor.user.save()
    client = Client()
    client.force_login(actor.user)
    session = client.session
    session[step_up.CHECKED] = time.time() - 360
    session.save()
    return client


GRAVE = [{"risk": "high"}, {"effect": "irreversible"}]


@pytest.mark.mission("P10.4")
@pytest.mark.parametrize("grave", GRAVE)
def test_a_grave_decision_asks_for_the_password_again(world: World, grave: dict[str, str]) -> None:
    approval, abe = waiting(world, **grave)[1], stale(world.approver)
    page = shown(abe, url(approval))
    assert re.search(r'type="password"', page)
    for typed, words in (({}, "Type your password"), ({"password": "wrong"}, "That is not your password.")):
        answer = post(abe, approval, reason="seen", **typed)
        page = answer.content.decode()
        assert answer.status_code == 422 and words in page and 'aria-describedby="password-error"' in page and "seen</textarea>" in page
        assert "wrong" not in page.replace("wrong too", "") and state_of(approval) == "pending"
    assert post(abe, approval, reason="seen", password="correct horse").status_code == 303
    assert state_of(approval) == "approved"
    following = waiting(world, **grave)[1]
    assert 'type="password"' not in shown(abe, url(following)) and post(abe, following, reason="seen").status_code == 303


def test_what_is_harmless_and_every_no_need_no_password(world: World) -> None:
    abe = stale(world.approver)
    harmless, grave = waiting(world)[1], waiting(world, risk="high")[1]
    assert 'type="password"' not in shown(abe, url(harmless)) and post(abe, harmless).status_code == 303
    assert post(abe, grave, "reject", reason="no").status_code == 303 and state_of(grave) == "rejected"


def test_five_wrong_passwords_end_the_session(world: World) -> None:
    approval, abe = waiting(world, risk="high")[1], stale(world.approver)
    answers = [post(abe, approval, reason="seen", password=f"guess {n}") for n in range(5)]
    assert [answer.status_code for answer in answers] == [422, 422, 422, 422, 302] and "/sign-in/" in answers[-1]["Location"]
    assert abe.get(url(approval)).status_code == 302 and AuditEntry.objects.filter(action="session.ended").count() == 1
    assert post(abe, approval, reason="seen", password="correct horse").status_code == 302 and state_of(approval) == "pending"


def test_tries_of_other_windows_of_the_session_count_too(world: World) -> None:
    approval, abe = waiting(world, risk="high")[1], stale(world.approver)
    session = abe.session
    for _ in range(5):
        step_up.taken(session)
    assert post(abe, approval, reason="seen", password="correct horse").status_code == 302 and state_of(approval) == "pending"


def test_an_edit_and_breaking_the_glass_ask_for_the_password_too(world: World, tool: ToolVersion) -> None:
    approval, abe = asked(world, tool, risk="high", needed=2), stale(world.approver)
    answer = edited(abe, approval, amount="20", why="half")
    assert answer.status_code == 422 and "Type your password" in answer.content.decode() and 'value="20"' in answer.content.decode()
    said = {"break_glass": "1", "reason": "nobody is awake", "digest": approval.digest}
    broken = post(abe, approval, **said)
    assert broken.status_code == 422 and re.search(r'<dialog [^>]*id="confirm-break"[^>]* open>', broken.content.decode())
    assert state_of(approval) == "pending" and not ApprovalDecision.objects.exists()


def test_signing_in_counts_as_the_password_and_a_session_at_the_api_needs_it_too(world: World) -> None:
    approval, old = waiting(world, risk="high")[1], stale(world.approver)
    said = json.dumps({"verdict": "approve", "digest": DIGEST, "reason": "seen"})
    path = f"/api/v1/approvals/{approval.approval_id}/decision"
    refused = old.post(path, said, content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "password_needed") and state_of(approval) == "pending"
    fresh = Client()
    fresh.post("/sign-in/", {"username": world.approver.user.username, "password": "correct horse"})
    assert 'type="password"' not in shown(fresh, url(approval))
    assert fresh.post(path, said, content_type="application/json").status_code == 200


# several at once --------------------------------------------------------------------------------------------------------------


def together(*approvals: Approval) -> str:
    return "/approvals/batch/?" + "&".join(f"id={one.approval_id}" for one in approvals)


def sent(client: Client, *approvals: Approval, verdict: str = "approve", **said: str) -> Any:
    items = [f"{one.approval_id}:{one.digest}" for one in approvals]
    return client.post("/approvals/batch/", {"item": items, "verdict": verdict} | said)


def test_alike_and_harmless_ones_are_decided_in_one_step_each_by_itself(world: World) -> None:
    abe, made = client_of(world.approver), [waiting(world, args=raw({"account_id": f"acct_100{n}"}))[1] for n in range(3)]
    page = shown(abe, "/approvals/")
    assert re.findall(r'<input type="checkbox" name="id" value="(\w+)" form="together"', page) == [one.approval_id for one in made]
    page = shown(abe, together(*made[:2]))
    assert "Decide 2 calls of create_ticket together?" in text_of(page) and "acct_1000" in page and "acct_1002" not in page
    assert all(f'value="{one.approval_id}:{one.digest}"' in page for one in made[:2])
    assert [state_of(one) for one in made] == ["pending"] * 3
    post(client_of(world.second), made[1], "reject", reason="not this one")
    answer = text_of(sent(abe, *made[:2]).content.decode())
    assert [state_of(one) for one in made] == ["approved", "rejected", "pending"]
    assert "Recorded." in answer and "Not decided. It was decided, or is no longer needed." in answer


@pytest.mark.parametrize(
    "values",
    [{"risk": "high"}, {"effect": "irreversible"}, {"needed": 2}, {"args": raw({"body": "x" * 3000})}, {"edited_by": True}],
)
def test_grave_edited_long_and_shared_ones_are_never_decided_together(world: World, values: dict[str, Any]) -> None:
    edited_by = values.pop("edited_by", None)
    abe, harmless, other = client_of(world.approver), waiting(world)[1], waiting(world, **values)[1]
    if edited_by:
        Approval.objects.filter(pk=other.pk).update(edited_by=world.operator.user)
    assert 'form="together"' not in shown(abe, "/approvals/?part=list")
    assert f'value="{other.approval_id}:' not in shown(abe, together(harmless, other))
    answer = sent(abe, harmless, other)
    assert "It has to be decided by itself" in answer.content.decode()
    assert (state_of(harmless), state_of(other)) == ("approved", "pending")


def test_a_digest_that_moved_is_not_decided_and_a_no_needs_a_reason(world: World) -> None:
    abe, made = client_of(world.approver), [waiting(world)[1] for _ in range(2)]
    missing = sent(abe, *made, verdict="reject")
    assert missing.status_code == 422 and "Say why you reject." in missing.content.decode()
    made[0].digest = "f" * 64
    answer = sent(abe, *made, verdict="reject", reason="none of these")
    assert "What you were shown is not what would be sent." in answer.content.decode()
    assert [state_of(one) for one in made] == ["pending", "rejected"]


def test_only_calls_of_one_tool_that_one_sees_are_decided_together(world: World) -> None:
    abe, mail = client_of(world.approver), waiting(world, tool="send_email")[1]
    assert abe.get(together(waiting(world)[1], mail)).status_code == 422
    assert abe.get("/approvals/batch/").status_code == 422
    other = waiting(make_world("globex", "other"))[1]
    assert abe.get(together(other)).status_code == sent(abe, other).status_code == 404 and state_of(other) == "pending"


# the API ----------------------------------------------------------------------------------------------------------------------


def test_the_record_says_who_edited_it_what_was_proposed_and_what_replaced_it(world: World, refund: Approval) -> None:
    abe = client_of(world.approver)
    edited(abe, refund, amount="20")
    new = newest(refund)
    old, made = (abe.get(f"/api/v1/approvals/{one.approval_id}").json() for one in (refund, new))
    assert (old["replaced_by"], old["replaces"], old["edited_by"], old["proposed"]) == (new.approval_id, None, None, None)
    assert (made["replaces"], made["replaced_by"], made["edited_by"]) == (refund.approval_id, None, "abe-acme")
    assert made["proposed"]["amount"] == 40 and made["args"]["amount"] == 20
    assert made["sealed"]["policy"] == "p" and made["sealed"]["args_sha256"] != "0" * 64 and made["preview"] is None
