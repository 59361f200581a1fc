"""The pages of unknown writes: what is shown in each state, who gets the buttons, and what becomes of a word. And the doctor's card."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule

from console import tasks
from console.models import Examination
from runs import reconcile
from runs.models import Call, Run, UnknownWrite
from runs.states import CallState, RunState
from tests.runtime.waiting import World, call_of, kinds, make_world, park, person, running

from .past import HTMX, browser, called

MAIL = {"to": "ann@example.com", "subject": "Your account", "body": "Hello"}
MINUTE = timedelta(minutes=1)


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def otto(world: World) -> Client:
    return browser(world.operator)


def unknown(world: World, *, args: Any = MAIL, over: timedelta = -MINUTE, error: str = "timeout", **values: Any) -> UnknownWrite:
    """A mail whose outcome is unknown, its run parked for it; `over`: when its send has to be over, from now."""
    run = running(world)
    call = called(
        run, 1, "send_email", "unknown", args=json.dumps(args).encode(), idem_key=None, error_class=error,
        dispatched_at=timezone.now() - 2 * MINUTE, send_deadline=timezone.now() + over,
    )  # fmt: skip
    park(run, RunState.NEEDS_RECONCILIATION)
    assert reconcile.open_cases() == 1
    UnknownWrite.objects.filter(run_id=run.id).update(**values)
    return UnknownWrite.objects.get(run_id=call.run_id)


def url(case: UnknownWrite, query: str = "") -> str:
    return f"/unknowns/{case.unknown_id}/{query}"


def shown(client: Client, path: str, status: int = 200, **headers: str) -> str:
    answer = client.get(path, headers=headers)
    assert answer.status_code == status, answer.content[:500]
    return str(answer.content.decode())


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page)).strip()


def part(page: str, id: str) -> str:
    """The text of the region with this id, up to the next section's end."""
    at = page.index(f'id="{id}"')
    return text_of(page[page.rindex("<", 0, at) :].split("</section>")[0]).replace("&#x27;", "'")


def run_of(case: UnknownWrite) -> Run:
    return Run.objects.get(id=case.run_id)


def say(client: Client, case: UnknownWrite, result: str = "applied", evidence: str = "It is in the outbox.", **more: str) -> Any:
    return client.post(url(case), {"result": result, "evidence": evidence} | more)


# the list ---------------------------------------------------------------------------------------------------------------------


def test_lists_without_cases_say_so(otto: Client) -> None:
    assert "No write's outcome is unknown." in shown(otto, "/unknowns/")
    assert "No case has been settled yet." in shown(otto, "/unknowns/?tab=settled")


def test_open_cases_stand_oldest_first_with_how_far_they_got(world: World, otto: Client) -> None:
    first = unknown(world)
    probes = [{"at": "2026-01-01T00:00:00+00:00", "verdict": "cannot_tell", "detail": "?"}]
    second = unknown(world, error="lost", probes=probes, next_probe_at=timezone.now() + MINUTE)
    page = shown(otto, "/unknowns/")
    assert re.findall(r'id="row-(\w+)"', page) == [first.unknown_id, second.unknown_id]
    rows = [text_of(row) for row in page.split('id="row-')[1:]]
    for words in ("Needs a person", "support-triage", "1 send · timeout", "no probe", "Send an email to ann@example.com"):
        assert words in rows[0]
    for words in ("Being checked", "1 send · lost", "1, the last: cannot tell", "next"):
        assert words in rows[1]


def test_settled_cases_stand_in_their_tab_with_how_and_by_whom(world: World, otto: Client) -> None:
    cases = [unknown(world) for _ in range(3)]
    reconcile.resolve(world.operator, cases[0].id, result="applied", evidence="seen")
    reconcile.settle(cases[1].id, reconcile.Settlement("not_applied", "verified", "asked"))
    page = shown(otto, "/unknowns/?tab=settled")
    assert re.findall(r'id="row-(\w+)"', page) == [cases[1].unknown_id, cases[0].unknown_id]
    rows = [text_of(row) for row in page.split('id="row-')[1:]]
    assert "Not applied" in rows[0] and "by the tool's own check" in rows[0].replace("&#x27;", "'")
    assert "Applied" in rows[1] and f"by a person, {world.operator.user.username}" in rows[1]
    assert re.findall(r'id="row-(\w+)"', shown(otto, "/unknowns/")) == [cases[2].unknown_id]
    assert f"cursor={cases[1].unknown_id}" in shown(otto, "/unknowns/?tab=settled&limit=1")
    older = shown(otto, f"/unknowns/?tab=settled&cursor={cases[1].unknown_id}")
    assert re.findall(r'id="row-(\w+)"', older) == [cases[0].unknown_id]


