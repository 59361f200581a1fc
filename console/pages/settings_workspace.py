"""Settings > Workspace: what holds for the tenant and for this installation, to look at. Changed where each line leads."""

import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from console import health, retention
from runs.models import Retention
from tenants.actors import Actor

from .session import signed_in
from .spend import ceilings_of

READY = {  # what /readyz checks -> what it is, and what follows when it is not
    "database": ("The database answers", "The database does not answer: nothing can be read or accepted."),
    "migrations": ("Its tables are those of this version", "Migrations are missing: run manage.py migrate."),
    "engine": ("An engine is alive", "No engine is alive: runs are accepted and wait. Start one with manage.py engine."),
}


@dataclass(frozen=True, slots=True)
class Fact:
    well: bool
    words: str


@cache
def version() -> str:
    """Empty where only the code was copied."""
    try:
        return str(tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]["version"])
    except OSError:
        return ""


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    kept = Retention.objects.filter(tenant=actor.tenant).first()
    context: dict[str, Any] = {
        "facts": [Fact(well, READY[name][0 if well else 1]) for name, well in health.checks().items()],
        "history_days": kept.history_days if kept else None,
        "message_days": retention.MESSAGES.days,
        "session_min": settings.SESSION_IDLE_S // 60,
        "public_url": settings.PUBLIC_URL,
        "version": version(),
    }
    return render(request, "pages/settings/workspace.html", context | ceilings_of(actor, timezone.now()))
