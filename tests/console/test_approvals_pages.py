"""The approvals pages: what is shown, to whom the buttons are given, and what becomes of a decision."""

import json
import re
from typing import Any

import pytest
from django.test import Client
from django.utils.html import escape

from approvals.models import Approval, ApprovalDecision
from console import step_up
from runs import lifecycle
from runs.models import Call, Run
from runs.states import CallState
from tenants.actors import Actor
from tests.runtime.waiting import DIGEST, World, add_call, ask, call_of, make_late, make_world, park, person, running, waiting

TICKET = {"account_id": "acct_1001", "priority": "urgent", "summary": "Charged twice"}
HTMX = {"HX-Request": "true"}


def raw(args: Any) -> bytes:
    return json.dumps(args, separators=(",", ":"), ensure_ascii=False).encode()


def client_of(actor: Actor) -> Client:
    """As if this person had just signed in with their password."""
    client = Client()
    client.force_login(actor.user)
    session = client.session
    step_up.note(session)
    session.save()
    return client


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def abe(world: World) -> Client:
    return client_of(world.approver)


def url(approval: Approval, **query: str) -> str:
    return f"/approvals/{approval.approval_id}/" + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else "")


def shown(client: Client, path: str, status: int = 200, **headers: str) -> str:
    answer = client.get(path, headers=headers)
    assert answer.status_code == status, answer.content[:500]
    return str(answer.content.decode())


def post(client: Client, approval: Approval, verdict: str = "approve", **said: str) -> Any:
    headers = said.pop("headers", {})
    return client.post(url(approval), {"verdict": verdict, "digest": DIGEST} | said, headers=headers)


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page)).strip()


def buttons(page: str) -> list[str]:
    return re.findall(r'name="confirm" value="(\w+)"', page)


def state_of(approval: Approval) -> str:
    approval.refresh_from_db()
    return approval.state


def done_call(run: Run, **values: Any) -> None:
    call = Call.objects.create(run=run, tenant_id=run.tenant_id, fence=1, state=CallState.DISPATCHED, effect="read", **values)
    Call.objects.filter(run_id=run.id, step=call.step, ord=call.ord).update(state=CallState.DONE)


# the inbox --------------------------------------------------------------------------------------------------------------------


def test_an_empty_inbox_says_so(abe: Client) -> None:
    assert "Nothing waits for a person." in shown(abe, "/approvals/")
    assert "Nothing has been decided yet." in shown(abe, "/approvals/?tab=decided")


@pytest.mark.mission("P10.4")
def test_the_inbox_is_sorted_by_expiry_and_shows_the_first_one(world: World, abe: Client) -> None:
    late, soon = waiting(world, expires_s=7200)[1], waiting(world, expires_s=300, args=raw(TICKET))[1]
    page = shown(abe, "/approvals/")
    assert re.findall(r'id="row-(\w+)"', page) == [soon.approval_id, late.approval_id]
    marks = ("Expires within 10 minutes", f"row-{soon.approval_id}", "Later", f"row-{late.approval_id}")
    assert sorted(marks, key=page.index) == list(marks)
    assert "Open an urgent ticket for acct_1001" in page and '<title data-live-title="approvals">(2) Approvals' in page
    assert f'action="{url(soon)}"' in page and buttons(page) == ["reject", "approve"]


def test_decided_and_expired_ones_are_under_decided_newest_first_and_paged(world: World, abe: Client) -> None:
    made = [waiting(world)[1] for _ in range(3)]
    post(abe, made[0])
    post(abe, made[1], "reject", reason="no")
    make_late(made[2])
    assert "Nothing waits for a person." in shown(abe, "/approvals/")
    page = shown(abe, "/approvals/?tab=decided")
    assert re.findall(r'id="row-(\w+)"', page) == [one.approval_id for one in reversed(made)]
    for word in ("Approved", "Rejected", "Expired"):
        assert word in page
    first = shown(abe, "/approvals/?tab=decided&limit=2")
    assert f"cursor={made[1].approval_id}" in first
    assert made[0].approval_id in shown(abe, f"/approvals/?tab=decided&cursor={made[1].approval_id}")
    assert abe.get("/approvals/?tab=decided&cursor=7").status_code == 400


