"""`manage.py begin`: the first tenant and its first person, where there is nobody yet."""

import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from pydantic import TypeAdapter, ValidationError

from tenants import audit, controls, keys
from tenants.errors import Refused
from tenants.models import Member, Tenant, User
from tenants.roles import SCOPES, Role
from tools.spec import Slug

from .demo import earlier, write


class Command(BaseCommand):
    help = "Make the first tenant and its first admin, and write their password and API key to dev.json. Does nothing where people are."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", default="acme", help="its slug (default: %(default)s)")
        parser.add_argument("--username", default="admin", help="the first person's name (default: %(default)s)")

    def handle(self, *args: Any, tenant: str, username: str, **options: Any) -> None:
        if User.objects.exists():
            self.stdout.write("There are people already: they invite others under Members. Nothing was made.")
            return
        try:
            slug = TypeAdapter(Slug).validate_python(tenant)
            with transaction.atomic():
                known = first(slug, username)
        except ValidationError:
            raise CommandError(f"{tenant} is no slug of a tenant: lower-case letters, digits, - and _ only.") from None
        except Refused as refused:
            raise CommandError(refused.message) from None
        path = Path(settings.HOME) / "dev.json"
        write(path, earlier(path) | {"base_url": settings.PUBLIC_URL, "sandbox_url": settings.SANDBOX_URL, **known})
        self.stdout.write(f"{username} is admin of {slug} and of the platform. The password and an API key are in {path}.")


def first(slug: str, username: str) -> dict[str, Any]:
    """What `dev.json` holds of them. The password is shown nowhere else: keep it, or set another under Settings, Security."""
    tenant, new = Tenant.objects.get_or_create(slug=slug)
    controls.ensure(tenant)
    if new:
        audit.append(None, "tenant.created", "tenant", tenant.slug, None, {"slug": slug}, tenant=tenant)
    password = secrets.token_urlsafe(12)
    user = User(username=username, is_staff=True, is_superuser=True, is_platform_admin=True)
    user.set_password(password)
    user.save()
    audit.append(None, "user.created", "user", user.pk, tenant=None)
    member = Member.objects.create(tenant=tenant, user=user, role=Role.ADMIN)
    audit.append(None, "member.created", "member", member.pk, None, {"user": username, "role": Role.ADMIN}, tenant=tenant)
    key, made = keys.issue(member, "first", list(SCOPES))
    audit.append(None, "apikey.created", "apikey", key.pk, None, {"name": "first", "scopes": list(SCOPES)}, tenant=tenant)
    return {"admin": {"username": username, "password": password}, "api_key": made, "admin_api_key": made}
