"""Cancelling and retrying many runs: the exact list, one transaction for each run, and nothing twice."""

import hashlib
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django_q.models import OrmQ

from console import bulk_work, bulks, tasks
from console.api import run_search
from console.models import Bulk, BulkItem
from runs import lifecycle
from runs.models import Call, Event, Run, RunInput
from runs.states import RunState
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import new_id
from tenants.models import AuditEntry, Ceiling, Member
from tests.console.callers import caller, refusal
from tests.console.past import HTMX, browser
from tests.runtime.waiting import World, add_call, make_world, person, queued, running

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    return make_world()


def over(world: World, state: str = "failed", outcome: str = "model_error") -> Run:
    run = running(world)
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, outcome=outcome, ended_at=Now())
    return run


def started(actor: Actor, act: str, *runs: Run) -> Bulk:
    made = bulks.draft_of(actor, act, [run.run_id for run in runs])
    assert bulks.start(actor, made, "too many")
    return made


def became(bulk: Bulk) -> dict[str, str]:
    return {str(item): item.outcome for item in bulk.items.order_by("run_id")}


def state(run: Run) -> str:
    return Run.objects.values_list("state", flat=True).get(pk=run.pk)


@pytest.mark.mission("P5.1")
def test_what_is_acted_on_is_the_list_that_was_shown_and_nothing_else(world: World) -> None:
    waits, goes, ended = queued(world), running(world), over(world)
    made = bulks.draft_of(world.operator, "cancel", [run.run_id for run in (goes, ended, waits, waits)])
    listed = "\n".join(sorted(run.run_id for run in (waits, goes, ended)))
    assert made.total == 3 and made.sha256 == hashlib.sha256(listed.encode()).hexdigest()
    assert became(made) == {waits.run_id: "waiting", goes.run_id: "waiting", ended.run_id: "already"}
    later = queued(world)  # matches as well, and was not shown
    bulk_work.advance(made)
    assert state(waits) == RunState.QUEUED  # a draft does nothing
    assert bulks.start(world.operator, made, "wrong release")
    assert not bulk_work.advance(made)
    assert became(made) == {waits.run_id: "done", goes.run_id: "done", ended.run_id: "already"}
    assert (state(waits), state(later)) == ("cancelled", "queued")
    assert Run.objects.get(pk=goes.pk).cancel_requested and state(goes) == "running"
    made.refresh_from_db()
    assert made.state == Bulk.State.DONE and made.ended_at
    entry = AuditEntry.objects.get(action="bulk.started")
    told = entry.after or {}
    assert (entry.reason, told["acts_on"], told["sha256"]) == ("wrong release", 2, made.sha256)


def test_runs_are_taken_in_the_order_of_their_ids(world: World) -> None:
    runs = [queued(world) for _ in range(3)]
    made = started(world.operator, "cancel", *reversed(runs))
    assert bulk_work.step(made)
    assert [state(run) for run in runs] == ["cancelled", "queued", "queued"]


def test_a_worker_that_is_killed_leaves_its_run_as_it_was_and_the_next_one_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [over(world) for _ in range(4)]
    made = started(world.operator, "retry", *runs)
    assert bulk_work.advance(made, iter([False, False, True]).__next__)

    def killed(**_: Any) -> Any:  # after the run was made, before its outcome is written
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BulkItem.objects, "filter", killed)
        with pytest.raises(KeyboardInterrupt):
            bulk_work.step(Bulk.objects.get(pk=made.pk))
    assert RunInput.objects.filter(retry_of__isnull=False).count() == 2
    bulk_work.round()
    again = RunInput.objects.filter(retry_of__isnull=False).order_by("retry_of").values_list("retry_of", flat=True)
    assert list(again) == [run.pk for run in runs]
    assert set(became(made).values()) == {"done"}
    assert Bulk.objects.get(pk=made.pk).state == Bulk.State.DONE


def test_a_task_that_is_delivered_twice_does_nothing_twice(world: World) -> None:
    goes, failed = running(world), over(world)
    for made in (started(world.operator, "cancel", goes), started(world.operator, "retry", failed)):
        for _ in range(2):
            tasks.bulk(str(made.pk))
        bulk_work.round()
    assert Event.objects.filter(run=goes, kind="cancel_requested").count() == 1
    again = BulkItem.objects.get(run_id=failed.pk)
    assert RunInput.objects.get(retry_of=failed.pk).run_id == again.made_id and again.words.startswith("Started again as agt_")
    assert not bulks.start(world.operator, again.bulk, "once more")


