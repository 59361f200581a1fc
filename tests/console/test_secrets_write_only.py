"""A secret goes in by the admin, the API and a file, and comes back by nothing that a platform admin can open."""

import json
import re
from collections import Counter
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db import connections
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from tenants import credentials
from tenants.models import Credential, User
from tests.runtime import waiting
from tests.runtime.waiting import World
from tools.redaction import spellings

from .callers import Caller, caller
from .past import browser

pytestmark = pytest.mark.mission("P10.2")
CANARIES = {way: f"canary-{way}-8Zq2Lw" for way in ("admin", "api", "file", "changed", "refused")}
NEEDLES = [form for secret in CANARIES.values() for form in spellings(secret)]
LINK = re.compile(r'(?:href|hx-get|src)="(/[^"#]*)"')
LEFT_OUT = re.compile(r"/static/|/sign-|logout|/delete/|/add/\?|jsi18n")
PAGES = 250
FORMS = 3  # of one address, with its filters


@pytest.fixture
def world(committed_db: None) -> World:
    return waiting.make_world()


def block(name: str, secret: Any, **more: Any) -> dict[str, Any]:
    return {"credentials": [{"name": name, "tenant": "acme", "value": secret, **more}]}


def entered(world: World, root: Client, call: Caller, path: Any) -> str:
    """Every way in; what each said."""
    form = {"tenant": str(world.tenant.pk), "name": "by-admin", "kind": "bearer", "header": "", "secret": CANARIES["admin"]}
    said = [root.post("/admin/tenants/credential/add/", form, follow=True)]
    row = Credential.objects.get(name="by-admin")
    said += [root.post(f"/admin/tenants/credential/{row.pk}/change/", form | {"secret": CANARIES["changed"]}, follow=True)]
    said += [root.post("/admin/tenants/credential/add/", form | {"name": "bad", "kind": "header", "secret": CANARIES["refused"]})]
    said += [call.post("/config/apply", block("by-api", CANARIES["api"]))]
    said += [call.post("/config/apply", block("bad", CANARIES["refused"], kind="nonsense"))]
    said += [call.post("/config/apply", block("bad", [CANARIES["refused"]]))]
    said += [call.post("/config/apply", block("bad", CANARIES["refused"], values=CANARIES["refused"]))]
    path.write_text(json.dumps(block("by-file", CANARIES["file"])))
    call_command("apply", str(path))
    return "\n".join(answer.content.decode() for answer in said)


def crawled(root: Client) -> dict[str, str]:
    """path -> page, from the overview and the admin along their links."""
    waits, seen, forms = ["/", "/admin/"], {}, Counter[str]()
    while waits and len(seen) < PAGES:
        path = waits.pop(0)
        place = path.partition("?")[0]
        if path in seen or LEFT_OUT.search(path) or forms[place] >= FORMS:
            continue
        forms[place] += 1
        answer = root.get(path)
        seen[path] = b"".join(answer).decode("utf-8", "replace") if answer.streaming else answer.content.decode("utf-8", "replace")
        waits += [link.replace("&amp;", "&") for link in LINK.findall(seen[path])]
    return seen


def read_by_api(call: Caller) -> dict[str, str]:
    paths = SchemaGenerator().get_schema(public=True)["paths"]
    plain = [path.removeprefix("/api/v1") for path, verbs in paths.items() if "get" in verbs and "{" not in path]
    return {path: text_of(call.get(path)) for path in plain}


def text_of(answer: Any) -> str:
    """Also of an answer that is a stream."""

    async def whole() -> bytes:
        return b"".join([part async for part in answer.streaming_content])

    if not answer.streaming:
        return str(answer.content.decode())
    return (async_to_sync(whole)() if answer.is_async else answer.getvalue()).decode()


def test_a_secret_that_was_entered_is_never_given_back(world: World, tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    boss = waiting.person(world.tenant, "root", "admin", platform=True)
    User.objects.filter(pk=boss.user.pk).update(is_staff=True, is_superuser=True)
    boss.user.refresh_from_db()
    root, call = browser(boss), caller(boss)
    told = entered(world, root, call, tmp_path / "secrets.json")
    held = {name: one.secret for name, one in credentials.open_all(world.tenant.id).items()}
    assert held == {"by-admin": CANARIES["changed"], "by-api": CANARIES["api"], "by-file": CANARIES["file"]}

    pages, records = crawled(root), read_by_api(call)
    row = Credential.objects.get(name="by-admin")
    assert f"/admin/tenants/credential/{row.pk}/change/" in pages and f"/admin/tenants/credential/{row.pk}/history/" in pages
    assert "/admin/tenants/auditentry/" in pages and len(records) >= 5
    with connections["owner"].cursor() as cursor:
        cursor.execute("select coalesce(string_agg(t::text, ' '), '') from tenants_auditentry t")
        audit = cursor.fetchone()[0] + json.dumps(list(_admin_log()))
    places = {"answers": told, "audit": audit, "printed": "".join(capfd.readouterr()), **pages, **records}
    assert {place: needle for place, text in places.items() for needle in NEEDLES if needle in text} == {}
    assert "by-admin" in pages["/admin/tenants/credential/"] and "by-file" in audit


def _admin_log() -> Any:
    with connections["owner"].cursor() as cursor:
        cursor.execute("select change_message, object_repr from django_admin_log")
        return cursor.fetchall()
