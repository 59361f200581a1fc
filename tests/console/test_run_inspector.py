"""A run's tree, inspector and tail: each part by its address, hostile text, long runs."""

import json
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from approvals.models import ApprovalDecision
from runs import lifecycle
from runs.models import Call, Event, Run, RunInput, Step
from runs.states import CallState, RunState
from tenants.ids import encode
from tests.runtime.waiting import DIGEST, World, add_call, ask, park, queued, running, waiting

from .test_run_page import client, over, page_of, rows, selected, story, turn, url, words, world

__all__ = ["client", "world"]


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
