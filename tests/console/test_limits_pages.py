"""What people see of limits: the ladder, gauges, cost by role, drafts, requests for more budget and critiques."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from approvals.models import Approval, ApprovalDecision
from console import limits, rungs
from console.event_text import text
from console.pages.run_limits import gauges
from runs.models import Call, DraftDecision, Run, RunInput, Step
from runs.states import CallState, RunState
from tests.runtime.waiting import World, ask, make_world, park, person, running

from .past import HTMX, browser
from .test_run_page import over, page_of, story, turn, url, words

ARGS = {"account_id": "acct_1001", "priority": "urgent", "summary": "<b>twice</b>"}
QUESTION = {
    "add": {"max_cost_usd": "0.04"}, "limit": "max_cost_usd", "value": 0.08, "used": 0.0812, "step": 4,
    "spent": {"cost_usd": "0.079600", "steps": 4, "tool_calls": 1, "writes": 0},
}  # fmt: skip
RAISED = {"max_cost_micro": {"from": 80_000, "to": 120_000}, "max_steps": {"from": 2, "to": 5}}
ENTERED = {"n": 0, "on": "tool_unavailable", "do": "draft", "step": 1, "tool": "create_ticket"}


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def client(world: World) -> Client:
    return browser(world.operator)


def keep(run: Run, ord: int = 1, args: Any = ARGS) -> str:
    """A write that was kept as a draft; its id."""
    told = {"ok": False, "error_type": "drafted", "message": "Not sent: the tool is not available."}
    given: dict[str, Any] = {"name": "create_ticket", "effect": "write", "args": json.dumps(args).encode(), "error_class": "drafted"}
    Call.objects.create(run=run, step=1, ord=ord, tenant_id=run.tenant_id, fence=1, state=CallState.BLOCKED, result=told, **given)
    return f"{run.run_id}.1.{ord}"


def asking(world: World, question: dict[str, Any] = QUESTION) -> tuple[Run, Approval]:
    """A run that waits for more of its budget."""
    run = running(world)
    plan = [{"step": 1, "ord": 1, "tool": "search_docs"}]
    asked = {"tool": "", "tool_version_id": None, "effect": "budget", "kind": "budget", "why": "The run met a limit.", "evidence": plan}
    approval = ask(run, ord=0, args=json.dumps(question).encode(), step=question["step"], **asked)
    rung = {"n": 1, "on": "budget_exceeded", "do": "ask", "step": question["step"], "limit": question["limit"], "value": question["value"]}
    Run.objects.filter(pk=run.pk).update(rungs=[rung])
    park(run, RunState.WAITING_BUDGET)
    return run, approval


def at(approval: Approval, **query: str) -> str:
    return f"/approvals/{approval.approval_id}/" + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else "")


def shown(client: Client, path: str, status: int = 200, **headers: str) -> str:
    answer = client.get(path, headers=headers)
    assert answer.status_code == status, answer.content[:300]
    return str(answer.content.decode())


def grant(client: Client, approval: Approval, **said: str) -> Any:
    return client.post(at(approval), {"verdict": "approve", "digest": approval.digest} | said)


def limits_of(run: Run) -> dict[str, Any]:
    return dict(RunInput.objects.get(pk=run.pk).limits)


# words ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P6.2")
@pytest.mark.parametrize(
    ("rung", "said"),
    [
        (ENTERED, "Draft instead of act, because create_ticket was not available"),
        ({"on": "breaker_open", "do": "read_only", "tool": "crm"}, "Reads only, writes off, because the breaker of crm was open"),
        ({"on": "budget", "do": "fewer_steps", "last_step": 6, "share": 0.812, "limit": "max_cost_usd"},
         "Fewer steps, 6 at most, because 81 % of the cost was used"),
        ({"on": "budget_exceeded", "do": "single_turn", "limit": "max_tool_calls", "value": 4},
         "One last turn without tools, because the limit of tool calls (4) had no room for the next call"),
        ({"on": "budget_exceeded", "do": "ask", "limit": "max_cost_usd", "value": 0.08},
         "Ask for more, because the limit of cost ($0.08) had no room for the next call"),
        ({"on": "deadline_near", "do": "stop", "share": 1.4}, "Stop, because 100 % of the time was used"),
        ({"on": "provider_degraded", "do": "retrieval_only"}, "What was found instead of a written answer, because no model answered"),
        ({"on": "loop", "do": "cached"}, "An earlier answer instead of a new one, because the run repeated itself"),
        ({"on": "critique_failed", "do": "ask", "verdict": "unreadable"},
         "Ask before every write, because the critique could not be read"),
        ({"on": "policy_denied", "do": "draft", "tool": "send_email"}, "Draft instead of act, because send_email was denied"),
        ({"on": "approval_expired", "do": "stop", "tool": "crm"}, "Stop, because nobody decided about crm in time"),
        ({"on": "loop", "do": "cached", "missed": True}, "Passed over: there was no earlier answer, when the run repeated itself"),
        ({"on": "the_moon", "do": "howl"}, "Howl, because the moon"),
    ],
)  # fmt: skip
def test_a_rung_is_said_in_plain_words(rung: dict[str, Any], said: str) -> None:
    assert rungs.words(rung) == said


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        ("rung_entered", {"data": ENTERED}, "Draft instead of act, because create_ticket was not available"),
        ("rung_missed", {"data": {"on": "loop", "do": "cached"}}, "Passed over: there was no earlier answer, when the run repeated itself"),
        ("rung_left", {"data": {"n": 0, "on": "loop", "do": "draft"}}, "Draft instead of act"),
        ("rung_left", {"data": {"n": 0, "on": "budget_exceeded", "do": "ask"}}, "Ask a person"),
        ("loop_detected", {"tool": "crm", "data": {"times": 2, "seen": 3}}, "crm · asked 3 times · same answer as in step 3"),
        ("call_drafted", {"tool": "create_ticket", "data": {"attempt": 0}}, "create_ticket · kept for a person, not sent"),
        ("critique_decided", {"data": {"of": 2, "checks": "writes", "verdict": "fail", "reasons": 1}},
         "fail · writes of step 2 · 1 reason"),
        ("approval_requested", {"data": {"needed": 1, "limit": "max_cost_usd"}}, "more cost · needs 1 person"),
        ("budget_granted", {"data": {"by": "abe", "limits": RAISED}},
         "by abe · cost from $0.08 to $0.12 · steps from 2 to 5"),
    ],
)  # fmt: skip
def test_an_event_of_a_limit_is_one_line(kind: str, payload: dict[str, Any], said: str) -> None:
    assert text(kind, payload) == said


@pytest.mark.parametrize(
    ("add", "said"),
    [
        ({"max_cost_usd": "0.04"}, "$0.04 more"),
        ({"max_steps": 1}, "1 more step"),
        ({"max_input_tokens": 12000, "max_writes": 2}, "12,000 more input tokens and 2 more writes"),
        ({"max_cost_usd": "1.5", "max_steps": 2, "max_tool_calls": 1}, "$1.50 more, 2 more steps and 1 more tool call"),
    ],
)
def test_what_is_asked_for_reads_as_an_amount(add: dict[str, Any], said: str) -> None:
    assert limits.amounts(add) == said


# the run's page ---------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P6.2")
def test_the_ladder_stands_over_the_steps_and_missed_rungs_are_ticks(world: World, client: Client) -> None:
    run = running(world)
    assert 'class="ladder"' not in page_of(client, run)
    turn(run, 1, text="a")
    story(run, ("rung_missed", {"step_id": 1, "data": {"n": 0, "on": "loop", "do": "cached", "step": 1}}))
    story(run, ("rung_entered", {"step_id": 1, "data": {**ENTERED, "n": 1}}))
    turn(run, 2, text="b")
    live = page_of(client, run, part="timeline")
    (lane,) = re.findall(r'<ul class="ladder".*?</ul>', live, re.S)
    assert "Draft instead of act, because create_ticket was not available from step 1 on, still" in words(lane)
    assert "Passed over: there was no earlier answer" in words(lane)
    assert (len(re.findall('class="tick"', lane)), len(re.findall('class="rung"', lane))) == (1, 1)
    story(run, ("rung_left", {"step_id": 2, "data": {"n": 1, "on": "tool_unavailable", "do": "draft"}}))
    turn(run, 3, text="c")
    over(run, outcome="completed_degraded", answer_step=3)
    Run.objects.filter(pk=run.pk).update(ended_at=run.created_at + timedelta(seconds=20))
    ended = page_of(client, run, part="timeline")
    x, width = map(float, re.search(r'class="rung" x="([\d.]+)%" width="([\d.]+)%"', ended).groups())  # type: ignore[union-attr]
    assert 0 < x < x + width < 100 and ", still" not in words(ended)


@pytest.mark.mission("P5.1", "P5.2")
def test_the_gauge_of_the_limit_that_stopped_the_run_says_so(world: World, client: Client) -> None:
    stop = {"limit": "max_cost_usd", "value": 0.08, "used": 0.0812, "by": "primary", "step": 4}
    run = over(running(world), RunState.FAILED, "budget_exceeded", stop=stop, cost_micro=79_000, step=6)
    page = page_of(client, run)
    assert "Cost $0.079 / $0.080 Stopped Stopped here: $0.0812 of $0.08 by primary in step 4" in words(page)
    assert "Steps 6 / 6 Used up" in words(page) and words(page).count("Stopped here") == 1
    names = [one.name for one in gauges(run, run.ended_at)]  # type: ignore[arg-type]
    assert names == ["Cost", "Steps", "Tool calls", "Writes", "Input tokens", "Output tokens", "Wall clock"]
    assert 'aria-label="Cost: 98 percent of budget used, stopped the run"' in page


def test_a_run_that_ran_out_of_time_is_stopped_at_the_clock(world: World, client: Client) -> None:
    stop = {"limit": "run_s", "value": 20.0, "used": 20.3, "by": "clock", "step": 2}
    run = over(running(world), RunState.FAILED, "deadline_exceeded", stop=stop, deadline_at=Now())
    assert "Stopped here: 20s of 20s in step 2" in words(page_of(client, run))


@pytest.mark.mission("X7")
def test_a_limit_that_was_raised_says_from_where(world: World, client: Client) -> None:
    run, approval = asking(world)
    assert grant(browser(world.approver), approval).status_code == 303
    page = words(page_of(client, run, part="head"))
    assert "Cost $0.00 / $0.12 Raised from $0.08" in page


@pytest.mark.mission("P5.3")
def test_what_each_role_cost_is_a_table_and_an_unknown_cost_is_unknown(world: World, client: Client) -> None:
    run = running(world)
    assert re.search(r'id="run-roles"[^>]* hidden', page_of(client, run))
    for step, role, model, cost in ((1, "planner", "primary", 900), (2, "critique", "checker", 0)):
        turn(run, step, tokens_in=1200, tokens_out=5, cost_micro=cost, name=model)
        story(run, ("model_call_started", {"step_id": step, "ord": 0, "model": model, "data": {"attempt": 2, "role": role}}))
    Run.objects.filter(pk=run.pk).update(unpriced=True)
    page = words(page_of(client, run, part="roles"))
    assert "Planner primary 1 1.2k 5 $0.000900" in page and "Critique checker 1 1.2k 5 unknown" in page
    assert "$0.000900 or more in all" in page


@pytest.mark.mission("P6.1")
def test_a_draft_is_shown_with_its_arguments_and_is_carried_out_by_a_run_of_its_own(world: World, client: Client) -> None:
    run = over(running(world), outcome="completed_degraded")
    draft_id = keep(run)
    page = page_of(client, run)
    said = words(page)
    assert "1 recommended action was kept instead of sent" in said and "Open an urgent ticket for acct_1001 Not sent" in said
    assert "&lt;b&gt;twice&lt;/b&gt;" in page and "Not sent: the tool is not available." in said
    assert "It goes through the normal approval" in said and f'id="carry_out-{draft_id}"' in page
    answer = client.post(url(run), {"act": "carry_out", "draft": "1.1", "reason": "the desk is back"})
    made = Run.objects.exclude(pk=run.pk).get()
    assert answer["Location"] == url(made) and made.asked.action is not None and made.asked.action["of"] == draft_id
    after = page_of(client, run, part="drafts")
    assert f'href="{url(made)}"' in after and "carried this out" in words(after) and "<form" not in after
    carrying = page_of(client, made)
    assert f"Carries out a draft of {run.run_id[:14]}" in words(carrying) and f'href="{url(run)}"' in carrying


def test_a_draft_is_dismissed_where_it_was_listed_and_decided_only_once(world: World, client: Client) -> None:
    run = over(running(world))
    keep(run)
    answer = client.post(url(run), {"act": "dismiss", "draft": "1.1", "reason": "by phone", "from": "drafts"})
    assert answer["Location"] == "/drafts/" and DraftDecision.objects.get().reason == "by phone"
    assert "dismissed this" in words(page_of(client, run)) and "“by phone”" in page_of(client, run)
    again = client.post(url(run), {"act": "carry_out", "draft": "1.1"}, follow=True).content.decode()
    assert "has already decided" in again and Run.objects.count() == 1


@pytest.mark.parametrize("draft", ["", "1", "x.1", "1.9", "9.1"])
def test_what_is_no_draft_is_not_carried_out(world: World, client: Client, draft: str) -> None:
    run = running(world)
    client.post(url(run), {"act": "carry_out", "draft": draft})
    assert Run.objects.count() == 1 and DraftDecision.objects.count() == 0


def test_without_scripts_the_question_about_a_draft_is_a_page(world: World, client: Client) -> None:
    run = over(running(world))
    keep(run)
    page = page_of(client, run, ask="carry_out", draft="1.1")
    assert 'class="card ask" method="post"' in page and 'name="act" value="carry_out"' in page
    viewer = browser(person(world.tenant, "vera", "viewer"))
    assert "card ask" not in page_of(viewer, run, ask="carry_out", draft="1.1")
    assert "Open an urgent ticket" in page_of(viewer, run) and "data-open=" + '"carry_out' not in page_of(viewer, run)


def test_a_call_that_was_kept_is_no_failure_on_the_timeline(world: World, client: Client) -> None:
    run = running(world)
    turn(run, 1, tools=1)
    keep(run)
    page = page_of(client, run, sel="1.1")
    assert "Status Kept as a draft" in words(page) and "data-bad" not in page


@pytest.mark.mission("P6.1")
@pytest.mark.parametrize(
    ("rung", "said"),
    [
        ({"do": "cached", "exact": False, "age_s": 7200}, "gave 2h 00m earlier to the same question, written differently."),
        ({"do": "cached", "exact": True, "age_s": 0}, "gave just before to exactly the same question."),
        ({"do": "retrieval_only", "results": 2}, "it is what 2 reads of this run found, as they are."),
        ({"do": "single_turn"}, "Degraded answer One last turn without tools, because no model answered."),
    ],
)
def test_a_degraded_answer_says_where_it_comes_from(world: World, client: Client, rung: dict[str, Any], said: str) -> None:
    source = running(world)
    run = running(world)
    turn(run, 1, text="The answer")
    taken = {"n": 0, "on": "provider_degraded", "step": 1, "from": source.run_id} | rung
    page = page_of(client, over(run, outcome="completed_degraded", answer_step=1, rungs=[taken]), part="answer")
    assert said in words(page) and "Degraded answer" in page and "The answer" in page
    assert (url(source) in page) == (rung["do"] == "cached")
    whole = over(running(world), answer_step=1)
    assert "Degraded answer" not in page_of(client, whole, part="answer")


@pytest.mark.mission("X7")
def test_a_run_that_waits_for_budget_says_what_it_spent_and_leads_to_the_request(world: World, client: Client) -> None:
    run, approval = asking(world)
    page = page_of(client, run, part="head")
    assert "It asks for $0.04 more. It has $0.08, and the next call would bring it to $0.0812." in words(page)
    assert "So far: $0.0796, 4 steps, 1 tool call, 0 writes." in words(page)
    assert f'href="{at(approval)}"' in page and "Review request" in page
    assert "You started this run" in words(page_of(browser(world.starter), run, part="head"))
    Approval.objects.update(state="void")
    assert "Waiting for budget." in words(page_of(client, run, part="head"))


@pytest.mark.mission("P5.3")
@pytest.mark.parametrize(
    ("reply", "verdict", "said"),
    [
        ('{"verdict": "fail", "reasons": ["<i>no</i> refund was made"]}', "fail", "&lt;i&gt;no&lt;/i&gt; refund was made"),
        ('{"verdict": "pass", "reasons": []}', "pass", "Pass"),
        ("I like it", "unreadable", "No readable verdict"),
    ],
)
def test_a_critique_is_a_step_of_its_own_with_its_reasons(world: World, client: Client, reply: str, verdict: str, said: str) -> None:
    run = running(world)
    turn(run, 1, text="answer")
    turn(run, 2, text=reply)
    Step.objects.filter(run=run, step=2).update(role="critique")
    data = {"of": 1, "checks": "answer", "verdict": verdict, "reasons": 1}
    story(run, ("critique_decided", {"step_id": 2, "result": "ok" if verdict == "pass" else "denied", "data": data}))
    page = page_of(client, run, sel="2")
    title = {"pass": "pass", "fail": "fail", "unreadable": "no readable verdict"}[verdict]
    assert f"Critique: {title}" in words(page) and said in page
    assert ("data-bad" in page) == (verdict != "pass")


def test_steps_that_no_model_took_have_words_of_their_own(world: World, client: Client) -> None:
    run = running(world)
    turn(run, 1, text="from before", name="earlier_answer")
    Step.objects.filter(run=run, step=1).update(role="store", model="earlier_answer")
    page = words(page_of(client, run, sel="1"))
    assert "An earlier answer" in page and "Model None: it cost nothing" in page
    acting = running(world)
    Step.objects.create(run=acting, step=1, tenant_id=acting.tenant_id, role="action", model="", calls=1)
    Call.objects.create(run=acting, step=1, ord=1, tenant_id=acting.tenant_id, fence=1, name="create_ticket", effect="write", state="ready")
    assert "Effect Write" in words(page_of(client, acting, sel="1"))


# the inbox --------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X7")
def test_a_request_for_more_says_what_it_is_about_and_shows_nothing_of_a_tool(world: World) -> None:
    run, approval = asking(world)
    page = shown(browser(world.approver), at(approval))
    said = words(page)
    assert "More budget: support-triage asks for $0.04 more" in said and "<title" in page and "More budget · Approvals" in page
    assert "Spent so far $0.0796, 4 steps, 1 tool call, 0 writes" in said and "The next call would bring it to $0.0812" in said
    assert "Search docs" in said and "Calls so far" in said
    for gone in ('id="args-title"', "<dt>Tool</dt>", "exact-text", "is not sent."):
        assert gone not in page
    assert f"/runs/{run.run_id}/" in page and "Grant more?" in said
    assert "More budget: support-triage asks for $0.04 more" in shown(browser(world.approver), "/")


def test_the_confirm_step_has_a_field_for_every_limit_that_can_be_raised(world: World) -> None:
    _, approval = asking(world)
    page = shown(browser(world.approver), at(approval, confirm="approve"))
    fields = dict(re.findall(r'name="(add_\w+)"[^>]*value="([^"]*)"', page))
    assert fields.pop("add_max_cost_usd") == "0.04"
    assert set(fields.values()) == {""} and len(fields) == 5


@pytest.mark.mission("X7")
@pytest.mark.parametrize(
    ("typed", "cost", "steps"),
    [
        ({}, 120_000, 6),
        ({"add_max_cost_usd": "0.04"}, 120_000, 6),
        ({"add_max_cost_usd": "0.01"}, 90_000, 6),
        ({"add_max_cost_usd": " $0.02 ", "add_max_steps": "3"}, 100_000, 9),
        ({"add_max_cost_usd": "", "add_max_steps": "1"}, 80_000, 7),
    ],
)
def test_what_is_typed_is_what_is_granted(world: World, typed: dict[str, str], cost: int, steps: int) -> None:
    run, approval = asking(world)
    assert grant(browser(world.approver), approval, reason="go on", **typed).status_code == 303
    after = limits_of(run)
    assert (after["max_cost_micro"], after["max_steps"]) == (cost, steps)
    assert ApprovalDecision.objects.get().reason == "go on"
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


@pytest.mark.parametrize(
    "typed",
    [
        {"add_max_cost_usd": ""},
        {"add_max_cost_usd": "much"},
        {"add_max_steps": "1.5"},
        {"add_max_steps": "-1"},
        {"add_max_cost_usd": "NaN"},
    ],
)
def test_an_amount_that_is_none_is_refused_beside_its_field(world: World, typed: dict[str, str]) -> None:
    run, approval = asking(world)
    answer = grant(browser(world.approver), approval, **typed)
    page = answer.content.decode()
    assert answer.status_code == 422 and "Grant at least one amount" in page and 'aria-invalid="true"' in page
    assert f'value="{next(iter(typed.values()))}"' in page
    assert limits_of(run)["max_cost_micro"] == 80_000 and ApprovalDecision.objects.count() == 0


@pytest.mark.mission("P3.4")
def test_other_amounts_are_no_way_around_what_a_person_was_not_shown_or_may_not_decide(world: World) -> None:
    run, approval = asking(world)
    stale = browser(world.approver).post(at(approval), {"verdict": "approve", "digest": "0" * 64, "add_max_steps": "3"})
    assert stale.status_code == 409 and "What you were shown is not what would be sent" in stale.content.decode()
    mine = grant(browser(world.starter), approval, add_max_steps="3")
    assert mine.status_code == 403 and "You started this run, so somebody else must decide." in mine.content.decode()
    assert limits_of(run)["max_steps"] == 6


def test_to_reject_needs_a_reason_and_grants_nothing(world: World) -> None:
    run, approval = asking(world)
    client = browser(world.approver)
    assert client.post(at(approval), {"verdict": "reject", "digest": approval.digest}).status_code == 422
    assert (
        client.post(at(approval), {"verdict": "reject", "digest": approval.digest, "reason": "no", "add_max_steps": "3"}).status_code == 303
    )
    assert limits_of(run)["max_steps"] == 6
    approval.refresh_from_db()
    assert approval.state == "rejected"


def test_a_request_that_nobody_decided_grants_nothing(world: World) -> None:
    _, approval = asking(world)
    Approval.objects.update(expires_at=Now() - timedelta(seconds=1))
    assert "Nobody decided in time, so nothing is granted." in words(shown(browser(world.approver), at(approval)))


# the list of drafts -----------------------------------------------------------------------------------------------------------


def test_recommended_actions_are_a_tab_of_their_own_newest_first(world: World, client: Client) -> None:
    assert "No recommended action waits for a person." in shown(client, "/drafts/")
    made = [keep(over(running(world))) for _ in range(2)]
    page = shown(client, "/drafts/")
    assert re.findall(r'<article class="draft" id="draft-([^"]+)"', page) == made[::-1]
    assert re.search(r'aria-current="page">Recommended actions <span class="muted num">2</span>', page)
    assert re.search(r'href="/drafts/">Recommended actions <span class="muted num">2</span>', shown(client, "/approvals/"))
    run_id = made[0].partition(".")[0]
    client.post(f"/runs/{run_id}/", {"act": "dismiss", "draft": "1.1"})
    assert made[0] not in shown(client, "/drafts/") and made[0] in shown(client, "/drafts/?state=all")


def test_drafts_of_another_tenant_are_not_listed_and_a_viewer_may_only_read(world: World, client: Client) -> None:
    foreign = keep(over(running(make_world("globex", "other"))))
    mine = keep(over(running(world)))
    page = shown(client, "/drafts/?state=all")
    assert foreign not in page and mine in page
    viewer = shown(browser(person(world.tenant, "vera", "viewer")), "/drafts/")
    assert mine in viewer and "<dialog" not in viewer.split("<main")[1].split("</main")[0]


def test_older_drafts_are_behind_a_link(world: World, client: Client) -> None:
    run = over(running(world))
    made = [keep(run, ord) for ord in range(1, 28)]
    first = shown(client, "/drafts/")
    assert f"cursor={made[2]}" in first and made[1] not in re.findall(r'id="draft-([^"]+)"', first)
    rest = re.findall(r'id="draft-([^"]+)"', shown(client, f"/drafts/?cursor={made[2]}"))
    assert rest == [made[1], made[0]]
    assert client.get("/drafts/?cursor=nonsense").status_code == 400


def test_the_parts_of_the_page_answer_alone(world: World, client: Client) -> None:
    run = running(world)
    keep(run)
    for part, name in (("drafts", "run-drafts"), ("roles", "run-roles")):
        alone = client.get(url(run, part=part), headers=HTMX).content.decode().strip()
        assert alone.startswith("<section") and f'id="{name}"' in alone and "<html" not in alone
