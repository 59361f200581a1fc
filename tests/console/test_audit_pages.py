"""The audit log and the list of changes: who reads what, filters, files that can be verified elsewhere, marks for charts."""

import csv
import hashlib
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from console import audit_health, changes, trail
from runs import switches
from runs.releases import promote
from tenants import audit
from tenants.actors import Actor
from tenants.ids import decode
from tenants.models import AuditEntry, AuditVerified, Tenant
from tests.runtime.waiting import World, make_world, person
from tools import permissions, rules
from tools.models import Tool

from .callers import caller
from .past import browser

pytestmark = [pytest.mark.mission("P13.5", "X11", "X12"), pytest.mark.usefixtures("db")]
HIDDEN = 'rtl\u202e"quoted"'


@pytest.fixture(autouse=True)
def _file(settings: Any, tmp_path: Any) -> None:
    settings.AUDIT_CHECKPOINTS = tmp_path / "checkpoints.jsonl"


@pytest.fixture
def world() -> World:
    return make_world("acme", "support")


@pytest.fixture
def admin(world: World) -> Actor:
    return person(world.tenant, "alma", "admin")


@pytest.fixture
def root(world: World) -> Actor:
    return person(world.tenant, "root", "admin", platform=True)


def written(world: World, admin: Actor) -> Tenant:
    """Something of the tenant's, of the platform's and of another tenant's; linked, as after a commit."""
    other = Tenant.objects.create(slug="globex")
    audit.append(
        admin, "tool.disabled", "tool", "create_ticket", {"enabled": True, "note": "same"}, {"enabled": False, "note": "same"}, HIDDEN
    )
    audit.append(admin, "egress.allowed", "egress", "127.0.0.1:9", None, {"host_port": "127.0.0.1:9"}, tenant=None)
    audit.append(admin, "member.created", "member", "secret-of-globex", None, {"role": "admin"}, tenant=other)
    audit.append(None, "=cmd()", "x", "@sum(1)", None, {"value": 1.10}, "+1", tenant=world.tenant, request_id="req-7")
    connection.check_constraints()
    return other


def text(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.content
    return answer.content.decode()


# the audit log ----------------------------------------------------------------------------------------------------------------


def test_an_admin_reads_the_chain_of_their_tenant_and_no_other(world: World, admin: Actor) -> None:
    written(world, admin)
    page = text(browser(admin), "/audit/")
    assert "tool.disabled" in page and "create_ticket" in page and "egress.allowed" not in page and "secret-of-globex" not in page
    foreign = AuditEntry.objects.get(object_id="secret-of-globex")
    mine = AuditEntry.objects.get(action="tool.disabled")
    assert "What changed" in text(browser(admin), f"/audit/{mine.pk}/")
    for strange in (foreign.pk, 10**18, "x", 0):
        text(browser(admin), f"/audit/{strange}/", 404)
    text(browser(admin), "/audit/?chain=globex", 404)
    text(browser(admin), "/audit/?chain=platform", 404)


def test_a_platform_admin_reads_every_chain_by_its_name(world: World, admin: Actor, root: Actor) -> None:
    written(world, admin)
    page = text(browser(root), "/audit/")
    assert "egress.allowed" in page and "secret-of-globex" in page
    shown = browser(root).get("/audit/?chain=platform").context["entries"]
    assert [one["entry"].action for one in shown] == ["egress.allowed"]


@pytest.mark.parametrize("role", ["viewer", "operator", "approver"])
def test_the_audit_log_is_the_admins(world: World, role: str) -> None:
    client = browser(person(world.tenant, "some", role))
    for path in ("/audit/", "/audit/1/", "/audit/files/csv/"):
        text(client, path, 403)
    assert 'href="/audit/"' not in text(client, "/changes/")


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 2), ("actor=alma", 1), ("action=tool.disabled", 1), ("kind=x", 1), ("object=create_ticket", 1), ("text=QUOTED", 1),
        ("request=req-7", 1), ("text=nothing", 0), ("since=1h", 2), ("until=2020-01-01T00:00:00Z", 0),
        ("actor=alma&kind=x", 0),
    ],
)  # fmt: skip
def test_filters_stand_in_the_address(world: World, admin: Actor, query: str, count: int) -> None:
    written(world, admin)
    page = browser(admin).get(f"/audit/?{query}")
    assert page.status_code == 200 and len(page.context["entries"]) == count


def test_a_filter_that_cannot_be_read_says_so(world: World, admin: Actor) -> None:
    assert "until must be a time such as" in text(browser(admin), "/audit/?until=soon", 400)
    text(browser(admin), "/audit/?cursor=x", 400)
    text(browser(admin), "/changes/?kind=nothing", 400)