def test_the_list_alone_is_one_region_with_the_same_id(world: World, abe: Client) -> None:
    approval = waiting(world)[1]
    part = shown(abe, f"/approvals/?part=list&tab=waiting&open={approval.approval_id}", **HTMX).strip()
    assert part.startswith('<div id="approval-list"') and part.endswith("</div>") and "<html" not in part
    assert 'aria-current="true"' in part and "tab=waiting&amp;open=" + approval.approval_id in part


def test_another_tenants_requests_are_nowhere(world: World, abe: Client) -> None:
    other = waiting(make_world("globex", "other"))[1]
    assert other.approval_id not in shown(abe, "/approvals/")
    assert abe.get(url(other)).status_code == post(abe, other).status_code == 404
    assert abe.get("/approvals/nonsense/").status_code == 404
    assert state_of(other) == "pending"


def test_somebody_who_is_not_signed_in_is_sent_to_sign_in(world: World) -> None:
    approval = waiting(world)[1]
    assert "/sign-in/" in Client().get(url(approval))["Location"]
    answer = Client().get(url(approval, part="status"), headers=HTMX)
    assert "/sign-in/" in answer["HX-Redirect"]


# the detail -------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P10.4")
def test_a_request_shows_everything_a_person_needs(world: World, abe: Client) -> None:
    run = running(world)
    add_call(run, args=raw(TICKET))
    done_call(run, step=0, ord=1, name="fetch_account", args=raw({"account_id": "acct_1001"}))
    done_call(run, step=1, ord=0, name="primary", result={"text": "The customer <b>begs</b> for it."})
    seen = {"step": 0, "ord": 1, "tool": "fetch_account"}
    approval = ask(run, args=raw(TICKET), evidence=[seen], why="writes ask a person", needed=2)
    park(run)
    page = shown(abe, url(approval))
    said = text_of(page)
    assert "create_ticket will open an urgent ticket for acct_1001" in said
    for fact in ("0 of 2 approvals", "Write", world.starter.user.username, "2 people", "operator or higher", "writes ask a person"):
        assert fact in said, fact
    for name, value in TICKET.items():
        assert name in said and value in said
    assert "Fetch account acct_1001, done" in said and f"/runs/{run.run_id}/#step-0" in page
    assert "claimed by the model" in said and "The customer &lt;b&gt;begs&lt;/b&gt; for it." in page
    assert f'data-countdown="{approval.expires_at:%Y-%m-%dT%H:%M}' in page and "data-now=" in page
    assert page.count(f'name="digest" value="{DIGEST}"') == 3  # to approve, to reject, to break the glass
    assert page.index("Charged twice") < page.index('id="decision"')


HOSTILE = {
    "note": '<script>alert(1)</script><img src=x onerror="go()">',
    "to": "ad\u202enimda\u202c@example.com",
    "<b>key</b>\u200b": "zero\u200bwidth\u0007bell",
    "name": "pаypal",
}


@pytest.mark.mission("P10.4")
def test_nothing_in_the_arguments_is_invisible_or_becomes_markup(world: World, abe: Client) -> None:
    approval = waiting(world, args=raw(HOSTILE), why="<i>because</i>", evidence=[])[1]
    page = shown(abe, url(approval))
    body = page[page.index('id="approval-detail"') :]
    assert not set("\u202e\u202c\u200b\u0007") & set(page)
    assert "<script>alert" not in page and "<img" not in page and "<i>because" not in page and "<b>key" not in page
    assert escape("<script>alert(1)</script>") in body
    for code in ("U+202E", "U+202C", "U+200B", "U+0007"):
        assert code in body
    assert "letters that pass for others" in body and '<span class="inv">U+0430</span>' in body and "p\\u0430ypal" in body


@pytest.mark.mission("P10.4")
def test_200_kb_of_arguments_are_all_on_the_page_before_the_buttons(world: World, abe: Client) -> None:
    args = {"body": "word " * 40_000, "last": "THE-END"}
    approval = waiting(world, args=raw(args))[1]
    page = shown(abe, url(approval))
    assert page.count("word ") >= 40_000 and page.index("THE-END") < page.index("data-args-end") < page.index('id="decision"')
    assert '<section class="det" id="approval-detail" aria-labelledby="says" data-long>' in page and 'id="unread"' in page
    assert len(shown(abe, "/approvals/?part=list")) < 5_000


