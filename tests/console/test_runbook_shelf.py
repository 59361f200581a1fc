"""Runbooks as they are kept: versions that never change, files, the configuration document, and the admin."""

from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from console import document
from console.apply import Change, apply
from console.models import Runbook, RunbookVersion
from console.runbooks import shelf
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import AuditEntry
from tests.runtime.waiting import World, make_world, person

from .past import browser

pytestmark = pytest.mark.mission("P11.2")
ONE, TWO = "# One\n\n## S\n\n1. Look.\n", "# Two\n\n## S\n\n1. Look again.\n"


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def root(world: World) -> Actor:
    return person(world.tenant, "root", "admin", platform=True)


def test_a_changed_text_is_a_new_version_and_an_old_one_is_found_again(root: Actor) -> None:
    assert shelf.put(root, "r", ONE)[1] == "create"
    assert shelf.put(root, "r", ONE.replace("\n", "\r\n"))[1] == "unchanged"
    assert shelf.put(root, "r", TWO, reason="better")[0].number == 2
    assert shelf.put(root, "r", ONE)[0].number == 1
    assert [(e.action, e.reason, e.after["version"]) for e in AuditEntry.objects.filter(object_kind="runbook").order_by("id")] == [
        ("runbook.created", "", 1), ("runbook.updated", "better", 2), ("runbook.updated", "", 1),
    ]  # fmt: skip
    assert not AuditEntry.objects.filter(object_kind="runbook").exclude(tenant=None).exists()
    now, then = shelf.version("r", None), shelf.version("r", 2)
    assert now and then and (now.title, then.title) == ("One", "Two")


@pytest.mark.parametrize("change", [{"source": TWO}, {"number": 9}, None])
def test_a_version_is_never_changed(root: Actor, change: dict[str, Any] | None) -> None:
    version, _ = shelf.put(root, "r", ONE)
    rows = RunbookVersion.objects.filter(pk=version.pk)
    with pytest.raises(DatabaseError), transaction.atomic():
        rows.update(**change) if change else rows._raw_delete(rows.db)


def test_only_platform_admins_write_and_only_what_can_be_read_is_kept(world: World, root: Actor) -> None:
    with pytest.raises(Refused) as caught:
        shelf.put(person(world.tenant, "ada", "admin"), "r", ONE)
    assert caught.value.code == "platform_admin_needed"
    for bad in ("", "# T\n\n## S\n\n1. a\x00b\n", "# T\n" + "x" * 100_000):
        with pytest.raises(Refused) as caught:
            shelf.put(root, "r", bad)
        assert (caught.value.code, caught.value.status) == ("bad_runbook", 422)
    assert not Runbook.objects.exists()


def test_files_are_read_once_and_again_when_they_change(world: World, root: Actor, tmp_path: Path) -> None:
    (tmp_path / "r.md").write_text(ONE)
    (tmp_path / "broken.md").write_text("no title")
    assert shelf.load_files(tmp_path) == ["r"]
    shelf.put(root, "r", TWO)
    assert shelf.load_files(tmp_path) == []
    assert Runbook.objects.get(name="r").current == shelf.version("r", 2)
    (tmp_path / "r.md").write_text(ONE + "2. And again.\n")
    assert shelf.load_files(tmp_path) == ["r"]
    assert Runbook.objects.get(name="r").current == shelf.version("r", 3)


def test_those_of_this_installation_are_there_after_a_start(world: World) -> None:
    assert len(shelf.load_files()) == len(list(shelf.FILES.glob("*.md"))) >= 9
    assert shelf.load_files() == []


def test_the_document_describes_runbooks(root: Actor) -> None:
    wanted = document.load({"runbooks": [{"name": "r", "text": ONE, "tenants": ["acme"]}]})
    assert apply(root, wanted) == [Change("runbook", "r", "create")]
    assert apply(root, wanted) == [Change("runbook", "r", "unchanged")]
    other = document.load({"runbooks": [{"name": "r", "text": TWO}]})
    assert apply(root, other) == [Change("runbook", "r", "update", ("text", "tenants"))]
    for block, code in (({"name": "R"}, "bad_document"), ({"name": "r", "text": "x"}, "bad_runbook")):
        with pytest.raises(Refused) as caught:
            apply(root, document.load({"runbooks": [block]}))
        assert caught.value.code == code
    with pytest.raises(Refused, match="runbooks: r is there twice"):
        document.load({"runbooks": [{"name": "r", "text": ONE}, {"name": "r", "text": TWO}]})


def test_platform_admins_edit_them_in_the_admin(root: Actor) -> None:
    root.user.is_staff = True
    root.user.save()
    client = browser(root)
    said = {"name": "r", "source": ONE, "tenants": "", "reason": "first"}
    assert client.post("/admin/console/runbook/add/", said).status_code == 302
    assert "# One" in client.get("/admin/console/runbook/r/change/").content.decode()
    assert client.post("/admin/console/runbook/r/change/", said | {"source": TWO, "reason": "better"}).status_code == 302
    assert client.post("/admin/console/runbook/r/change/", said | {"source": "none"}).status_code == 200
    assert client.post("/admin/console/runbook/add/", said | {"name": "No Good"}).status_code == 200
    assert [v.title for v in RunbookVersion.objects.order_by("number")] == ["One", "Two"]
    assert AuditEntry.objects.filter(object_kind="runbook").count() == 2


def test_others_do_not_meet_them_in_the_admin(world: World) -> None:
    admin = person(world.tenant, "ada", "admin")
    admin.user.is_staff = True
    admin.user.save()
    assert browser(admin).get("/admin/console/runbook/").status_code == 403
