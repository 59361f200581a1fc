"""One run as a page: what blocks it, what it spent, what it did, and every part of it that live data fetches again."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from approvals.models import ApprovalDecision
from runs import lifecycle, signoff
from runs.models import Call, Event, Run, RunInput, Step, UnknownWrite
from runs.states import CallState, RunState
from tenants.ids import encode, new_id
from tests.console.past import browser
from tests.runtime.waiting import DIGEST, World, add_call, ask, make_world, park, person, queued, running, waiting


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


def ticket(world: World, **values: Any) -> Run:
    """A step whose ticket waits for a person."""
    run = running(world)
    turn(run, 1, tools=1, text="Both charges share an invoice.")
    decision = {"decision": "ask", "why": "A write", "by": "effect:write", "approvers": 1, "rev": 4}
    add_call(run, 1, **({"decision": decision, "args": b'{"priority":"urgent"}', "idem_key": "K" * 32} | values))
    ask(run, 1)
    park(run)
    return run


def test_the_tree_nests_and_selects_what_blocks(world: World, client: Client) -> None:
    page = page_of(client, ticket(world))
    assert rows(page) == ["1", "1.0", "1.1", "1.1.policy"] and selected(page) == ["1.1"]
    levels = re.findall(r'aria-level="(\d)" aria-posinset="(\d)" aria-setsize="(\d)"', page)
    assert levels == [("1", "1", "1"), ("2", "1", "2"), ("2", "2", "2"), ("3", "1", "1")]


def test_the_inspector_shows_what_would_be_sent_and_why_people_are_asked(world: World, client: Client) -> None:
    page = words(page_of(client, ticket(world), part="inspector"))
    for said in ("create_ticket", "Waiting for approval", "Write", "K" * 32, '"priority" : "urgent"', "Ask", "A write", "effect:write"):
        assert said in page.replace("&quot;", '"')
    assert "What the model said Both charges share an invoice." in page


@pytest.mark.parametrize(
    ("tab", "said"), [("args", "priority"), ("result", "None yet"), ("policy", "effect:write"), ("raw", "idempotency_key"), ("x", "Status")]
)
def test_each_tab_is_a_link_of_its_own(world: World, client: Client, tab: str, said: str) -> None:
    run = ticket(world)
    for page in (page_of(client, run, sel="1.1", tab=tab), page_of(client, run, part="inspector", sel="1.1", tab=tab)):
        (box,) = re.findall(r'<aside class="card insp".*?</aside>', page, re.S)
        assert said in box


def test_a_step_is_shown_through_its_model_call(world: World, client: Client) -> None:
    page = page_of(client, ticket(world), part="inspector", sel="1")
    assert "Step 1" in words(page) and 'data-select="1.1"' in page and "Both charges share an invoice." in page


def test_who_decided_and_what_they_said_is_beside_the_call(world: World, client: Client) -> None:
    run, approval = waiting(world, needed=2)
    ApprovalDecision.objects.create(approval=approval, user=world.approver.user, verdict="approve", digest=DIGEST, reason="<u>fine</u>")
    assert "“&lt;u&gt;fine&lt;/u&gt;”" in page_of(client, run, part="inspector", sel="1.1", tab="policy")


@pytest.mark.parametrize("sel", ["9", "9.9", "1.1.policy", "x", "-1", "1.", ".", "1e3", "²", "99999999999999999999", "<script>"])
def test_a_selection_that_is_none_falls_back_to_what_blocks(world: World, client: Client, sel: str) -> None:
    run = ticket(world)
    assert selected(page_of(client, run, sel=sel)) == ["1.1"]
    assert 'data-at="1.1"' in page_of(client, run, part="inspector", sel=sel)


def test_what_is_selected_in_a_group_is_not_hidden(world: World, client: Client) -> None:
    run = running(world)
    turn(run, 1, tools=9)
    for n in range(1, 10):
        add_call(run, n, state=CallState.DISPATCHED, effect="read", name="search_docs")
    page = page_of(client, run, sel="1.4")
    (item,) = re.findall(r'<a class="wr[^>]*data-at="1.4"[^>]*>', page)
    assert "hidden" not in item and 'aria-level="3"' in item
    assert "hidden" in re.findall(r'<a class="wr[^>]*data-at="1.4"[^>]*>', page_of(client, run))[0]


# parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "region"), [("head", "run-head"), ("answer", "answer"), ("timeline", "timeline"), ("inspector", "inspector")]
)
def test_a_part_is_exactly_its_region_and_names_its_own_address(world: World, client: Client, part: str, region: str) -> None:
    run = ticket(world)
    page = page_of(client, run, part=part)
    assert re.match(rf'\s*<(section|aside) [^>]*id="{region}"', page) and page.rstrip().endswith(("</section>", "</aside>"))
    opening = re.findall(rf'<(?:section|aside) [^>]*id="{region}"[^>]*>', page_of(client, run))[0]
    assert f'data-live-topic="run:{run.run_id}"' in opening and f"{url(run)}?part={part}" in opening
    run.refresh_from_db()
    assert f'data-live-v="{run.seq}"' in opening


def test_the_timelines_address_keeps_what_was_loaded_and_chosen(world: World, client: Client) -> None:
    page = page_of(client, ticket(world), part="timeline", first=0, rows=400, sel="1")
    assert "part=timeline&amp;first=0&amp;rows=400&amp;sel=1" in page and selected(page) == ["1"]


@pytest.mark.parametrize("query", [{"rows": "x"}, {"part": "rows", "from": "-1"}, {"before": "all"}])
def test_a_number_that_is_none_is_refused(world: World, client: Client, query: dict[str, str]) -> None:
    page_of(client, queued(world), 400, **query)


def test_the_tail_has_every_event_in_order_and_the_seq_to_go_on_from(world: World, client: Client) -> None:
    run = ticket(world)
    page = page_of(client, run)
    run.refresh_from_db()
    seqs = [int(n) for n in re.findall(r'class="ev" id="seq-(\d+)"', page)]
    assert seqs == list(range(1, run.seq + 1)) and 'role="log"' in page
    (box,) = re.findall(r'<div class="evs"[^>]*>', page)
    assert f'data-live-seq="{run.seq}"' in box and "data-live-tail" in box and "data-live-start=" in box


def test_earlier_events_are_fetched_in_chunks_without_a_gap(world: World, client: Client) -> None:
    run = queued(world)
    story(run, *[("retry_scheduled", {"v": 1})] * 450)
    seqs: list[int] = []
    page = page_of(client, run)
    while True:
        seqs = [int(n) for n in re.findall(r'class="ev" id="seq-(\d+)"', page)] + seqs
        before = re.findall(r"part=tail&amp;before=(\d+)", page)
        if not before:
            break
        page = page_of(client, run, part="tail", before=before[0])
    assert seqs == list(range(1, 452))
    old = page_of(client, run, before=100)
    assert 'id="seq-99"' in old and 'id="seq-100"' not in old and "data-live-tail" not in old


# long and hostile runs ------------------------------------------------------------------------------------------------


def long_run(world: World, steps: int) -> Run:
    run = running(world)
    tenant = run.tenant_id
    Step.objects.bulk_create(Step(run=run, step=n, tenant_id=tenant, role="planner", model="m", calls=1) for n in range(1, steps + 1))
    common: dict[str, Any] = {"run": run, "tenant_id": tenant, "fence": 1, "effect": "read", "state": "dispatched"}
    Call.objects.bulk_create(Call(**common, step=n, ord=0, name="m") for n in range(1, steps + 1))
    Call.objects.bulk_create(Call(**common, step=n, ord=1, name="search_docs", args=b"{}") for n in range(1, steps + 1))
    Event.objects.bulk_create(
        Event(run=run, seq=n + 1, tenant_id=tenant, kind="model_call_started", payload={"step_id": n, "ord": 0}, at=timezone.now())
        for n in range(1, steps + 1)
    )
    Run.objects.filter(pk=run.pk).update(seq=steps + 1, step=steps)
    return over(run)


def test_a_run_of_500_steps_comes_in_chunks_and_none_is_lost(world: World, client: Client) -> None:
    run = long_run(world, 500)
    page = page_of(client, run, sel="1")
    found = rows(page)
    assert len(found) == 200
    while more := re.findall(r'hx-get="[^"]*part=rows&amp;from=(\d+)', page):
        page = page_of(client, run, **{"part": "rows", "from": more[0], "sel": "1"})
        found += rows(page)
    assert found == [key for n in range(1, 501) for key in (str(n), f"{n}.0", f"{n}.1")]


def test_the_selected_row_of_a_long_run_is_always_there(world: World, client: Client) -> None:
    run = long_run(world, 300)
    page = page_of(client, run, sel="290.1")
    found = rows(page)
    assert selected(page) == ["290.1"] and len(found) <= 200 and found[0] == "274"
    while earlier := re.findall(r'hx-get="[^"]*part=rows&amp;to=(\d+)', page):
        page = page_of(client, run, **{"part": "rows", "to": earlier[0]})
        found = rows(page) + found
    assert found == [key for n in range(1, 301) for key in (str(n), f"{n}.0", f"{n}.1")]
    assert rows(page_of(client, run, sel="30"))[0] == "1"
    assert len(rows(page_of(client, run))) == 200
    live = page_of(client, run, part="timeline", first="600", rows="250", sel="290.1")
    assert rows(live)[0] == "201" and len(rows(live)) == 250 and "first=600&amp;rows=250" in live


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e{{ 7|add:7 }}{% debug %}\x07\u2028"


def test_hostile_text_is_text_wherever_it_came_from(world: World, client: Client) -> None:
    run = running(world)
    RunInput.objects.filter(pk=run.pk).update(text=HOSTILE, data={HOSTILE: HOSTILE}, user={"id": HOSTILE}, metadata={"retry_of": HOSTILE})
    turn(run, 1, text=HOSTILE, tools=1)
    decision = {"decision": HOSTILE, "why": HOSTILE, "by": HOSTILE}
    add_call(
        run, 1, name=HOSTILE[:120], decision=decision, args=json.dumps({HOSTILE: HOSTILE}).encode(), state=CallState.DISPATCHED,
        result={"ok": False, "message": HOSTILE}, error_class="unknown",
    )  # fmt: skip
    Call.objects.filter(run=run, ord=0).update(result={"text": HOSTILE, "finish": HOSTILE, "calls": [{"name": HOSTILE}, 7, None]})
    story(run, ("tool_call_failed", {"tool": HOSTILE, "error_type": HOSTILE, "data": {"status": HOSTILE}, "step_id": 1, "ord": 1}))
    over(run, RunState.FAILED, "tool_error", answer_step=1, last_error={"message": HOSTILE, "error_type": HOSTILE, "tool": HOSTILE})
    pages = [page_of(client, run)]
    pages += [page_of(client, run, sel=sel, tab=tab) for sel in ("1", "1.1") for tab in ("summary", "args", "result", "policy", "raw")]
    for page in pages:
        assert "<script>alert" not in page and "<img" not in page and not set("\u202e\x07\u2028") & set(page)
        assert "&lt;script&gt;alert(1)" in page and "U+202E" in page and "{{ 7|add:7 }}" in page


@pytest.mark.parametrize("args", [None, b"", b"[1,2", b"\xff\xfe", b"null", b"[" * 3000 + b"]" * 3000])
def test_arguments_that_are_no_json_do_not_break_the_page(world: World, client: Client, args: bytes | None) -> None:
    run = running(world)
    turn(run, 1, tools=1)
    add_call(run, 1, args=args, state=CallState.BLOCKED, result=None)
    for tab in ("summary", "args", "raw"):
        page_of(client, run, sel="1.1", tab=tab)


def test_a_word_of_ten_thousand_characters_and_one_of_two_megabytes_are_cut_behind_a_link(world: World, client: Client) -> None:
    run = running(world)
    big = "W" * 2_000_000
    turn(run, 1, tools=1, text="V" * 10_000)
    add_call(run, 1, args=json.dumps({"body": big}).encode(), state=CallState.DISPATCHED, result={"ok": True, "echo": big})
    RunInput.objects.filter(pk=run.pk).update(text=big, data={"more": big})
    over(run, answer_step=1)
    for query in ({}, {"sel": "1.1"}, {"sel": "1.1", "tab": "result"}, {"sel": "1.1", "tab": "raw"}):
        page = page_of(client, run, **query)
        assert len(page) < 120_000 and "Load full (1.9 MB)" in page and "Load full (9.8 KB)" in page


@pytest.mark.parametrize(
    ("query", "whole"),
    [
        ({"of": "input"}, "<b>input</b>"),
        ({"of": "data"}, '{\n  "a": 1\n}'),
        ({"of": "answer"}, "<script>answer</script>"),
        ({"of": "result", "sel": "1"}, "<script>answer</script>"),
        ({"of": "args", "sel": "1.1"}, '{\n  "x": "\u202e"\n}'),
        ({"of": "result", "sel": "1.1"}, '{\n  "ok": true\n}'),
    ],
)
def test_a_whole_payload_is_plain_text_that_runs_nothing(world: World, client: Client, query: dict[str, str], whole: str) -> None:
    run = running(world)
    RunInput.objects.filter(pk=run.pk).update(text="<b>input</b>", data={"a": 1})
    turn(run, 1, tools=1, text="<script>answer</script>")
    add_call(run, 1, args='{"x":"\u202e"}'.encode(), state=CallState.DISPATCHED, result={"ok": True})
    over(run, answer_step=1)
    answer = client.get(url(run, part="payload", **query))
    assert (answer["Content-Type"], answer["X-Content-Type-Options"]) == ("text/plain; charset=utf-8", "nosniff")
    assert answer.content.decode() == whole and "script-src 'self'" in answer["Content-Security-Policy"]


@pytest.mark.parametrize(
    "query", [{}, {"of": "answer"}, {"of": "args", "sel": "7.7"}, {"of": "passwd", "sel": "1"}, {"of": "raw", "sel": "x"}]
)
def test_a_payload_that_is_not_there_does_not_exist(world: World, client: Client, query: dict[str, str]) -> None:
    assert client.get(url(queued(world), part="payload", **query)).status_code == 404


@pytest.mark.parametrize(
    ("query", "most"),
    [
        ({}, 18),
        ({"part": "head"}, 8),
        ({"part": "answer"}, 7),
        ({"part": "timeline"}, 8),
        ({"part": "inspector", "sel": "1.1"}, 10),
        ({"part": "tail"}, 6),
    ],
)
def test_the_queries_of_a_page_are_few_and_do_not_grow_with_the_run(world: World, client: Client, query: dict[str, str], most: int) -> None:
    def count(run: Run) -> int:
        with CaptureQueriesContext(connection) as seen:
            page_of(client, run, **query)
        return len(seen)

    small, large = ticket(world), ticket(world, idem_key="L" * 32)
    for step in range(2, 30):
        turn(large, step, tools=1)
        Call.objects.create(run=large, step=step, ord=1, tenant_id=large.tenant_id, fence=1, state="dispatched", name="x", effect="read")
    assert count(small) == count(large) <= most


def test_a_cancelled_run_says_by_whom(world: World, client: Client) -> None:
    run, _ = waiting(world)
    lifecycle.cancel(world.approver, run.id)
    assert f"Cancelled by {world.approver.user.username}" in words(page_of(client, run))
    assert encode("agt", run.id) == run.run_id
