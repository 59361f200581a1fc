"""Incidents, runbooks and detectors as pages: what is seen, by whom, and what each form does."""

from typing import Any

import pytest
from django.test import Client

from console.incidents import book
from console.incidents.moves import Opening
from console.models import Detector, Incident
from console.runbooks import shelf
from tenants.models import Tenant
from tests.runtime.waiting import person
from tools.models import Tool

from .incident_world import Trouble, make_trouble, state
from .past import HTMX, browser

pytestmark = pytest.mark.mission("P11.3")


@pytest.fixture
def trouble(db: None) -> Trouble:
    return make_trouble()


def shown(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.content[:800]
    return str(answer.content.decode())


def url(trouble: Trouble, more: str = "") -> str:
    return f"/incidents/{trouble.incident}/{more}"


def post(trouble: Trouble, who: str, act: str, **said: Any) -> Any:
    return browser(trouble.people[who]).post(url(trouble), {"act": act, **said})


def test_the_list_shows_what_is_live_and_how_long_people_take(trouble: Trouble) -> None:
    client = browser(trouble.people["viewer"])
    page = shown(client, "/incidents/")
    assert "create_ticket fails too often" in page and "In the last 30 days 1 opened, 0 by detectors" in page
    assert "Open incident" not in page
    found = ("severity=major", "owner=nobody", "tool=create_ticket", "state=all&agent=support-triage")
    for query in (*found, "severity=minor", "state=resolved", "detector=tool_errors"):
        assert ("fails too often" in shown(client, f"/incidents/?{query}")) is (query in found), query
    book.resolve(trouble.people["operator"], trouble.incident)
    page = shown(client, "/incidents/")
    assert "Nothing is wrong that a detector or a person has seen" in page and "it was over" not in page
    assert "one was over after" in page


def test_another_tenants_incident_is_not_there(trouble: Trouble) -> None:
    other = browser(person(Tenant.objects.create(slug="globex"), "gil", "admin"))
    assert "fails too often" not in shown(other, "/incidents/?state=all")
    for more in ("", "do/deny_tool/", "take-back/1/"):
        assert other.get(url(trouble, more)).status_code == 404
    assert other.post(url(trouble), {"act": "acknowledge"}).status_code == 404


def test_the_page_has_evidence_runbook_runs_actions_and_one_log(trouble: Trouble) -> None:
    promoted = {"at": "2026-11-23T09:30:00Z", "by": "root", "action": "release.promoted", "kind": "agent", "id": "support-triage"}
    evidence = {
        "metric": "Error rate", "unit": "share", "threshold": 0.2, "window": {"until": "2026-11-23T10:00:00Z", "value": 0.44},
        "series": [{"at": "2026-11-23T09:00:00Z", "value": 0.01, "n": 40}], "changes": [promoted],
    }  # fmt: skip
    Incident.objects.filter(pk=trouble.incident.pk).update(evidence=evidence)
    page = shown(browser(trouble.people["operator"]), url(trouble))
    assert "Error rate over the day before: from 1.0% to 44%, 44% at the end. The threshold is 20%." in page
    assert '"y": [1.0, 44.0]' in page and "support-triage promoted" in page
    assert "Runbook: The desk is down" in page and "desk-is-down v1 @ " in page and "0 of 3" in page
    assert "Ask before create_ticket" in page and "For platform admins: it is done in every tenant at once." in page
    assert trouble.world.tenant.slug in page and "1 run hit, 1 still live" in page
    assert "Undo their writes" in page


def test_a_chart_without_a_figure_is_left_out(trouble: Trouble) -> None:
    assert "evidence-figure" not in shown(browser(trouble.people["viewer"]), url(trouble))


def test_people_work_on_it_and_everything_is_in_the_log(trouble: Trouble) -> None:
    assert post(trouble, "operator", "acknowledge").status_code == 302
    assert post(trouble, "operator", "note", text="the disk <b>is</b> full\u202e").status_code == 302
    assert post(trouble, "operator", "assign", owner="abe-acme").status_code == 302
    assert post(trouble, "operator", "tick", step="1", done="1").status_code == 302
    assert post(trouble, "approver", "resolve", text="cleaned up").status_code == 302
    page = shown(browser(trouble.people["viewer"]), url(trouble))
    said = ("acknowledged it", "the disk &lt;b&gt;is&lt;/b&gt; full", "U+202E", "assigned it to abe-acme", "did step 1", "cleaned up")
    for words in said:
        assert words in page, words
    assert trouble.fresh().state == "resolved"
    assert post(trouble, "operator", "reopen").status_code == 302
    assert trouble.fresh().state == "open"


def test_a_tick_says_who_and_when_and_is_taken_off_again(trouble: Trouble) -> None:
    client = browser(trouble.people["operator"])
    answer = client.post(url(trouble), {"act": "tick", "step": "2", "done": "1"}, headers=HTMX)
    assert answer.headers["HX-Trigger"] == '{"sb:decided": {"topic": "incidents"}}'
    part = answer.content.decode()
    assert "1 of 3" in part and "otto-acme" in part and part.count("checked") == 1
    client.post(url(trouble), {"act": "tick", "step": "2"}, headers=HTMX)
    assert "0 of 3" in shown(client, url(trouble, "?part=runbook"))
    assert client.post(url(trouble), {"act": "tick", "step": "9", "done": "1"}).status_code == 404


def test_a_viewer_sees_everything_and_does_nothing(trouble: Trouble) -> None:
    page = shown(browser(trouble.people["viewer"]), url(trouble))
    assert "Acknowledge" not in page and "Add note" not in page and 'name="done"' not in page
    for act in ("acknowledge", "note", "tick", "resolve", "reopen", "assign"):
        assert post(trouble, "viewer", act, text="x", step="1", done="1").status_code == 403
    assert post(trouble, "operator", "explode").status_code == 404


def test_who_was_second_is_told_and_keeps_what_was_typed(trouble: Trouble) -> None:
    post(trouble, "operator", "resolve", text="mine")
    answer = post(trouble, "approver", "note", text="")
    assert answer.status_code == 422 and b"A note says something." in answer.content
    answer = post(trouble, "approver", "acknowledge")
    assert answer.status_code == 409 and b"It is not open any more" in answer.content


def test_an_action_is_confirmed_with_its_numbers_done_and_taken_back(trouble: Trouble) -> None:
    client = browser(trouble.people["operator"])
    page = shown(client, url(trouble, "do/deny_tool/"))
    assert "Deny create_ticket in acme?" in page and "1 run in flight and 0 queued may want it." in page and "Keep it allowed" in page
    before = state()
    assert client.post(url(trouble, "do/deny_tool/"), {"reason": ""}).status_code == 422
    assert state() == before
    assert client.post(url(trouble, "do/deny_tool/"), {"reason": "it burns"}).status_code == 302
    assert ("create_ticket", "acme", "", "deny", 1, False) in state()["permissions"]
    entry = trouble.incident.entries.get(kind="action")
    assert "Take back" in shown(client, url(trouble)) and "Denied create_ticket in acme." in shown(client, url(trouble))
    assert "it burns" in shown(client, url(trouble, f"take-back/{entry.pk}/"))
    assert client.post(url(trouble, f"take-back/{entry.pk}/"), {"reason": "it is out"}).status_code == 302
    assert state() == before
    assert client.post(url(trouble, f"take-back/{entry.pk}/"), {"reason": "again"}).status_code == 409


def test_an_action_that_stops_work_wants_its_name_typed(trouble: Trouble) -> None:
    client = browser(trouble.people["approver"])
    assert 'data-typed="writes"' in shown(client, url(trouble, "do/go_read_only/"))
    answer = client.post(url(trouble, "do/go_read_only/"), {"reason": "it burns", "typed": "write"})
    assert answer.status_code == 422 and b"Type writes to confirm." in answer.content and b"it burns" in answer.content
    assert client.post(url(trouble, "do/go_read_only/"), {"reason": "it burns", "typed": "writes"}).status_code == 302
    assert state()["switches"] == [("writes", "pause")]


def test_the_step_of_a_runbook_carries_its_action_out(trouble: Trouble) -> None:
    root = browser(trouble.people["root"])
    assert shown(root, url(trouble)).count("do/disable_tool/?step=2") == 1
    assert root.post(url(trouble, "do/disable_tool/"), {"step": "2", "reason": "it burns"}).status_code == 302
    assert not Tool.objects.get(name="create_ticket").enabled
    assert browser(trouble.people["approver"]).get(url(trouble, "do/disable_tool/")).status_code == 403


def test_one_is_opened_by_hand_from_a_prefilled_form(trouble: Trouble) -> None:
    client = browser(trouble.people["operator"])
    page = shown(client, "/incidents/new/?title=Slow%20desk&tool=create_ticket&severity=minor&chart=tool_errors")
    assert 'value="Slow desk"' in page and '<option value="create_ticket" selected>' in page
    said = {"title": "Slow desk", "severity": "minor", "tool": "create_ticket", "runbook": "desk-is-down", "text": "p95 is 9 s"}
    answer = client.post("/incidents/new/", said | {"chart": "tool_errors"})
    made = Incident.objects.exclude(pk=trouble.incident.pk).get()
    assert answer.headers["Location"] == f"/incidents/{made}/"
    assert (made.subject, made.runbook_version, made.evidence["metric"]) == ({"tool": "create_ticket"}, 1, "Error rate")
    assert client.post("/incidents/new/", {"title": "", "severity": "minor"}).status_code == 422
    assert browser(trouble.people["viewer"]).get("/incidents/new/").status_code == 403


def test_the_runbook_of_an_incident_stays_the_one_it_was_opened_with(trouble: Trouble) -> None:
    shelf.put(None, "desk-is-down", "# Another\n\n## S\n\n1. New step.\n")
    client = browser(trouble.people["viewer"])
    assert "Ask people first." in shown(client, url(trouble)) and "New step." not in shown(client, url(trouble))
    assert "New step." in shown(client, "/runbooks/desk-is-down/")
    assert "Ask people first." in shown(client, "/runbooks/desk-is-down/?version=1")
    assert client.get("/runbooks/desk-is-down/?version=7").status_code == 404


def test_the_library_lists_what_the_tenant_sees(trouble: Trouble) -> None:
    shelf.put(None, "elsewhere", "# Theirs\n\n## S\n\n1. Look.\n", ("globex",))
    client = browser(trouble.people["viewer"])
    page = shown(client, "/runbooks/")
    assert "The desk is down" in page and "Theirs" not in page and "1 open" in page
    assert client.get("/runbooks/elsewhere/").status_code == 404
    assert "Theirs" in shown(browser(trouble.people["root"]), "/runbooks/")


def test_detectors_are_shown_and_platform_admins_switch_them(trouble: Trouble) -> None:
    shelf.load_files()
    operator, root = browser(trouble.people["operator"]), browser(trouble.people["root"])
    assert "from 20% in 10 minutes" in shown(operator, "/detectors/")
    page = shown(operator, "/detectors/tool_errors/")
    assert "It would have opened 0 incidents in the last 14 days." in page and "Switch off" not in page
    assert operator.post("/detectors/tool_errors/", {"enabled": "0"}).status_code == 403
    assert root.post("/detectors/tool_errors/", {"enabled": "0", "reason": "noisy"}).status_code == 302
    assert not Detector.objects.get(name="tool_errors").enabled
    assert "Switch on" in shown(root, "/detectors/tool_errors/")
    assert "cannot be tested on the past" in shown(root, "/detectors/audit_chain/")


def test_what_strangers_wrote_is_escaped_everywhere(trouble: Trouble) -> None:
    bad = "<script>alert(1)</script>"
    evidence = {"metric": bad, "series": [{"at": bad, "value": 1}]}
    opening = Opening(trouble.world.tenant.pk, bad, "minor", bad, {"tool": bad}, evidence=evidence)
    incident = book.by_hand(trouble.people["operator"], opening, trouble.incident.opened_at)
    book.note(trouble.people["operator"], incident, bad)
    client = browser(trouble.people["root"])
    for path in ("/incidents/", f"/incidents/{incident}/"):
        assert bad not in shown(client, path)