def test_starting_wakes_a_task_once_it_is_committed(world: World, django_capture_on_commit_callbacks: Any) -> None:
    run, before = queued(world), OrmQ.objects.count()
    with django_capture_on_commit_callbacks(execute=True):
        started(world.operator, "cancel", run)
        assert OrmQ.objects.count() == before
    assert OrmQ.objects.count() == before + 1


def test_rights_that_are_lost_in_between_end_it_with_words(world: World) -> None:
    runs = [queued(world) for _ in range(3)]
    made = started(world.operator, "cancel", *runs)
    bulk_work.step(made)
    Member.objects.filter(user=world.operator.user).update(role="viewer")
    bulk_work.advance(made)
    assert list(became(made).values()) == ["done", "could_not", "could_not"]
    assert [state(run) for run in runs] == ["cancelled", "queued", "queued"]
    assert "may not act on runs here any more" in made.items.order_by("run_id")[2].words


def test_a_key_without_the_scope_gets_nothing_by_way_of_the_background(world: World) -> None:
    made = started(Actor(world.operator.user, world.tenant, "operator", frozenset({"runs:write"})), "cancel", queued(world))
    Bulk.objects.filter(pk=made.pk).update(scopes=["runs:read"])
    bulk_work.advance(Bulk.objects.get(pk=made.pk))
    assert list(became(made).values()) == ["could_not"]


def test_what_cannot_be_tried_again_is_left_out_when_the_list_is_made(world: World) -> None:
    good, live, wrote, named, fine = over(world, "succeeded", "completed"), queued(world), over(world), over(world), over(world)
    add_call(wrote, state="dispatched")
    Call.objects.filter(run=wrote).update(state="unknown", error_class="lost")
    RunInput.objects.filter(pk=named.pk).update(action={"kind": "draft"})
    made = bulks.draft_of(world.operator, "retry", [run.run_id for run in (good, live, wrote, named, fine)])
    assert list(became(made).values()).count("could_not") == 4 and became(made)[fine.run_id] == "waiting"
    for run in (good, live, wrote, named):  # and the one that acts agrees with the list
        with pytest.raises(Refused):
            lifecycle.retry(world.operator, run.pk)


def test_a_quota_holds_the_rest_up_and_it_goes_on_by_itself(world: World) -> None:
    runs = [over(world) for _ in range(3)]
    made = started(world.operator, "retry", *runs)
    full = Ceiling.objects.create(tenant=world.tenant, kind=Ceiling.Kind.CONCURRENT, value=1)
    bulk_work.round()
    made.refresh_from_db()
    assert made.state == Bulk.State.RUNNING and made.held_up and bulks.tally(made)["waiting"] == 2
    full.delete()
    bulk_work.round()
    made.refresh_from_db()
    assert made.state == Bulk.State.DONE and not made.held_up and bulks.tally(made)["done"] == 3


def test_stopping_leaves_the_rest_untouched(world: World) -> None:
    runs = [queued(world) for _ in range(3)]
    made = started(world.operator, "cancel", *runs)
    bulk_work.step(made)
    assert bulks.stop(world.approver, made) and not bulks.stop(world.approver, made)
    bulk_work.round()
    assert bulks.tally(made) == {"waiting": 0, "done": 1, "already": 0, "could_not": 0, "untouched": 2}
    assert [state(run) for run in runs] == ["cancelled", "queued", "queued"]
    assert AuditEntry.objects.get(action="bulk.stopped").after == {"untouched": 2}


def test_another_tenants_run_is_a_run_that_is_not_there(world: World) -> None:
    foreign = queued(make_world("globex", "other-agent"))
    made = started(world.operator, "cancel", foreign)
    bulk_work.advance(made)
    assert (state(foreign), made.items.get().words, made.items.get().was) == ("queued", bulks.NO_SUCH_RUN, "")


def test_runs_of_several_tenants_are_the_platforms_business(world: World) -> None:
    root = person(world.tenant, "root", "admin", platform=True)
    other = make_world("globex", "other-agent")
    mine, theirs = queued(world), queued(other)
    both = started(root, "cancel", mine, theirs)
    only = bulks.draft_of(root, "cancel", [theirs.run_id])
    assert (both.tenant_id, only.tenant_id) == (None, other.tenant.pk)
    assert bulks.start(root, only, "r")
    assert both not in bulks.visible(world.operator) and only in bulks.visible(other.operator)
    bulk_work.round()
    assert (state(mine), state(theirs)) == ("cancelled", "cancelled")