def test_arguments_that_are_no_object_and_none_at_all_are_shown(world: World, abe: Client) -> None:
    assert "This call has no arguments." in shown(abe, url(waiting(world)[1]))
    assert "(all of it)" in shown(abe, url(waiting(world, args=b'["x"]')[1]))


def test_several_requests_of_one_step_are_decided_separately(world: World, abe: Client) -> None:
    run = running(world)
    add_call(run, 1)
    add_call(run, 2, name="send_email")
    first, second = ask(run, 1), ask(run, 2, tool="send_email", digest="e" * 64)
    park(run)
    page = shown(abe, url(first))
    assert "This step asks for 2 calls. Each is decided by itself:" in text_of(page) and f'href="{url(second)}"' in page
    answer = post(abe, first)
    assert answer["Location"] == url(second, decided=first.approval_id)
    assert (state_of(first), state_of(second), call_of(run, 2).state) == ("approved", "pending", CallState.WAITING_APPROVAL)


# who may ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P10.1")
def test_who_started_the_run_has_no_buttons_and_is_told_who_may(world: World) -> None:
    approval = waiting(world)[1]
    ann = client_of(world.starter)
    page = shown(ann, url(approval))
    assert buttons(page) == [] and '<dialog class="dlg decide' not in page
    told = text_of(page)
    assert "You started this run, so somebody else must decide. Ask abe-acme, amy-acme or otto-acme." in told
    answer = post(ann, approval, reason="mine")
    assert answer.status_code == 403 and "somebody else must decide" in answer.content.decode()
    assert state_of(approval) == "pending" and not approval.decisions.exists()


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("grave", [{"effect": "irreversible"}, {"risk": "high"}])
def test_an_operator_is_told_that_an_approver_is_needed(world: World, grave: dict[str, str]) -> None:
    approval = waiting(world, **grave)[1]
    otto = client_of(world.operator)
    page = shown(otto, url(approval))
    assert buttons(page) == []
    assert "This needs the role approver or a higher one, so somebody else must decide. Ask abe-acme or amy-acme." in text_of(page)
    assert post(otto, approval, reason="I want to").status_code == 403
    assert buttons(shown(client_of(world.approver), url(approval))) == ["reject", "approve"]


def test_a_viewer_reads_and_decides_nothing(world: World) -> None:
    approval = waiting(world)[1]
    vi = client_of(person(world.tenant, "vi", "viewer"))
    assert buttons(shown(vi, url(approval))) == [] and "For others" in shown(vi, "/approvals/")
    assert post(vi, approval).status_code == 403 and state_of(approval) == "pending"


def test_when_nobody_else_may_the_page_says_what_to_do(world: World) -> None:
    approval = waiting(world)[1]
    world.tenant.members.exclude(user=world.starter.user).delete()
    assert "an admin has to give somebody the role operator" in text_of(shown(client_of(world.starter), url(approval)))


# deciding ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P10.4")
def test_a_yes_is_recorded_and_leads_to_the_next_one(world: World, abe: Client) -> None:
    run, approval = waiting(world)
    following = waiting(world, expires_s=120)[1]
    answer = post(abe, approval, reason=" seen in the ledger ")
    assert (answer.status_code, answer["Location"]) == (303, url(following, decided=approval.approval_id))
    decision = ApprovalDecision.objects.get(approval=approval)
    assert (decision.verdict, decision.reason, decision.digest) == ("approve", "seen in the ledger", DIGEST)
    assert (state_of(approval), call_of(run).state) == ("approved", CallState.READY)
    page = shown(abe, answer["Location"])
    assert "Approved: Open a ticket" in text_of(page) and f'href="{url(approval)}"' in page
    assert "Approved: Open a ticket" not in text_of(shown(client_of(world.second), answer["Location"]))


def test_after_the_last_one_comes_the_empty_inbox(world: World, abe: Client) -> None:
    approval = waiting(world)[1]
    assert post(abe, approval)["Location"] == f"/approvals/?decided={approval.approval_id}"
    assert "Nothing waits for a person." in shown(abe, "/approvals/")