def test_another_tenants_cases_are_nowhere(world: World, otto: Client) -> None:
    other = unknown(make_world("globex", "other"))
    assert other.unknown_id not in shown(otto, "/unknowns/")
    assert otto.get(url(other)).status_code == say(otto, other).status_code == 404
    assert otto.get("/unknowns/nonsense/").status_code == 404
    other.refresh_from_db()
    assert other.result == ""
    assert "/sign-in/" in Client().get(url(other))["Location"]


def test_the_navigation_names_them_only_while_there_are_open_ones(world: World, otto: Client, django_assert_num_queries: Any) -> None:
    def labels() -> list[tuple[str, int, str]]:
        nav = otto.get("/unknowns/").context["nav"]
        return [(item["label"], item["count"], item["tone"]) for item in nav[0]["items"] if item["url"] == "/unknowns/"]

    assert labels() == []
    case = unknown(world)
    unknown(make_world("globex", "other"))
    assert labels() == [("Unknown writes", 1, "bad")]
    reconcile.resolve(world.operator, case.id, result="applied", evidence="seen")
    assert labels() == []


@pytest.mark.parametrize(
    ("query", "id"), [("?part=list", "unknowns-list"), ("?part=status", "unknown-status"), ("?part=known", "unknown-known")]
)
def test_a_region_answers_alone_without_the_form(world: World, otto: Client, query: str, id: str) -> None:
    case = unknown(world)
    page = shown(otto, "/unknowns/" + query if id == "unknowns-list" else url(case, query), **HTMX).strip()
    assert re.match(rf'<(div|section)[^>]* id="{id}"', page) and page.count(f'id="{id}"') == 1
    assert "<html" not in page and "<form" not in page and 'data-live-topic="runs"' in page
    reconcile.resolve(world.operator, case.id, result="applied", evidence="seen")
    if id != "unknowns-list":
        assert "data-live-topic" not in shown(otto, url(case, query), **HTMX)


# one case ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("timeout", "and its answer never came."),
        ("invalid_output", "and its answer could not be understood."),
        ("lost", "and the engine that sent it never said what came of it."),
    ],
)
def test_the_page_says_plainly_what_is_not_known(world: World, otto: Client, error: str, words: str) -> None:
    case = unknown(world, error=error)
    said = part(shown(otto, url(case)), "unknown-status")
    assert "send_email was sent at " in said and words in said
    assert "Nothing is sent again until its outcome is known." in said


def test_it_says_since_when_or_until_when_it_may_be_on_its_way(world: World, otto: Client, settings: Any) -> None:
    settings.LEASE_TTL_S = 300
    assert "nothing of it can be on its way any more" in part(shown(otto, url(unknown(world))), "unknown-status")
    for case in (unknown(world, over=MINUTE), unknown(world, error="lost")):
        assert "it may still be on its way" in part(shown(otto, url(case)), "unknown-status")
    known = part(shown(otto, url(case)), "unknown-known")
    assert "The send had to be over by then" in known and "From then on nothing of it can be on its way" in known


def test_what_was_sent_is_shown_whole_and_nothing_in_it_is_invisible_or_markup(world: World, otto: Client) -> None:
    args = {"to": "a\u202eb@example.com", "body": "<script>alert(1)</script>" + "x" * 5000 + "END", "n": 3}
    case = unknown(world, args=args)
    UnknownWrite.objects.filter(id=case.id).update(tool="send<b>email")
    Call.objects.filter(run_id=case.run_id, ord=1).update(idem_key="K" * 32)
    page = shown(otto, url(case))
    assert "<script>alert" not in page and "<b>email" not in page
    assert "&lt;script&gt;" in page and "xEND" in page and "U+202E" in page and "\\u202e" in page and "\u202e" not in page
    assert "K" * 32 in page and "<small>number</small>" in page


def test_everything_known_stands_in_order(world: World, otto: Client) -> None:
    probes = [
        {"at": (timezone.now() + timedelta(seconds=5 + n)).isoformat(), "verdict": verdict, "detail": f"<i>{n}"}
        for n, verdict in enumerate(("cannot_tell", "not_applied", "odd"))
    ]
    case = unknown(world, probes=probes, next_probe_at=timezone.now() + MINUTE)
    run = run_of(case)
    seen = {"step": 1, "ord": 1, "attempt": 1, "applied": None, "result": None, "error_class": "timeout"}
    reconcile.observe(run.tenant_id, run.id, 1, [seen, seen | {"applied": False}])
    said = part(shown(otto, url(case)), "unknown-known")
    marks = (
        "Sent", "The send had to be over by then", "Unknown: this case was opened", "The tool's check cannot tell", "&lt;i&gt;0",
        "The tool's check says: not applied", "&lt;i&gt;2", "The tool's check is asked again",
    )  # fmt: skip
    assert sorted(marks, key=said.index) == list(marks)
    for words in ("it did not know either", "it was not applied", "3 probes"):
        assert words in said