def test_pages_go_on_where_the_last_one_ended(world: World, admin: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.pages.audit.PAGE", 3)
    for n in range(7):
        audit.append(admin, "x", "y", f"thing-{n}")
    url, seen = "/audit/?actor=alma", []
    while url:
        answer = browser(admin).get(url)
        seen += [one["entry"].object_id for one in answer.context["entries"]]
        url = answer.context["older_url"]
    assert seen == [f"thing-{n}" for n in range(6, -1, -1)]


def test_the_page_says_how_far_the_chain_was_verified_and_where_it_is_broken(world: World, admin: Actor) -> None:
    written(world, admin)
    assert "Not verified yet" in text(browser(admin), "/audit/")
    assert audit_health.verify(lambda: False) == []
    assert "up to 2 of 2" in text(browser(admin), "/audit/")
    problem = {"chain": str(world.tenant.pk), "seq": 2, "code": "content", "what": "a column differs", "cure": "Restore it."}
    AuditVerified.objects.filter(chain=world.tenant.pk).update(problem=problem)
    page = text(browser(admin), "/audit/")
    assert "The chain of acme is broken." in page and "Restore it." in page and "entry 2: a column differs" in page


def test_an_entry_shows_before_after_and_its_place(world: World, admin: Actor) -> None:
    written(world, admin)
    entry = AuditEntry.objects.get(action="tool.disabled")
    page = browser(admin).get(f"/audit/{entry.pk}/")
    assert page.context["diff"] == [("enabled", "true", "false", True), ("note", "same", "same", False)]
    assert page.context["record"]["seq"] == 1 and bytes(entry.link.hash).hex() in page.content.decode()
    assert "\u202e" not in page.content.decode()


def test_a_file_of_values_holds_no_formula(world: World, admin: Actor) -> None:
    written(world, admin)
    answer = browser(admin).get("/audit/files/csv/")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert answer["Content-Disposition"].startswith("attachment") and len(rows) == 2
    assert (rows[0]["action"], rows[0]["object"], rows[0]["reason"]) == ("'=cmd()", "'@sum(1)", "'+1")
    assert [trail.cell(value) for value in ("a=b", "-1", "\tx", 7)] == ["a=b", "'-1", "'\tx", "7"]
    assert len(list(csv.DictReader(io.StringIO(text(browser(admin), "/audit/files/csv/?kind=tool"))))) == 1
    text(browser(admin), "/audit/files/exe/", 404)


def test_the_lines_of_a_file_are_verified_without_the_database(world: World, admin: Actor) -> None:
    written(world, admin)
    for lines in (text(browser(admin), "/audit/files/jsonl/"), caller(admin).get("/audit?format=jsonl").content.decode()):
        entries = [json.loads(each) for each in lines.splitlines()]
        assert [one["seq"] for one in entries] == [2, 1]
        prev = bytes(32)
        for one in reversed(entries):
            assert bytes.fromhex(one["prev"]) == prev
            prev = hashlib.sha256(prev + one["row"].encode()).digest()
            assert one["hash"] == prev.hex()
            row = json.loads(one["row"])
            assert row[0] == one["seq"] and row[3:8] == [one["at"], one["actor"], one["action"], one["kind"], one["object"]]
            assert json.loads(row[9]) == one["after"]


def test_the_api_gives_entries_with_their_places_and_pages(world: World, admin: Actor) -> None:
    written(world, admin)
    api = caller(admin)
    first = api.get("/audit?limit=1")
    assert first["X-Next-Cursor"] == first.json()["next_cursor"]
    (second,) = api.get(f"/audit?limit=1&cursor={first.json()['next_cursor']}").json()["items"]
    assert (second["chain"], second["seq"], second["action"], second["before"]) == (
        "acme",
        1,
        "tool.disabled",
        {"enabled": True, "note": "same"},
    )
    assert api.get("/audit?kind=tool").json()["next_cursor"] is None
    assert api.get("/audit?since=never").json()["code"] == "bad_since"
    assert api.get("/audit?chain=globex").status_code == 404


# changes ----------------------------------------------------------------------------------------------------------------------


def changed(world: World, admin: Actor, root: Actor) -> None:
    Tool.objects.create(name="search_docs")
    permissions.set_permission(admin, "search_docs", world.tenant, decision="ask")
    rules.set_rule(root, "cap", None, decision="deny", when="true", reason="too much")
    order = switches.Order(scope="tenant", then="pause", tenant=world.tenant, reason="look at it", drill=True)
    switches.engage(world.approver, order)
    audit.append(root, "tool.updated", "tool", "hidden", {"version": 1}, {"version": 2}, tenant=None)
    audit.append(None, "breaker.opened", "breaker", "desk:80", {"state": "closed"}, {"state": "open"}, "5 of 5", tenant=world.tenant)
    audit.append(root, "egress.allowed", "egress", "10.0.0.1:9", None, {"host_port": "x"}, tenant=None)
    audit.append(admin, "delivery.redelivered", "delivery", "msg_x")  # changes nothing that runs are decided by


def test_a_tenant_sees_its_own_changes_and_those_to_what_it_shares(world: World, admin: Actor, root: Actor) -> None:
    Tenant.objects.create(slug="globex")
    changed(world, admin, root)
    audit.append(root, "rule.created", "rule", "foreign", None, {"decision": "deny"}, tenant=Tenant.objects.get(slug="globex"))
    found = changes.between(world.tenant.pk, None, None)
    said = {one.kind: one for one in found}
    assert said["permission"].sentence.startswith("alma added the permission of search_docs for every agent: ")
    assert said["rule"].who == "root" and said["rule"].why == "too much" and said["rule"].tenant is None
    assert said["breaker"].sentence == "Signalbox opened the breaker desk:80: state closed → open."
    assert said["switch"].why == "look at it" and said["switch"].url.startswith("/switches/swi_")
    names = " ".join(one.sentence for one in found)
    assert "hidden" not in names and "10.0.0.1" not in names and "foreign" not in names and "msg_x" not in names
    everything = " ".join(one.sentence for one in changes.between(None, None, None))
    assert "hidden" in everything and "10.0.0.1" in everything and "foreign" in everything


def test_changes_are_listed_newest_first_and_filtered_by_what_they_are_about(world: World, admin: Actor, root: Actor) -> None:
    changed(world, admin, root)
    found = changes.between(world.tenant.pk, None, None)
    assert [one.at for one in found] == sorted((one.at for one in found), reverse=True)
    assert {one.kind for one in changes.between(world.tenant.pk, None, None, kinds=["breaker", "rule"])} == {"breaker", "rule"}
    only = changes.Only(tool="search_docs")
    assert [one.kind for one in changes.between(world.tenant.pk, None, None, only=only)] == ["permission"]
    assert changes.between(world.tenant.pk, timezone.now() + timedelta(hours=1), None) == []
    moment = timezone.now() + timedelta(minutes=1)
    assert changes.last_good_changes(world.tenant.pk, moment, hours=1) == found
    assert changes.last_good_changes(world.tenant.pk, moment - timedelta(hours=2), hours=1) == []


def test_a_promoted_release_is_told_by_its_number(world: World, root: Actor) -> None:
    live = world.agent.live
    assert live is not None
    live.pk, live.number, live.sha256 = decode("rel", f"rel_{'0' * 26}"), 2, "1" * 64
    live.save(force_insert=True)
    promote(root, live, "it is better")
    (found,) = changes.between(world.tenant.pk, None, None, kinds=["release"])[:1]
    assert found.sentence.startswith("root promoted the release of support: release ") and found.sentence.endswith(" → r2.")


def test_marks_of_a_chart_are_few_and_those_on_one_place_are_one(world: World, admin: Actor) -> None:
    now = timezone.now()
    rows = [AuditEntry(tenant=world.tenant, at=now - timedelta(minutes=n), actor="ada", action="rule.updated", object_kind="rule",
                       object_id=f"r{n}", reason="", request_id="") for n in range(90)]  # fmt: skip
    AuditEntry.objects.bulk_create(rows)
    marks = changes.markers(world.tenant.pk, now - timedelta(hours=2), now + timedelta(seconds=1))
    assert 10 <= len(marks) <= 30 and [at for at, _, _ in marks] == sorted(at for at, _, _ in marks)
    assert marks[0][1].endswith(" changes")
    _, label, url = changes.markers(world.tenant.pk, now - timedelta(seconds=30), now + timedelta(seconds=1))[0]
    assert label == "rule changed: r0"
    assert len(browser(admin).get(url).context["days"][0][1]) == 1


def test_everybody_who_reads_configuration_reads_what_changed(world: World, admin: Actor, root: Actor) -> None:
    changed(world, admin, root)
    page = text(browser(person(world.tenant, "vera", "viewer")), "/changes/")
    assert "look at it" in page and "desk:80" in page and "10.0.0.1" not in page
    assert "desk:80" not in text(browser(admin), "/changes/?kind=rule")
    text(browser(admin), "/changes/?tenant=globex", 404)
    assert "10.0.0.1" in text(browser(root), "/changes/?kind=egress")


def test_the_api_lists_changes_in_pages(world: World, admin: Actor, root: Actor) -> None:
    changed(world, admin, root)
    api, seen, cursor = caller(admin), [], ""
    while cursor is not None:
        answer = api.get(f"/changes?limit=2&cursor={cursor}").json()
        seen += [one["kind"] for one in answer["items"]]
        cursor = answer["next_cursor"]
    assert sorted(seen) == ["breaker", "permission", "rule", "switch"]
    assert api.get("/changes?kind=x").json()["code"] == "bad_kind"


def test_text_of_people_is_shown_as_text(world: World, admin: Actor) -> None:
    audit.append(admin, "rule.updated", "rule", "<b>x</b>", {"when": "a"}, {"when": "</script>"}, "<img src=x>")
    for page in (text(browser(admin), "/audit/"), text(browser(admin), "/changes/")):
        assert "<b>x</b>" not in page and "<img" not in page and "&lt;b&gt;" in page
