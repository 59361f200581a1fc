"""One run as a page: what blocks it, what it spent, what it did, and every part of it that live data fetches again."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from runs import signoff
from runs.models import Call, Event, Run, Step, UnknownWrite
from runs.states import CallState, RunState
from tenants.ids import new_id
from tests.console.past import browser
from tests.runtime.waiting import DIGEST, World, add_call, make_world, park, person, queued, running, waiting


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def client(world: World) -> Client:
    return browser(world.operator)


def url(run: Run, **query: object) -> str:
    return f"/runs/{run.run_id}/" + ("?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else "")


def page_of(client: Client, run: Run, status: int = 200, **query: object) -> str:
    answer = client.get(url(run, **query))
    assert answer.status_code == status, answer.content[:300]
    return str(answer.content.decode())


def words(page: str) -> str:
    """As a person reads it."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split('<main class="main"')[-1])).replace("&#x27;", "'")


def story(run: Run, *happened: tuple[str, dict[str, Any]]) -> None:
    """Events after those that are there, a second apart."""
    for kind, payload in happened:
        run.seq += 1
        at = run.created_at + timedelta(seconds=run.seq)
        Event.objects.create(run=run, seq=run.seq, tenant_id=run.tenant_id, kind=kind, payload=payload, at=at)
    Run.objects.filter(pk=run.pk).update(seq=run.seq)


def turn(run: Run, step: int, *, text: str = "", tools: int = 0, **values: Any) -> Call:
    """A step with its model call, answered."""
    Step.objects.create(run=run, step=step, tenant_id=run.tenant_id, role="planner", model="primary", calls=tools)
    result = {"text": text, "calls": [{"id": f"c{n}", "name": "create_ticket", "arguments": "{}"} for n in range(tools)], "finish": "stop"}
    given: dict[str, Any] = {"state": CallState.DISPATCHED, "name": "primary", "effect": "read", "attempt": 1, "result": result}
    call = Call.objects.create(run=run, step=step, ord=0, tenant_id=run.tenant_id, fence=1, **(given | values))
    Call.objects.filter(pk=call.pk).update(state=values.get("state", CallState.DONE))
    about = {"step_id": step, "ord": 0, "model": "primary"}
    story(run, ("model_call_started", {**about, "data": {"attempt": 1}}), ("model_call_completed", {**about, "result": "ok"}))
    return call


def over(run: Run, state: str = RunState.SUCCEEDED, outcome: str = "completed", **values: Any) -> Run:
    if run.state != RunState.RUNNING:
        Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=new_id())
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, outcome=outcome, ended_at=Now(), **values)
    run.refresh_from_db()
    return run


def rows(page: str) -> list[str]:
    return re.findall(r'role="treeitem"[^>]*data-at="([^"]+)"', page)


def selected(page: str) -> list[str]:
    return re.findall(r'aria-selected="true"[^>]*data-at="([^"]+)"', page)


# who sees what --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run_id", ["agt_1", "nonsense", "agt_" + "0" * 26, "apr_" + "0" * 26, "%00", "..", "agt_01J%2F", "new2", "x" * 400]
)
def test_an_id_that_is_none_is_a_page_that_does_not_exist(world: World, client: Client, run_id: str) -> None:
    assert client.get(f"/runs/{run_id}/").status_code in (400, 404) if run_id == "%00" else 404
    for part in ("head", "timeline", "inspector", "tail", "rows", "payload"):
        if run_id != "%00":
            assert client.get(f"/runs/{run_id}/?part={part}").status_code == 404


def test_another_tenants_run_does_not_exist_in_any_part(world: World, client: Client) -> None:
    foreign, _ = waiting(make_world("globex", "other-agent"))
    for part in ("", "head", "timeline", "inspector", "tail", "rows", "payload"):
        assert client.get(url(foreign, part=part, of="input")).status_code == 404
    assert client.post(url(foreign), {"act": "cancel"}).status_code == 404
    foreign.refresh_from_db()
    assert foreign.state == RunState.WAITING_APPROVAL


def test_a_stranger_is_sent_to_sign_in_and_htmx_is_told_to_go_there(world: World) -> None:
    run = queued(world)
    assert Client().get(url(run))["Location"].startswith("/sign-in/")
    assert Client().get(url(run, part="head"), headers={"HX-Request": "true"})["HX-Redirect"].startswith("/sign-in/")