def test_attempts_come_from_the_events(world: World, otto: Client) -> None:
    from runs.events import Kind, event
    from runs.history import append

    case = unknown(world)
    run = run_of(case)
    place = {"step_id": 1, "ord": 1, "tool": "send_email"}
    started = event(Kind.TOOL_CALL_STARTED, **place, data={"attempt": 1})
    failed = event(
        Kind.TOOL_CALL_FAILED, **place, result="error", error_type="timeout", latency_ms=5000, data={"attempt": 1, "status": 502}
    )
    append(run, [started, failed])
    error = {"step": 1, "tool": "send_email", "error_type": "timeout", "message": "it hung up"}
    Run.objects.filter(id=run.id).update(seq=run.seq, last_error=error)
    said = part(shown(otto, url(case)), "unknown-known")
    assert "Sent, attempt 1" in said and "No usable answer after 5.0s" in said and "timeout, status 502: it hung up" in said


def test_a_case_whose_call_is_gone_can_still_be_read(world: World, otto: Client) -> None:
    case = unknown(world)
    Call.objects.filter(run_id=case.run_id).delete()
    page = shown(otto, url(case))
    assert "The record of the call is gone." in page and "The record of what was sent is gone." in page
    assert "its record is gone" in shown(otto, "/unknowns/")


# a person's word --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("result", "state"), [("applied", CallState.DONE), ("not_applied", CallState.FAILED_NOT_APPLIED)])
def test_a_word_with_evidence_settles_it_and_the_run_goes_on(world: World, otto: Client, result: str, state: str) -> None:
    case = unknown(world)
    answer = say(otto, case, result, "  I saw\r\nit.  ")
    assert (answer.status_code, answer["Location"]) == (303, url(case))
    case.refresh_from_db()
    assert (case.result, case.how, case.settled_by, case.evidence) == (result, "person", world.operator.user.username, "I saw\nit.")
    assert call_of(run_of(case)).state == state and run_of(case).state == RunState.QUEUED
    assert "tool_call_reconciled" in run_of(case).events.values_list("kind", flat=True)
    page = shown(otto, url(case))
    words = "applied" if result == "applied" else "not applied"
    assert f"Recorded: send_email was {words}." in page and f"send_email was {words}." in part(page, "unknown-status")
    assert "I saw" in page and 'name="result"' not in page and 'data-open="confirm' not in page


def test_sending_again_is_said_with_not_applied_only(world: World, otto: Client) -> None:
    case = unknown(world)
    page = shown(otto, url(case))
    assert page.count('name="resend"') == 1 and 'name="resend"' not in shown(otto, url(case, "?confirm=applied"))
    refused = say(otto, case, "applied", "kept words", resend="1")
    assert refused.status_code == 422 and b"kept words" in refused.content
    assert say(otto, case, "not_applied", resend="1").status_code == 303
    assert (call_of(run_of(case)).decision or {})["resend"] is True and "It may be sent again." in shown(otto, url(case))


@pytest.mark.parametrize("verdict", ["applied", "not_applied"])
def test_without_scripts_the_confirm_step_is_in_the_page(world: World, otto: Client, verdict: str) -> None:
    case = unknown(world)
    assert f'href="?confirm={verdict}"' in shown(otto, url(case))
    page = shown(otto, url(case, f"?confirm={verdict}"))
    assert page.count(f'name="result" value="{verdict}"') == 1 and 'class="dlg decide"' not in page
    assert 'name="result"' in shown(otto, url(case, "?confirm=nonsense"))


@pytest.mark.parametrize(("evidence", "words"), [(" \n", "Say what you saw"), ("y" * 4001, "At most 4,000 characters")])
def test_a_word_without_fitting_evidence_is_refused_beside_the_field(world: World, otto: Client, evidence: str, words: str) -> None:
    case = unknown(world)
    answer = say(otto, case, "not_applied", evidence, resend="1")
    page = answer.content.decode()
    assert answer.status_code == 422 and words in page
    assert 'aria-invalid="true" aria-describedby="evidence-not_applied-error"' in page and 'id="evidence-not_applied-error"' in page
    assert evidence.strip() in page and 'value="1" checked' in page
    case.refresh_from_db()
    assert case.result == ""