def test_with_htmx_the_answer_redirects_and_tells_other_tabs(world: World, abe: Client) -> None:
    approval = waiting(world)[1]
    answer = post(abe, approval, headers=HTMX)
    assert answer["HX-Redirect"].startswith("/approvals/?decided=")
    assert json.loads(answer["HX-Trigger"]) == {"sb:decided": {"topic": "approvals"}}
    assert state_of(approval) == "approved"


@pytest.mark.mission("P10.4")
def test_two_people_are_needed_and_the_first_cannot_count_twice(world: World, abe: Client) -> None:
    run, approval = waiting(world, needed=2, risk="high")
    post(abe, approval, reason="yes")
    page = shown(abe, url(approval, decided=approval.approval_id))
    assert "Recorded, 1 more person must approve" in text_of(page)
    assert "1 of 2, still needed: 1; not you" in text_of(page)
    assert buttons(page) == [] and "You have approved this. Another person must approve it too" in text_of(page)
    assert "You approved" in shown(abe, "/approvals/")
    assert post(abe, approval, reason="again").status_code == 303 and approval.decisions.count() == 1
    assert (state_of(approval), call_of(run).state) == ("pending", CallState.WAITING_APPROVAL)
    amy = client_of(world.second)
    page = shown(amy, url(approval))
    assert "1 of 2 approvals" in text_of(page) and world.approver.user.username in page and "yes" in page
    post(amy, approval, reason="yes too")
    assert (state_of(approval), call_of(run).state) == ("approved", CallState.READY)


@pytest.mark.parametrize(
    ("verdict", "values", "error"),
    [
        ("reject", {}, "Say why you reject. The agent is told."),
        ("reject", {"risk": "high"}, "Say why you reject. The agent is told."),
        ("approve", {"risk": "high"}, "A high-risk action needs a reason."),
        ("approve", {"effect": "irreversible"}, "What cannot be undone needs a reason."),
    ],
)
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_missing_reason_is_422_with_an_error_at_the_field(
    world: World, abe: Client, verdict: str, values: dict[str, str], error: str, headers: dict[str, str]
) -> None:
    approval = waiting(world, **values)[1]
    answer = post(abe, approval, verdict, reason="   ", headers=headers)
    page = answer.content.decode()
    assert answer.status_code == 422 and ("<html" in page) is not bool(headers)
    assert f'aria-describedby="reason-{verdict}-error"' in page and f'id="reason-{verdict}-error"' in page and error in page
    assert re.search(rf'<dialog [^>]*id="confirm-{verdict}"[^>]* open>', page)
    assert state_of(approval) == "pending" and not approval.decisions.exists()


def test_a_plain_approval_needs_no_reason_and_too_long_a_one_is_kept(world: World, abe: Client) -> None:
    approval = waiting(world)[1]
    answer = post(abe, approval, reason="x" * 2001)
    assert answer.status_code == 422 and "at most 2000" in answer.content.decode() and "x" * 2001 in answer.content.decode()
    assert post(abe, approval).status_code == 303


def test_without_scripts_the_confirm_step_is_a_page(world: World, abe: Client) -> None:
    approval = waiting(world)[1]
    page = shown(abe, url(approval, confirm="reject", reason="because"))
    assert re.search(r'<dialog [^>]*id="confirm-reject"[^>]* open>', page) and ">because</textarea>" in page
    assert state_of(approval) == "pending"  # a GET decides nothing
    assert " open>" not in shown(abe, url(approval, confirm="nonsense"))


@pytest.mark.mission("P10.4")
def test_a_stale_digest_shows_what_would_be_sent_now_and_keeps_the_reason(world: World, abe: Client) -> None:
    approval = waiting(world, args=raw(TICKET))[1]
    answer = post(abe, approval, digest="f" * 64, reason="typed")
    page = answer.content.decode()
    assert answer.status_code == 409 and "What you were shown is not what would be sent." in page
    assert "Charged twice" in page and f'name="digest" value="{DIGEST}"' in page and page.count(">typed</textarea>") == 3
    assert state_of(approval) == "pending"


@pytest.mark.mission("P10.4")
def test_who_comes_second_sees_who_won_and_keeps_what_was_typed(world: World, abe: Client) -> None:
    approval = waiting(world)[1]
    post(client_of(world.second), approval, "reject", reason="wrong account")
    answer = post(abe, approval, reason="typed <b>text</b>", headers=HTMX)
    page = answer.content.decode()
    assert answer.status_code == 409 and page.strip().startswith("<section") and buttons(page) == []
    assert "amy-acme rejected this" in text_of(page) and "wrong account" in page
    assert "typed &lt;b&gt;text&lt;/b&gt;</textarea>" in page and "not recorded" in page
    assert approval.decisions.count() == 1


