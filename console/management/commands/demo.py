"""`manage.py demo`: the demo's configuration, people and keys. What scripts need to know goes into `dev.json`."""

import json
import os
import secrets
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from console import document
from console.apply import apply, sandbox_variables
from console.runbooks import shelf
from runs import releases
from runs.models import Agent
from tenants import audit, keys
from tenants.errors import Refused
from tenants.models import Member, Tenant, User
from tenants.roles import SCOPES, Role, may
from tools.spec import private_host_port

DEMO = Path(__file__).resolve().parents[2] / "sandbox" / "demo.yaml"
PEOPLE = (  # username, which tenant of the demo, role
    ("operator", 0, Role.OPERATOR),
    ("approver", 0, Role.APPROVER),
    ("admin", 0, Role.ADMIN),
    ("operator-globex", 1, Role.OPERATOR),
)
KEYS = {"api_key": "operator", "admin_api_key": "admin", "globex_api_key": "operator-globex"}
WORSE = "ticket-desk", "looping"  # the agent that has a release with this planner besides its live one, for people to try out
PROVIDED = ("primary", "fast-router", "premium")  # the models that OPENAI_BASE_URL or OPENAI_API_KEY take over


class Command(BaseCommand):
    help = "Load the demo: configuration, people and API keys. Running it again keeps passwords and keys that still work."

    def handle(self, *args: Any, **options: Any) -> None:
        shelf.load_files()
        path = Path(settings.HOME) / "dev.json"
        try:
            with transaction.atomic():
                tenants = load_configuration()
                make_worse_release(*WORSE)
                known = people_and_keys(tenants, earlier(path))
        except Refused as refused:
            raise CommandError(f"The demo cannot be loaded: {refused.message}")
        write(path, {"base_url": settings.PUBLIC_URL, "sandbox_url": settings.SANDBOX_URL, **known})
        self.stdout.write(f"The demo is loaded. Logins and API keys are in {path}.")


def load_configuration() -> list[Tenant]:
    raw = document.read(DEMO.read_bytes())
    base_url, key = os.environ.get("OPENAI_BASE_URL", ""), os.environ.get("OPENAI_API_KEY", "")
    if base_url or key:
        use_provider(raw, base_url or "https://api.openai.com/v1", key)
    wanted = document.load(raw, variables=sandbox_variables())
    apply(None, wanted)
    return [Tenant.objects.get(slug=block.slug) for block in wanted.tenants]


def make_worse_release(agent: str, model: str) -> None:
    """What the agent has live, with another planner. Nothing promotes it; making it again is no new release."""
    live = Agent.objects.select_related("live").get(name=agent).live
    if live is None or live.spec["models"]["planner"]["model"] == model:
        return  # a person took it live
    planner = live.spec["models"]["planner"] | {"model": model, "fallback": []}
    releases.make(None, agent, live.spec | {"models": live.spec["models"] | {"planner": planner}})


def use_provider(raw: dict[str, Any], base_url: str, key: str) -> None:
    """The demo's models at a real provider. The prices are then those of the price list."""
    name = os.environ.get("OPENAI_MODEL") or "gpt-4o-mini"
    for model in raw["models"]:
        if model["name"] in PROVIDED:
            model |= {"base_url": base_url, "model": name, "credential": "openai-key" if key else "", "timeout_s": 30}
            model.pop("price_per_mtok_usd", None)
    if key:
        slugs = [tenant["slug"] for tenant in raw["tenants"]]
        raw["credentials"] = [{"name": "openai-key", "tenant": slug, "value": key} for slug in slugs]
    try:
        private = private_host_port(base_url)
    except ValueError as error:
        raise Refused("bad_base_url", f"OPENAI_BASE_URL: {error}.")
    if private:
        raw["egress"]["allow"] = [*raw["egress"]["allow"], private]


def people_and_keys(tenants: list[Tenant], before: dict[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    members = {}
    for username, index, role in PEOPLE:
        held = before.get(username)
        members[username], password = person(username, tenants[index], role, held if isinstance(held, dict) else {})
        known[username] = {"username": username, "password": password}
    for field, username in KEYS.items():
        known[field] = key_of(members[username], before.get(field))
    return known


def person(username: str, tenant: Tenant, role: Role, held: dict[str, Any]) -> tuple[Member, str]:
    """The member and a password that works: the one written down before, or a new one."""
    user, new = User.objects.get_or_create(username=username, defaults={"is_staff": True})
    if new and role is Role.ADMIN:
        user.is_platform_admin = user.is_superuser = True
    password = held.get("password")
    if not isinstance(password, str) or not user.check_password(password):
        password = secrets.token_urlsafe(12)
        user.set_password(password)
        user.save()
        audit.append(None, "user.created" if new else "user.password_changed", "user", user.pk, tenant=None)
    member, joined = Member.objects.get_or_create(tenant=tenant, user=user, defaults={"role": role})
    if joined:
        audit.append(None, "member.created", "member", member.pk, None, {"user": username, "role": role}, tenant=tenant)
    return member, password


def key_of(member: Member, text: Any) -> str:
    """The key written down before while it still acts as this member, else a new one with every scope of the role."""
    try:
        if isinstance(text, str) and keys.verify(text).user == member.user:
            return text
    except Refused:
        pass
    scopes = [scope for scope in SCOPES if member.user.is_platform_admin or may(member.role, scope)]
    key, made = keys.issue(member, "demo", scopes)
    audit.append(None, "apikey.created", "apikey", key.pk, None, {"name": "demo", "scopes": scopes}, tenant=member.tenant)
    return made


def earlier(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def write(path: Path, known: dict[str, Any]) -> None:
    """Whole or not at all, readable by the owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, prefix="dev-", delete=False) as draft:  # made with mode 0600
        draft.write(json.dumps(known, indent=2) + "\n")
    Path(draft.name).replace(path)