def test_not_applied_is_refused_while_it_may_be_on_its_way_and_the_page_says_until_when(world: World, otto: Client) -> None:
    case = unknown(world, over=MINUTE)
    answer = say(otto, case, "not_applied", "<b>nothing there", resend="1")
    page = answer.content.decode()
    deadline = call_of(run_of(case)).send_deadline
    assert answer.status_code == 409 and deadline is not None
    said = part(page, "notice")
    assert "Your word was not recorded." in said and f"{deadline:%H:%M:%S} UTC" in said
    assert "&lt;b&gt;nothing there</textarea>" in page and 'value="1" checked' in page
    Call.objects.filter(run_id=case.run_id).update(send_deadline=Now() - MINUTE)
    assert say(otto, case, "not_applied").status_code == 303


def test_whoever_comes_second_is_told_who_was_first_and_keeps_what_they_typed(world: World, otto: Client) -> None:
    case = unknown(world)
    say(browser(world.approver), case, "applied", "first")
    answer = say(otto, case, "not_applied", "my <words>")
    page = answer.content.decode()
    assert answer.status_code == 409 and f"settled already: applied, by {world.approver.user.username}" in page
    assert "my &lt;words&gt;</textarea>" in page and "readonly" in page and 'name="result"' not in page
    assert kinds(run_of(case)).count("tool_call_reconciled") == 1


def test_a_viewer_sees_everything_but_the_buttons_and_reads_why(world: World) -> None:
    case = unknown(world)
    vera = browser(person(world.tenant, "vera", "viewer"))
    page = shown(vera, url(case, "?confirm=applied"))
    assert 'name="result"' not in page and 'data-open="confirm' not in page
    assert "This needs the role operator or a higher one" in page and world.approver.user.username in page
    answer = say(vera, case, evidence="I know it")
    assert answer.status_code == 403 and b"I know it</textarea>" in answer.content
    case.refresh_from_db()
    assert case.result == ""


def test_a_result_that_there_is_not_is_refused(world: World, otto: Client) -> None:
    case = unknown(world)
    answer = say(otto, case, "maybe")
    assert answer.status_code == 422 and b"The result is applied or not_applied." in answer.content


def test_the_pages_cost_the_same_few_queries_however_much_there_is(world: World, otto: Client, django_assert_max_num_queries: Any) -> None:
    case = unknown(world)
    for _ in range(6):
        unknown(world)
    otto.get("/unknowns/")
    with django_assert_max_num_queries(9):
        otto.get("/unknowns/")
    with django_assert_max_num_queries(9):
        otto.get(url(case))
    with django_assert_max_num_queries(5):
        otto.get(url(case, "?part=status"), headers=HTMX)


# the doctor's card ------------------------------------------------------------------------------------------------------------


def card(client: Client) -> str:
    return part(shown(client, "/?part=integrity"), "integrity")


def finding(name: str, *, warning: bool = False) -> dict[str, Any]:
    return {"name": name, "meaning": "<b>what it means", "cure": "c", "ids": ["agt_secret"], "warning": warning}


def test_the_overview_says_what_the_doctor_found_and_whose_rows_never(otto: Client) -> None:
    assert "Not examined yet" in card(otto) and 'id="integrity"' in shown(otto, "/")
    Examination.objects.create(findings=[finding("jobs_alive", warning=True)])
    assert "No violations" in card(otto) and "1 warning: jobs_alive" in card(otto) and "examined" in card(otto)
    Examination.objects.create(findings=[finding("seq_has_no_gap")])
    said = card(otto)
    assert "seq_has_no_gap" in said and "&lt;b&gt;what it means" in said and "No violations" not in said and "agt_secret" not in said


def test_the_doctor_looks_every_hour_and_old_looks_are_forgotten(world: World) -> None:
    old = Examination.objects.create(at=timezone.now() - timedelta(days=31))
    recent = Examination.objects.create(at=timezone.now() - timedelta(days=1))
    Run.objects.filter(id=running(world).id).update(seq=99)
    found = tasks.examine()
    last = Examination.objects.latest("at")
    assert found == len(last.findings) > 0 and all(one["name"] and "ids" in one for one in last.findings)
    assert Examination.objects.filter(pk=recent.pk).exists() and not Examination.objects.filter(pk=old.pk).exists()
    tasks.ensure_schedules()
    tasks.ensure_schedules()
    [schedule] = Schedule.objects.filter(func="console.tasks.examine")
    assert schedule.schedule_type == Schedule.HOURLY
