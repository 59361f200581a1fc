"""Undoing on a run's page and over the API, and what a preview looks like to whoever decides."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from approvals.models import Approval
from console.previews import shown
from runs.models import Call, Run, Undo
from runs.states import CallState, RunState
from tests.console.past import browser, called, ended
from tests.runtime.waiting import World, add_call, make_world, person, running, waiting
from tools import catalog
from tools.models import Tool
from tools.spec import ToolSpec

from .callers import Caller, caller, refusal

SPEC: dict[str, Any] = {
    "adapter": {"kind": "http", "url": "https://desk.example.com/tickets"}, "description": "A ticket.", "effect": "write",
    "idempotency": "key", "input_schema": {"type": "object", "properties": {}, "additionalProperties": True},
}  # fmt: skip
UNDO = {"tool": "close_ticket", "args": {"ticket_id": "result.ticket_id"}}
ARGS = b'{"account_id":"acct_1001","priority":"urgent"}'
SEEN = {"at": "2026-03-02T09:14:07.000+00:00", "before": {"balance": 40, "note": "<b>x</b>", "owner": None}, "after": {"balance": 10}}


@pytest.fixture
def world(db: None) -> World:
    made = make_world()
    catalog.put(None, "close_ticket", ToolSpec.model_validate(SPEC))
    catalog.put(None, "create_ticket", ToolSpec.model_validate(SPEC | {"compensate": UNDO}))
    return made


@pytest.fixture
def client(world: World) -> Client:
    return browser(world.operator)


@pytest.fixture
def api(world: World) -> Caller:
    return caller(world.operator)


def made(world: World, ord: int = 1, state: str = "done") -> Run:
    """A run that has ended and opened a ticket."""
    run = ended(world, timedelta(minutes=1))
    version = Tool.objects.get(name="create_ticket").current_id
    result = {"ok": True, "ticket_id": "tkt_1"} if state == "done" else None
    called(run, ord, "create_ticket", state, effect="write", tool_version_id=version, args=ARGS, result=result)
    return run


def url(run: Run, query: str = "") -> str:
    return f"/runs/{run.run_id}/{query}"


def section(client: Client, run: Run, query: str = "?part=undo") -> str:
    return str(client.get(url(run, query)).content.decode())


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def over(run: Run, outcome: str, state: str) -> None:
    """The run that undoes, at its end, its call in this state."""
    add_call(run, state=CallState.DISPATCHED, name="close_ticket", attempt=1)
    Call.objects.filter(run_id=run.id).update(state=state)
    ending = RunState.SUCCEEDED if outcome == "completed" else RunState.FAILED
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=run.pk)
    Run.objects.filter(pk=run.pk).update(state=ending, owner=None, outcome=outcome, ended_at=Now())


@pytest.mark.mission("X8")
def test_a_change_that_can_be_undone_is_on_the_page_and_undone_with_a_reason(world: World, client: Client) -> None:
    run = made(world)
    page = section(client, run, "")
    said = words(page)
    assert "Open an urgent ticket for acct_1001" in said and "Undo this action…" in said and "1 of 1" in said
    answer = client.post(url(run), {"act": "undo", "call": "1.1", "reason": "opened by mistake"})
    second = Run.objects.exclude(pk=run.pk).select_related("asked").get()
    assert answer["Location"] == url(second) and second.starter_id == world.operator.user.pk
    after = words(section(client, run))
    assert "Being undone" in after and "opened by mistake" in after and second.run_id[:14] in after
    assert "Undo this action…" not in after
    undoing = client.get(url(second)).content.decode()
    assert f"Undoes a call of {run.run_id[:14]}" in words(undoing) and f'href="{url(run)}"' in undoing


@pytest.mark.mission("X8")
def test_what_became_of_an_undo_is_on_the_page_of_the_first_run(world: World, client: Client) -> None:
    run = made(world)
    client.post(url(run), {"act": "undo", "call": "1.1", "reason": "why not"})
    second = Run.objects.exclude(pk=run.pk).get()
    over(second, "approval_rejected", CallState.FAILED_NOT_APPLIED)
    assert 'data-open="retry-run"' not in section(client, second, "")  # it is asked for where it was asked for
    assert "which ended without undoing it" in words(section(client, run)) and "Undo this action…" in words(section(client, run))
    client.post(url(run), {"act": "undo", "call": "1.1", "reason": "again"})
    third = Run.objects.exclude(pk__in=(run.pk, second.pk)).get()
    over(third, "completed", CallState.DONE)
    said = words(section(client, run))
    assert "Undone" in said and third.run_id[:14] in said and "Undo this action…" not in said


@pytest.mark.mission("X8")
def test_without_scripts_the_question_about_an_undo_is_a_page(world: World, client: Client) -> None:
    run = made(world)
    assert 'class="card ask"' in section(client, run, "?ask=undo&call=1.1")
    for query in ("?ask=undo&call=9.9", "?ask=undo", "?ask=other&call=1.1"):
        assert 'class="card ask"' not in section(client, run, query)
    viewer = browser(person(world.tenant, "vera", "viewer"))
    page = section(viewer, run, "?ask=undo&call=1.1")
    assert 'class="card ask"' not in page and "Undo this action…" not in words(page) and "Open an urgent ticket" in words(page)
    assert viewer.post(url(run), {"act": "undo", "call": "1.1", "reason": "x"}).status_code in (302, 403)
    assert Undo.objects.count() == 0


@pytest.mark.parametrize("call", ["", "1", "x.1", "1.9", "1.0"])
def test_what_is_no_call_is_not_undone(world: World, client: Client, call: str) -> None:
    run = made(world)
    client.post(url(run), {"act": "undo", "call": call, "reason": "x"})
    assert Run.objects.count() == 1 and Undo.objects.count() == 0


def test_a_refusal_is_a_message_on_the_page(world: World, client: Client) -> None:
    run = made(world)
    page = client.post(url(run), {"act": "undo", "call": "1.1", "reason": " "}, follow=True).content.decode()
    assert "Say why it is undone" in page and Undo.objects.count() == 0


@pytest.mark.mission("X8")
def test_what_cannot_be_undone_has_no_button(world: World, client: Client) -> None:
    plain, late, lost = ended(world, timedelta(minutes=1)), made(world), made(world, state="unknown")
    called(plain, 1, "create_ticket", effect="write")
    Call.objects.filter(run_id=late.id).update(ended_at=Now() - timedelta(days=2))
    for run in (plain, late):
        assert 'id="run-undos" aria-labelledby="undos-title" hidden' in section(client, run)
    said = words(section(client, lost))
    assert "Settle it first" in said and "Undo this action…" not in said


# the API ----------------------------------------------------------------------------------------------------------------------


def compensation(api: Caller, run: Run) -> Any:
    (step,) = api.get(f"/runs/{run.run_id}/steps").json()["items"]
    return step["calls"][0]["compensation"]


@pytest.mark.mission("X8")
def test_a_write_is_undone_over_the_api_once(world: World, api: Caller) -> None:
    run = made(world)
    before = compensation(api, run)
    assert (before["available"], before["why"], before["tool"], before["run_id"]) == (True, None, "close_ticket", None)
    assert before["until"].endswith("Z")
    answer = api.post(f"/runs/{run.run_id}/steps/1/calls/1/undo", {"reason": "opened by mistake"})
    record = answer.json()
    assert answer.status_code == 202 and answer["Location"] == f"/api/v1/runs/{record['run_id']}"
    assert record["action"]["kind"] == "undo" and record["action"]["of"] == f"{run.run_id}.1.1"
    assert record["action"]["args"] == {"ticket_id": "tkt_1"}
    after = compensation(api, run)
    assert (after["available"], after["why"], after["run_id"], after["state"]) == (False, "undo_under_way", record["run_id"], "queued")
    again = api.post(f"/runs/{run.run_id}/steps/1/calls/1/undo", {"reason": "me too"})
    assert refusal(again) == (409, "undo_under_way") and again.json()["run_id"] == record["run_id"]
    assert refusal(api.post(f"/runs/{record['run_id']}/retry")) == (409, "run_not_retryable")


@pytest.mark.mission("X8")
@pytest.mark.parametrize(
    ("place", "body", "refused"),
    [
        ("1/calls/1", {}, (422, "reason_missing")),
        ("1/calls/1", {"reason": "x" * 2001}, (422, "validation")),
        ("1/calls/1", {"reason": "x", "more": 1}, (422, "validation")),
        ("1/calls/1", [], (422, "validation")),
        ("1/calls/0", {"reason": "x"}, (404, "not_found")),
        ("x/calls/1", {"reason": "x"}, (404, "not_found")),
        ("1/calls/-1", {"reason": "x"}, (404, "not_found")),
        ("1/calls/999999", {"reason": "x"}, (404, "not_found")),
    ],
)
def test_an_undo_that_is_none_is_refused(world: World, api: Caller, place: str, body: Any, refused: tuple[int, str]) -> None:
    run = made(world)
    assert refusal(api.post(f"/runs/{run.run_id}/steps/{place}/undo", body)) == refused
    assert Undo.objects.count() == 0


@pytest.mark.mission("X8", "P2.5")
def test_who_may_not_start_runs_undoes_nothing_and_another_tenants_calls_are_not_there(world: World, api: Caller) -> None:
    run, foreign = made(world), running(make_world("globex", "other"))
    assert refusal(api.post(f"/runs/{foreign.run_id}/steps/1/calls/1/undo", {"reason": "x"})) == (404, "not_found")
    viewer = caller(person(world.tenant, "vera", "viewer"))
    assert viewer.post(f"/runs/{run.run_id}/steps/1/calls/1/undo", {"reason": "x"}).status_code == 403
    assert compensation(viewer, run)["available"] is True
    reader = caller(world.operator, "runs:read")
    assert refusal(reader.post(f"/runs/{run.run_id}/steps/1/calls/1/undo", {"reason": "x"})) == (403, "scope_missing")


# previews ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X8")
def test_a_request_shows_what_it_would_change_as_text(world: World, client: Client) -> None:
    _, approval = waiting(world, preview=SEEN)
    page = client.get(f"/approvals/{approval.approval_id}/").content.decode()
    part = page.split('id="preview-title"')[1].split("</section>")[0]
    assert '<del><span class="sr">removed: </span>40</del>' in part and '<ins><span class="sr">added: </span>10</ins>' in part
    assert "&lt;b&gt;x&lt;/b&gt;" in part and "<b>x" not in part and "nothing" in part
    assert caller(world.operator).get(f"/approvals/{approval.approval_id}").json()["preview"] == SEEN


def test_a_request_says_why_it_shows_no_change_and_nothing_where_its_tool_has_none(world: World, client: Client) -> None:
    _, failed = waiting(world, preview={"at": SEEN["at"], "error": "timeout: no answer"})
    _, plain = waiting(world)
    assert "The tool could not say: timeout: no answer." in words(client.get(f"/approvals/{failed.approval_id}/").content.decode())
    assert "preview-title" not in client.get(f"/approvals/{plain.approval_id}/").content.decode()
    assert Approval.objects.get(pk=plain.pk).preview is None


def test_of_edited_arguments_nobody_knows_what_becomes_of_the_target() -> None:
    told = shown({"at": SEEN["at"], "before": {"balance": 40}})
    assert told and told["partial"] and [(row.before, row.after) for row in told["rows"]] == [("40", None)]
    assert shown(None) is None