MANY = [str(number) for number in range(10_001)]


@pytest.mark.parametrize(("ids", "code"), [([], "nothing_chosen"), (["agt_x"], "bad_run"), (MANY, "too_many_runs")])
def test_a_list_that_cannot_be_meant_is_refused(world: World, ids: list[str], code: str) -> None:
    with pytest.raises(Refused) as refused:
        bulks.draft_of(world.operator, "cancel", ids)
    assert refused.value.code == code


def test_many_runs_are_listed_without_being_loaded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = queued(world)
    first.refresh_from_db()
    fields = {field.attname: getattr(first, field.attname) for field in Run._meta.concrete_fields if field.attname != "id"}
    rows = Run.objects.bulk_create([Run(id=new_id(), **fields) for _ in range(300)])
    with CaptureQueriesContext(
        connection,
    ) as asked:
        made = bulks.draft_matching(world.operator, "cancel", Run.objects.filter(tenant=world.tenant), "State is Queued")
    assert made.total == len(rows) + 1 and len(asked) < 15
    assert not any("run_input" in query["sql"] for query in asked)
    monkeypatch.setattr(bulks, "MOST", 300)
    with pytest.raises(Refused, match="Narrow the filter") as refused:
        bulks.draft_matching(world.operator, "cancel", Run.objects.filter(tenant=world.tenant), "State is Queued")
    assert refused.value.code == "too_many_runs" and Bulk.objects.count() == 1
    Run.objects.filter(pk__in=[row.pk for row in rows]).delete()


def test_a_list_that_nobody_started_is_gone_after_a_day(world: World) -> None:
    old = bulks.draft_of(world.operator, "cancel", [queued(world).run_id])
    Bulk.objects.filter(pk=old.pk).update(created_at=Now() - bulks.DRAFTS_KEPT * 2)
    assert old not in bulks.visible(world.approver)
    bulks.draft_of(world.operator, "cancel", [queued(world).run_id])
    assert not Bulk.objects.filter(pk=old.pk).exists()


# over HTTP --------------------------------------------------------------------------------------------------------------------


def test_the_api_takes_a_list_once_and_tells_what_became_of_each(world: World) -> None:
    api, run, ended = caller(world.operator), queued(world), over(world)
    foreign = queued(make_world("globex", "other-agent"))
    body = {"act": "cancel", "runs": [run.run_id, ended.run_id, foreign.run_id], "reason": "wrong release"}
    first = api.post("/runs/bulk", body, Idempotency_Key="once")
    again = api.post("/runs/bulk", body, Idempotency_Key="once")
    assert (first.status_code, again.status_code) == (202, 202) and again["Idempotent-Replayed"] == "true"
    assert again.json()["id"] == first.json()["id"] and first["Location"].endswith(first.json()["id"]) and Bulk.objects.count() == 1
    assert refusal(api.post("/runs/bulk", body | {"act": "retry"}, Idempotency_Key="once")) == (422, "idempotency_key_reused")
    bulk_work.round()
    told = api.get(f"/runs/bulk/{first.json()['id']}?limit=2").json()
    assert told["state"] == "done" and told["outcomes"] == {"waiting": 0, "done": 1, "already": 1, "could_not": 1, "untouched": 0}
    rest = api.get(f"/runs/bulk/{first.json()['id']}?cursor={told['next_cursor']}").json()
    items = {item["run_id"]: item["outcome"] for item in [*told["items"], *rest["items"]]}
    assert items == {run.run_id: "done", ended.run_id: "already", foreign.run_id: "could_not"} and rest["next_cursor"] is None
    narrow = api.get(f"/runs/bulk/{first.json()['id']}?outcome=could_not").json()["items"]
    assert [item["words"] for item in narrow] == [bulks.NO_SUCH_RUN]
    other = caller(make_world("third", "third-agent").operator)
    assert refusal(other.get(f"/runs/bulk/{first.json()['id']}")) == (404, "not_found")


@pytest.mark.parametrize("more", [{"runs": []}, {"runs": ["x"]}, {"act": "promote"}, {"reason": ""}, {"reason": "  "}, {"filter": {}}])
def test_a_body_that_cannot_be_meant_is_refused(world: World, more: dict[str, Any]) -> None:
    body = {"act": "cancel", "runs": [queued(world).run_id], "reason": "r"} | more
    assert caller(world.operator).post("/runs/bulk", body).status_code == 422 and Bulk.objects.count() == 0


