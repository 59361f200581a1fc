"""The first person of an installation: `manage.py begin` makes them once, and only where nobody is."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from tenants import keys
from tenants.models import AuditEntry, Member, User


@pytest.fixture
def home(db: None, tmp_path: Path, settings: Any) -> Path:
    settings.HOME = str(tmp_path)
    return tmp_path


def begin(**options: str) -> str:
    said = StringIO()
    call_command("begin", stdout=said, **options)
    return said.getvalue()


def test_the_first_person_can_sign_in_and_their_key_is_theirs(home: Path) -> None:
    assert "root is admin of initech" in begin(tenant="initech", username="root")
    made = json.loads((home / "dev.json").read_text())
    user, member = User.objects.get(username="root"), Member.objects.get(tenant__slug="initech")
    assert user.check_password(made["admin"]["password"]) and (member.user, member.role) == (user, "admin")
    found = keys.verify(made["admin_api_key"])
    assert found is not None and found.tenant.slug == "initech"
    assert {"user.created", "member.created", "apikey.created"} <= set(AuditEntry.objects.values_list("action", flat=True))
    assert "first steps" in signed_in(user).lower()


def signed_in(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.get("/").content.decode()


def test_where_people_are_nothing_is_made(home: Path) -> None:
    User.objects.create(username="somebody")
    assert "Nothing was made" in begin()
    assert User.objects.count() == 1 and not (home / "dev.json").exists()


def test_a_tenant_that_is_no_slug_is_refused_with_the_cure(home: Path) -> None:
    with pytest.raises(CommandError, match="lower-case letters"):
        begin(tenant="No Slug!")
    assert not User.objects.exists()