# the head -------------------------------------------------------------------------------------------------------------


def test_the_head_says_what_was_asked_of_whom_and_how_it_stands(world: World, client: Client) -> None:
    run = queued(world)
    page = page_of(client, run)
    assert "<title>Queued · Please refund me · Signalbox</title>" in page
    for said in ("Please refund me", "Queued", "support-triage", "r1", "acme", f"Started by {world.starter.user.username}"):
        assert said in words(page)
    assert f'data-copy="{run.run_id}"' in page and "No steps yet" in page


def test_who_must_decide_is_led_to_the_approval_with_its_countdown(world: World, client: Client) -> None:
    run, approval = waiting(world, needed=2, why="The amount is over $1,000")
    signoff.decide(world.approver, approval.id, verdict="approve", digest=DIGEST)
    page = page_of(client, run)
    assert "Step 1 wants to call create_ticket. The amount is over $1,000. 1 of 2 people have approved." in words(page)
    assert f'href="/approvals/{approval.approval_id}/"' in page and "data-countdown=" in page
    assert "You started this run" not in page


def test_whoever_started_the_run_is_told_that_somebody_else_must_decide(world: World) -> None:
    run, _ = waiting(world)
    assert "You started this run, so somebody else must decide." in words(page_of(browser(world.starter), run))


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (("max_cost_usd", 0.08, 0.0912, "primary", 3), "The limit of cost is $0.080; primary in step 3 would have brought it to $0.091."),
        (("max_steps", 6, 7, "primary", 6), "The limit of steps is 6; primary in step 6 would have brought it to 7."),
        (("run_s", 20, 20.1, "clock", 2), "The limit of wall clock (20s) was passed after 20s in step 2."),
        (("max_moons", 1, 2, "<b>x</b>", 0), "The limit of max_moons is 1; &lt;b&gt;x&lt;/b&gt; would have brought it to 2."),
    ],
)  # fmt: skip
def test_a_failed_run_names_the_limit_its_value_and_who_passed_it(world: World, client: Client, stop: Any, said: str) -> None:
    run = over(
        running(world), RunState.FAILED, "budget_exceeded", stop=dict(zip(("limit", "value", "used", "by", "step"), stop, strict=True))
    )
    assert f"Budget exceeded. {said}" in words(page_of(client, run))


def test_a_failed_run_names_its_last_error(world: World, client: Client) -> None:
    error = {"error_type": "timeout", "message": "no answer <i>yet</i>\u202e", "tool": "create_ticket", "step": 2}
    page = page_of(client, over(running(world), RunState.FAILED, "tool_error", last_error=error))
    assert "Tool error. Last error: timeout from create_ticket in step 2: no answer &lt;i&gt;yet&lt;/i&gt; U+202E" in words(page)


def test_an_unknown_write_is_said_first_and_selected(world: World, client: Client) -> None:
    run = running(world)
    turn(run, 1, tools=1)
    add_call(run, 1, state=CallState.DISPATCHED, name="send_email")
    Call.objects.filter(run=run, ord=1).update(state=CallState.UNKNOWN)
    park(run, RunState.NEEDS_RECONCILIATION)
    page = page_of(client, run)
    assert "It is not known whether send_email in step 1 was applied." in words(page)
    assert selected(page) == ["1.1"] and 'href="?sel=1.1#call-1.1"' in page
    case = UnknownWrite.objects.create(tenant=world.tenant, run_id=run.id, step=1, ord=1, tool="send_email")
    assert f'href="/unknowns/{case.unknown_id}/"' in page_of(client, run, part="head")


@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.WAITING_BUDGET, RunState.WAITING_TIMER])
def test_a_run_that_waits_for_something_else_says_for_what(world: World, client: Client, state: str) -> None:
    run = running(world)
    park(run, state)
    assert 'class="callout wait' in page_of(client, run)


@pytest.mark.mission("P5.1")
def test_a_cost_that_nobody_knows_is_never_shown_as_nothing(world: World, client: Client) -> None:
    run = over(running(world), unpriced=True)
    turn(run, 1, tokens_in=100)
    page = words(page_of(client, run, sel="1"))
    assert "Cost unknown / $0.080" in page and "Cost unknown: no price is set for this model" in page
    free = over(running(world))
    turn(free, 1)
    page = words(page_of(client, free, sel="1"))
    assert "Cost $0.00 / $0.080" in page and "Cost unknown" not in page