def test_a_page_shows_the_list_asks_for_a_reason_and_starts_that_list(world: World) -> None:
    client, run, ended = browser(world.operator), queued(world), over(world)
    shown = client.post("/runs/bulk/", {"act": "cancel", "run": [run.run_id, ended.run_id]}, follow=True)
    page, url = shown.content.decode(), shown.redirect_chain[0][0]
    for words in (
        "Cancel 1 run?",
        "Keep them running",
        "Will be cancelled",
        "Left alone",
        "It has ended already.",
        run.run_id,
        ended.run_id,
    ):
        assert words in page
    assert browser(world.approver).get(url).status_code == 404  # it is its maker's alone until it is started
    assert "Say why" in client.post(url, {"act": "start", "reason": " "}).content.decode()
    assert client.post(url, {"act": "start", "reason": "=cmd()"}).status_code == 302
    bulk_work.round()
    page = browser(world.approver).get(url).content.decode()
    assert "Cancelled: 1" in page and "Had ended: 1" in page and "hx-trigger" not in page
    assert ended.run_id not in client.get(f"{url}?outcome=done").content.decode()
    lines = client.get(f"{url}file/").content.decode().splitlines()
    assert lines[0] == '"run_id","was","outcome","words","new_run_id","at"' and len(lines) == 3
    assert "Cancel 2 runs" in client.get("/runs/bulk/").content.decode()


def test_more_than_twenty_are_confirmed_by_typing_their_number(world: World) -> None:
    client, runs = browser(world.operator), [queued(world) for _ in range(21)]
    asked = client.post("/runs/bulk/", {"act": "cancel", "run": [run.run_id for run in runs]}, headers=HTMX)
    assert 'data-typed="21"' in asked.content.decode() and "<html" not in asked.content.decode()
    url = f"/runs/bulk/{Bulk.objects.get()}/"
    refused = client.post(url, {"act": "start", "reason": "r", "typed": "20"}, headers=HTMX)
    assert refused.status_code == 422 and "Type 21" in refused.content.decode()
    assert client.post(url, {"act": "start", "reason": "r", "typed": "21"}, headers=HTMX)["HX-Redirect"] == url
    assert Bulk.objects.get().state == Bulk.State.RUNNING


def test_a_text_is_looked_for_in_as_many_runs_as_one_page_of_the_list_reads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, runs = browser(world.operator), [queued(world) for _ in range(3)]
    RunInput.objects.filter(pk__in=[run.pk for run in runs]).update(text="needle")
    asked = {"act": "cancel", "q": "needle"}
    assert "newest" not in client.get("/runs/bulk/matching/?q=needle").content.decode()
    monkeypatch.setattr(run_search, "LOOKED_AT", 2)
    page = client.get("/runs/bulk/matching/?q=needle").content.decode()
    assert "All 2 runs that match" in page and "looked for in the newest" in page
    assert client.post("/runs/bulk/matching/", asked).status_code == 302
    made = Bulk.objects.get()
    assert {str(item) for item in made.items.all()} == {run.run_id for run in runs[1:]} and "newest" in made.words
    assert "All 3 runs that match" in client.get("/runs/bulk/matching/?state=queued").content.decode()


def test_all_that_match_takes_a_filter_and_freezes_what_matches_then(world: World) -> None:
    client, run = browser(world.operator), queued(world)
    over(world)
    for query in ("", "mode=any", "q=%20", "cursor=x"):
        refused = client.get(f"/runs/bulk/matching/?{query}")
        assert refused.status_code == 422 and "Choose a filter first" in refused.content.decode()
    assert client.post("/runs/bulk/matching/", {"act": "cancel"}).status_code == 422
    page = client.get("/runs/bulk/matching/?state=queued&agent=!nobody").content.decode()
    assert "State is Queued, agent is not nobody, rehearsals left out." in page and "All 1 run that match" in page
    assert "Select all 1 matching" in client.get("/runs/bulk/matching/?state=queued&part=link").content.decode()
    answer = client.post("/runs/bulk/matching/", {"act": "cancel", "state": "queued"})
    made = Bulk.objects.get()
    assert answer["Location"] == f"/runs/bulk/{made}/" and [str(item) for item in made.items.all()] == [run.run_id]
    assert client.post("/runs/bulk/matching/", {"act": "cancel", "state": "quarantined"}).status_code == 422
    assert Bulk.objects.count() == 1
