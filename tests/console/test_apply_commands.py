"""`manage.py apply` and `manage.py demo`, as somebody types them."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from runs.models import ModelDefinition
from tenants import credentials, keys
from tenants.models import ApiKey, Member, Tenant, User

from .test_apply import TEXT, counts, parts

# -- the commands -----------------------------------------------------------------------------------------------------------


def test_the_command_prints_what_it_changes_and_then_that_nothing_did(
    db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DESK_TOKEN", "desk-secret-1")
    file = tmp_path / "a.yaml"
    file.write_text(TEXT)
    call_command("apply", str(file), "--dry-run")
    told = capsys.readouterr().out
    assert "+ tool create_ticket" in told
    assert "Nothing was changed. It would be: 11 created" in told
    assert not Tenant.objects.exists()
    call_command("apply", str(file))
    assert "Applied: 11 created" in capsys.readouterr().out
    call_command("apply", str(file))
    assert capsys.readouterr().out == "Applied: 11 unchanged.\n"
    assert "desk-secret" not in told


@pytest.mark.mission("P2.2")
def test_the_command_prints_what_the_lint_says_below_the_tool_it_says_it_of(
    db: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = parts()["tools"][0] | {"adapter": {"kind": "http", "url": "https://desk.example.com/"}, "description": "\u202eOpen."}
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"tools": [block | {"credential": ""}]}))
    call_command("apply", str(file))
    assert capsys.readouterr().out.splitlines() == [
        "+ tool create_ticket",
        "    !! error   invisible_text /description: holds characters that cannot be seen: U+202E",
        "    !  warning nothing_required /input_schema/required: no argument is required: name those that are",
        "    !  warning no_output_schema /output_schema: results are not checked: say what they look like",
        "Applied: 1 created. The lint of these tools says: 1 error, 2 warnings.",
    ]
    call_command("apply", str(file))
    assert capsys.readouterr().out == "Applied: 1 unchanged.\n"


@pytest.mark.parametrize("text", ["tenants: [", "suites: [{colour: r}]", "colour: red"])
def test_the_command_fails_with_one_line_that_says_why(db: None, tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(CommandError, match=r"\ANothing was changed\. [^\n]+\Z"):
        call_command("apply", str(file))
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("apply", str(tmp_path / "none.yaml"))


@pytest.fixture
def home(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings.HOME = tmp_path
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def demo(home: Path) -> dict[str, Any]:
    call_command("demo", verbosity=0)
    return dict(json.loads((home / "dev.json").read_text()))


def test_the_demo_has_people_and_keys_that_work_and_keeps_them(db: None, home: Path) -> None:
    first = demo(home)
    assert stat.S_IMODE((home / "dev.json").stat().st_mode) == 0o600
    assert {"base_url", "api_key", "admin_api_key", "operator", "approver", "admin", "sandbox_url", "globex_api_key"} <= set(first)
    for role in ("operator", "approver", "admin"):
        user = User.objects.get(username=first[role]["username"])
        assert user.check_password(first[role]["password"])
        assert (user.is_staff, user.is_platform_admin) == (True, role == "admin")
        assert Member.objects.get(user=user, role=role).tenant.slug == "acme"
    operator, admin, other = (keys.verify(first[name]) for name in ("api_key", "admin_api_key", "globex_api_key"))
    assert (operator.role, operator.tenant.slug, operator.can("runs:write"), operator.can("config:write")) == (
        "operator",
        "acme",
        True,
        False,
    )
    assert (admin.platform_admin, admin.can("config:write"), admin.can("audit:read")) == (True, True, True)
    assert (other.tenant.slug, other.platform_admin) == ("globex", False)
    before = counts()
    assert demo(home) == first
    assert counts() == before


def test_the_demo_replaces_what_no_longer_works(db: None, home: Path) -> None:
    first = demo(home)
    keys.revoke(ApiKey.objects.get(member__user__username="operator"))
    User.objects.filter(username="approver").update(password="!")
    second = demo(home)
    assert {name for name in first if first[name] != second[name]} == {"api_key", "approver"}
    assert keys.verify(second["api_key"]).user.username == "operator"


def test_the_demo_points_at_a_real_provider_when_one_is_given(db: None, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8123/v1/")
    monkeypatch.setenv("OPENAI_API_KEY", "provider-key")
    demo(home)
    models = {m.name: m for m in ModelDefinition.objects.all()}
    for name in ("primary", "fast-router", "premium"):
        assert (models[name].base_url, models[name].model) == ("http://127.0.0.1:8123/v1", "gpt-4o-mini")
        assert (models[name].credential, models[name].price_input) == ("openai-key", None)
    for tenant in Tenant.objects.all():
        assert credentials.open_all(tenant.id)["openai-key"].secret == "provider-key"
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    demo(home)
    assert set(ModelDefinition.objects.values_list("credential", flat=True)) == {""}
    assert ModelDefinition.objects.get(name="primary").base_url == f"{settings.SANDBOX_URL}/v1"
