"""Memory as people meet it, on pages and over HTTP: found, looked into, corrected, deleted with a receipt, and shown on runs."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from runs import memory, memory_people
from runs.models import MemoryItem, MemoryUse, Run
from tenants.ids import new_id
from tenants.models import AuditEntry
from tests.runtime.waiting import World, make_world, person, running

from .callers import caller, refusal
from .past import browser

pytestmark = [pytest.mark.django_db, pytest.mark.mission("P7.2")]
SECRET = "canary-iban-77"


@pytest.fixture
def world() -> World:
    return make_world()


def kept(
    world: World, key: str = "likes", value: Any = "marzipan", *, run: Run | None = None, sensitive: bool = False, **more: Any
) -> MemoryItem:
    run = run or running(world)
    given: dict[str, Any] = {"kind": "session", "session": "s1", "subject": "u1"} | more
    row = MemoryItem(
        id=new_id(), tenant=world.tenant, agent=world.agent.name, key=key, owner="u1", run_id=run.id, step=1, ord=1,
        expires_at=timezone.now() + timedelta(days=3), labels=["untrusted"], **given,
    )  # fmt: skip
    memory.fill(row, value, sensitive=sensitive)
    row.save()
    MemoryUse.objects.create(tenant=world.tenant, run_id=run.id, step=1, ord=1, item_id=row.id, did="wrote")
    MemoryUse.objects.create(tenant=world.tenant, run_id=run.id, step=2, ord=1, item_id=row.id, did="read")
    return row


def test_a_viewer_finds_items_and_sees_of_a_sensitive_one_only_that_it_is_there(world: World) -> None:
    normal, sealed = kept(world), kept(world, "iban", SECRET, sensitive=True)
    viewer = caller(person(world.tenant, "vic", "viewer"))
    listed = viewer.get("/memory").json()["items"]
    assert [(one["key"], one["value"], one["runs"]) for one in listed] == [("iban", None, 1), ("likes", "marzipan", 1)]
    assert listed[1]["source_run"] == Run.objects.get(id=normal.run_id).run_id and listed[1]["labels"] == ["untrusted"]
    assert viewer.get(f"/memory/{sealed}").json()["value"] is None
    assert [use["did"] for use in viewer.get(f"/memory/{normal}").json()["uses"]] == ["read", "wrote"]
    page = browser(person(world.tenant, "val", "viewer")).get("/memory/").content.decode()
    assert "marzipan" in page and SECRET not in page and "Sensitive" in page
    assert not AuditEntry.objects.filter(action="memory.viewed").exists()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=marzi", ["likes"]), ("q=LIKES", ["likes"]), (f"q={SECRET}", []), ("q=iban", ["iban"]), ("kind=reference", ["account"]),
        ("subject=u2", ["account"]), ("session=s1", ["iban", "likes"]), ("agent=nobody", []), ("subject=u1&q=a", ["iban", "likes"]),
    ],
)  # fmt: skip
def test_a_search_narrows_and_never_looks_into_what_is_sealed(world: World, query: str, found: list[str]) -> None:
    kept(world)
    kept(world, "iban", SECRET, sensitive=True)
    kept(world, "account", {"system": "billing", "id": "acct_1"}, kind="reference", session="", subject="u2")
    answer = caller(world.operator).get(f"/memory?{query}").json()["items"]
    assert [one["key"] for one in answer] == found
    page = browser(world.operator).get(f"/memory/?{query}").content.decode()
    assert all(f">{key}</a>" in page for key in found) and page.count("memory/mem_") == len(found)


def test_each_view_of_a_sensitive_value_is_audited_over_http_and_on_the_page(world: World) -> None:
    row = kept(world, "iban", SECRET, sensitive=True)
    ada = person(world.tenant, "ada", "admin")
    assert caller(ada).get(f"/memory/{row}").json()["value"] == SECRET
    narrow = caller(ada, "memory:read").get(f"/memory/{row}")
    assert narrow.json()["value"] is None
    at = f"/memory/{row}/"
    seen = browser(ada).get(at)
    assert SECRET not in seen.content.decode() and "Show the value" in seen.content.decode()
    shown = browser(ada).post(at, {"act": "reveal"})
    assert SECRET in shown.content.decode() and "no-store" in shown["Cache-Control"]
    views = AuditEntry.objects.filter(action="memory.viewed", object_id=str(row))
    assert [view.actor for view in views] == ["ada", "ada"]
    refused = browser(world.operator).post(at, {"act": "reveal"})
    assert refused.status_code == 403 and SECRET not in refused.content.decode()
    assert views.count() == 2


def test_an_operator_corrects_with_a_reason_and_a_viewer_does_not(world: World) -> None:
    row = kept(world)
    operator, viewer = caller(world.operator), caller(person(world.tenant, "vic", "viewer"))
    body = {"value": {"sweets": ["nougat"]}, "reason": "they said so"}
    assert refusal(viewer.put(f"/memory/{row}", body)) == (403, "scope_missing")
    assert refusal(operator.put(f"/memory/{row}", body | {"value": "x" * 9000})) == (422, "bad_value")
    answer = operator.put(f"/memory/{row}", body).json()
    assert (answer["value"], answer["corrected_by"]) == ({"sweets": ["nougat"]}, world.operator.user.username)
    entry = AuditEntry.objects.get(action="memory.corrected")
    assert entry.reason == "they said so" and "nougat" not in json.dumps([entry.before, entry.after])

    page = browser(world.operator)
    missing = page.post(f"/memory/{row}/", {"act": "correct", "value": "fudge", "reason": ""})
    assert missing.status_code == 422 and "Say why" in missing.content.decode() and "fudge" in missing.content.decode()
    page.post(f"/memory/{row}/", {"act": "correct", "value": "fudge", "reason": "r"})
    row.refresh_from_db()
    assert row.value == "fudge"


def test_what_is_sensitive_stays_sealed_when_it_is_corrected_and_needs_the_right_to_see_it(world: World) -> None:
    row = kept(world, "iban", SECRET, sensitive=True)
    body = {"value": "canary-new", "reason": "r"}
    assert refusal(caller(world.operator).put(f"/memory/{row}", body)) == (403, "scope_missing")
    ada = person(world.tenant, "ada", "admin")
    assert caller(ada).put(f"/memory/{row}", body).json()["value"] is None
    row.refresh_from_db()
    assert row.value is None and memory.opened(row) == "canary-new"


def test_deleting_gives_a_receipt_and_the_item_is_nowhere(world: World) -> None:
    row, other = kept(world), kept(world, "other")
    operator = caller(world.operator)
    assert refusal(operator("DELETE", f"/memory/{row}")) == (422, "reason_missing")
    receipt = operator("DELETE", f"/memory/{row}?reason=asked").json()
    assert (receipt["items"], receipt["runs"], receipt["running"], receipt["dry_run"]) == (1, 1, 1, False)
    assert refusal(operator.get(f"/memory/{row}")) == (404, "not_found")
    gone = browser(world.operator).post(f"/memory/{other}/", {"act": "delete", "reason": "asked"}).content.decode()
    assert "Receipt" in gone and "they keep what they read until they end" in gone
    assert not MemoryItem.objects.exists() and AuditEntry.objects.filter(action="memory.deleted").count() == 2


def test_a_subject_is_counted_first_and_forgotten_when_somebody_says_why(world: World) -> None:
    kept(world)
    kept(world, "other", session="s2")
    kept(world, subject="u2")
    operator, page = caller(world.operator), browser(world.operator)
    assert refusal(operator.post("/memory/forget", {"reason": "r"})) == (422, "nothing_named")
    assert refusal(operator.post("/memory/forget", {"subject": "u1"})) == (422, "reason_missing")
    dry = operator.post("/memory/forget", {"subject": "u1", "dry_run": True}).json()
    assert (dry["items"], dry["dry_run"], MemoryItem.objects.count()) == (2, True, 3)
    counted = page.post("/memory/forget/", {"act": "count", "subject": "u1"}).content.decode()
    assert "Delete 2 items of u1?" in counted and MemoryItem.objects.count() == 3
    assert page.post("/memory/forget/", {"act": "forget", "subject": "u1"}).status_code == 422
    done = page.post("/memory/forget/", {"act": "forget", "subject": "u1", "reason": "their right"}).content.decode()
    assert dry["sha256"] in done and [row.subject for row in MemoryItem.objects.all()] == ["u2"]
    assert AuditEntry.objects.get(action="memory.forgotten").reason == "their right"
    viewer = browser(person(world.tenant, "vic", "viewer"))
    assert viewer.get("/memory/forget/").status_code == 403


def test_another_tenants_items_and_expired_ones_are_not_there(world: World) -> None:
    other = make_world("initech", "other-agent")
    theirs, old = kept(other), kept(world)
    MemoryItem.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    admin = caller(person(world.tenant, "ada", "admin"))
    assert admin.get("/memory").json()["items"] == []
    for row in (theirs, old):
        assert refusal(admin.get(f"/memory/{row}")) == (404, "not_found")
    assert refusal(admin.post("/memory/forget", {"subject": "u1", "tenant": "initech", "reason": "r"})) == (404, "not_found")
    assert memory_people.forget(other.operator, other.tenant, subject="u1", dry_run=True).items == 1


@pytest.mark.mission("P7.1", "P7.2")
def test_a_runs_page_keeps_request_context_session_memory_and_references_apart(world: World) -> None:
    run = running(world)
    run.asked.user, run.asked.session, run.asked.metadata = {"id": "u1", "attributes": {"plan": "gold"}}, "s1", {"order": "o-7"}
    run.asked.save()
    kept(world, run=run)
    kept(world, "iban", SECRET, run=run, sensitive=True)
    kept(world, "account", {"system": "billing", "id": "acct_1"}, run=run, kind="reference", session="")
    MemoryItem.objects.filter(key="iban").delete()
    page = browser(world.operator).get(f"/runs/{run.run_id}/").content.decode()
    whole = page.partition('id="memory"')[2]
    context, session, references = (
        whole.partition(f'id="{name}-title"')[2].partition("</section>")[0] for name in ("context", "session", "references")
    )
    assert "gold" in context and "o-7" in context and "marzipan" not in context
    assert "marzipan" in session and "acct_1" not in session
    assert "acct_1" in references and "marzipan" not in references
    assert "2 items forgotten since" in whole