def test_a_double_submit_is_recorded_once(world: World, abe: Client) -> None:
    approval = waiting(world)[1]
    assert [post(abe, approval).status_code for _ in range(2)] == [303, 303]
    assert approval.decisions.count() == 1


@pytest.mark.mission("P10.4")
def test_an_expired_request_is_locked(world: World, abe: Client) -> None:
    approval = waiting(world)[1]
    make_late(approval)
    page = shown(abe, url(approval))
    assert buttons(page) == [] and "Nobody decided in time" in text_of(page) and 'data-closed="expired"' in page
    answer = post(abe, approval, reason="too late")
    assert answer.status_code == 410 and ">too late</textarea>" in answer.content.decode()
    assert not approval.decisions.exists()


def test_a_cancelled_runs_request_is_void_and_says_so(world: World, abe: Client) -> None:
    run, approval = waiting(world)
    lifecycle.cancel(world.operator, run.id)
    page = shown(abe, url(approval))
    assert buttons(page) == [] and "Nobody needs to decide this any more." in text_of(page)
    assert post(abe, approval).status_code == 409


def test_a_changed_request_leads_to_the_one_that_took_its_place(world: World, abe: Client) -> None:
    run, old = waiting(world)
    new = ask(run, digest="e" * 64, args=raw(TICKET))
    page = shown(abe, url(old))
    assert "What would be sent has changed: tool version, arguments." in text_of(page) and f'href="{url(new)}"' in page
    assert f'href="{url(new)}"' in shown(abe, url(old, part="status"))


def test_an_unknown_verdict_is_refused(world: World, abe: Client) -> None:
    approval = waiting(world)[1]
    assert post(abe, approval, "maybe").status_code == 422 and state_of(approval) == "pending"


def test_a_post_without_the_csrf_token_decides_nothing(world: World) -> None:
    approval = waiting(world)[1]
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.approver.user)
    assert post(client, approval).status_code == 403 and state_of(approval) == "pending"


# live parts -------------------------------------------------------------------------------------------------------------------


def test_live_data_swaps_the_state_and_the_approvers_and_never_the_form(world: World, abe: Client) -> None:
    approval = waiting(world)[1]
    page = shown(abe, url(approval))
    regions = re.findall(r'id="([\w-]+)"[^>]*data-live-fragment="([^"]+)"', page)
    regions = [(name, part) for name, part in regions if name.startswith("approv")]
    assert [name for name, _ in regions] == ["approval-list", "approvers", "approval-status"]
    assert "data-closed" not in shown(abe, url(approval, part="status"))
    post(client_of(world.second), approval, "reject", reason="no")
    for name, part in regions[1:]:
        answer = shown(abe, part, **HTMX).strip()
        assert f'id="{name}"' in answer.partition(">")[0] and "amy-acme" in answer
        assert not re.search("<(form|textarea|input|dialog)", answer)
    assert 'data-closed="rejected"' in shown(abe, url(approval, part="status"))


# queries ----------------------------------------------------------------------------------------------------------------------

FRAME = 4  # session, user, membership, the sidebar's counts


@pytest.mark.parametrize("many", [1, 6])
@pytest.mark.parametrize(
    ("path", "queries"),
    [
        ("/approvals/", FRAME + 20),
        ("/approvals/?tab=decided", FRAME + 2),
        ("/approvals/?part=list", FRAME - 1 + 3),
        ("{one}", FRAME + 21),  # one of them notes that it was opened
        ("{one}?part=status", FRAME - 1 + 2),
    ],
)
def test_a_page_asks_as_often_for_many_requests_as_for_one(
    world: World, abe: Client, many: int, path: str, queries: int, django_assert_num_queries: Any
) -> None:
    made = [waiting(world, evidence=[{"step": 1, "ord": 1, "tool": "create_ticket"}])[1] for _ in range(many)]
    with django_assert_num_queries(queries):
        shown(abe, path.replace("{one}", url(made[0])))