def test_gauges_show_used_and_limit_and_an_unpriced_cost_is_partial(world: World, client: Client) -> None:
    run = over(
        running(world), step=5, cost_micro=80_000, unpriced=True, tool_calls=3, tokens_in=41_200, deadline_at=Now() + timedelta(seconds=8)
    )
    page = words(page_of(client, run))
    for said in (
        "Steps 5 / 6",
        "Input tokens 41.2k / 100k",
        "Cost $0.080 partial / $0.080 Used up",
        "Wall clock 12s / 20s",
        "Tool calls 3 / 16",
        "Writes 0 / 4",
    ):
        assert said in page


def test_the_wall_clock_stands_still_while_people_think(world: World, client: Client) -> None:
    run, _ = waiting(world)
    park(run, waiting_since=Now() - timedelta(hours=3), deadline_at=Now() - timedelta(hours=3) + timedelta(seconds=15))
    assert "Wall clock 5.0s / 20s" in words(page_of(client, run))


def test_the_answer_is_shown_whole_and_as_text(world: World, client: Client) -> None:
    run = running(world)
    turn(run, 1, text="<b>Refunded</b>\n\u200bline two")
    page = page_of(client, over(run, answer_step=1))
    (card,) = re.findall(r'<section class="card qa-card" id="answer".*?</section>', page, re.S)
    assert "&lt;b&gt;Refunded&lt;/b&gt;" in card and "U+200B" in card and "Load full" not in card


# cancel and retry -----------------------------------------------------------------------------------------------------


def test_cancel_asks_first_and_then_ends_the_run(world: World, client: Client) -> None:
    run, approval = waiting(world)
    page = page_of(client, run)
    assert 'data-open="cancel-run"' in page and '<dialog class="dlg" id="cancel-run"' in page
    answer = client.post(url(run), {"act": "cancel"}, follow=True)
    run.refresh_from_db()
    approval.refresh_from_db()
    assert (run.state, approval.state) == (RunState.CANCELLED, "void")
    after = answer.content.decode()
    assert "The run has ended." in after and f"by {world.operator.user.username}" in after and 'data-open="cancel-run"' not in after


def test_without_scripts_the_question_is_a_page(world: World, client: Client) -> None:
    page = page_of(client, queued(world), ask="cancel")
    assert '<form class="card ask" method="post"' in page and "Keep it running" in page


def test_cancelling_what_an_engine_holds_only_asks(world: World, client: Client) -> None:
    run = running(world)
    page = client.post(url(run), {"act": "cancel"}, follow=True).content.decode()
    run.refresh_from_db()
    assert run.state == RunState.RUNNING and run.cancel_requested
    assert "The call in progress ends first" in words(page) and 'data-open="cancel-run"' not in page


def test_a_failed_run_can_be_tried_again_and_leads_to_the_new_one(world: World, client: Client) -> None:
    run = over(running(world), RunState.FAILED, "model_error")
    answer = client.post(url(run), {"act": "retry"})
    again = Run.objects.exclude(pk=run.pk).get()
    assert answer["Location"] == f"/runs/{again.run_id}/"
    assert f"Retry of {run.run_id[:14]}" in words(page_of(client, again))


def test_a_refusal_is_a_sentence_on_the_page(world: World, client: Client) -> None:
    run = over(running(world))
    assert 'data-open="retry-run"' not in page_of(client, run)
    after = client.post(url(run), {"act": "retry"}, follow=True).content.decode()
    assert "Only a run that failed or was cancelled can be tried again." in after and Run.objects.count() == 1


def test_a_viewer_sees_everything_and_may_press_nothing(world: World) -> None:
    viewer = browser(person(world.tenant, "vera", "viewer"))
    run = queued(world)
    page = page_of(viewer, run)
    assert "cancel-run" not in page and 'data-open="retry-run"' not in page
    viewer.post(url(run), {"act": "cancel"})
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


def test_an_unknown_act_does_nothing(world: World, client: Client) -> None:
    run = queued(world)
    assert client.post(url(run), {"act": "explode"}).status_code == 302
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


# the tree and the inspector -------------------------------------------------------------------------------------------
