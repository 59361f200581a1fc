"""The runbooks of the installation: the only writer. Versions never change; a runbook's pointer says which one new incidents pin.

The files in docs/runbooks are read at each start: what was never a version of a runbook becomes its newest one. What people made
of it since stays until the file changes again.
"""

import logging
from hashlib import sha256
from pathlib import Path
from typing import Literal

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Q, QuerySet

from console.models import Runbook, RunbookVersion
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools.catalog import need_platform_admin

from . import reading

log = logging.getLogger(__name__)
Action = Literal["create", "update", "unchanged"]
FILES = Path(settings.BASE_DIR) / "docs" / "runbooks"


@transaction.atomic
def put(
    actor: Actor | None, name: str, source: str, tenants: tuple[str, ...] | None = None, reason: str = ""
) -> tuple[RunbookVersion, Action]:
    """Make this text the current version of a runbook, new or there. `tenants` None: who sees it stays as it is.

    Refuses platform_admin_needed 403, bad_runbook 422.
    """
    need_platform_admin(actor)
    source = source.replace("\r\n", "\n").strip() + "\n"
    title, digest = checked(source).title, sha256(source.encode()).hexdigest()
    new = Runbook.objects.get_or_create(name=name)[1]
    runbook = Runbook.objects.select_for_update(no_key=True, of=("self",)).select_related("current").get(name=name)
    seen_by = runbook.tenants if tenants is None else sorted(set(tenants))
    before = runbook.current
    if before is not None and (before.sha256, runbook.tenants) == (digest, seen_by):
        return before, "unchanged"
    after = runbook.versions.filter(sha256=digest).order_by("number").first() or add(actor, runbook, title, source, digest)
    was = {"version": before.number, "sha256": before.sha256, "tenants": runbook.tenants} if before else None
    runbook.current, runbook.tenants = after, seen_by
    runbook.save(update_fields=["current", "tenants"])
    now = {"version": after.number, "sha256": digest, "tenants": seen_by}
    audit.append(actor, "runbook.created" if new else "runbook.updated", "runbook", name, was, now, reason, tenant=None)
    return after, "create" if new else "update"


def checked(source: str) -> reading.Book:
    """Refuses bad_runbook 422."""
    try:
        return reading.read(source)
    except reading.Unreadable as error:
        raise Refused("bad_runbook", f"The runbook cannot be read. {error}", 422, field="source")


def add(actor: Actor | None, runbook: Runbook, title: str, source: str, digest: str) -> RunbookVersion:
    last = runbook.versions.aggregate(last=Max("number"))["last"] or 0
    values = {"title": title, "source": source, "sha256": digest, "created_by": actor.user if actor else None}
    return RunbookVersion.objects.create(runbook=runbook, number=last + 1, **values)


def load_files(folder: Path = FILES) -> list[str]:
    """Names of the runbooks that the files gave a new version."""
    changed = []
    for path in sorted(folder.glob("*.md")):
        source = path.read_text(encoding="utf-8").strip() + "\n"
        if not RunbookVersion.objects.filter(runbook=path.stem, sha256=sha256(source.encode()).hexdigest()).exists():
            changed += [path.stem] if taken(path.stem, source) else []
    return changed


def taken(name: str, source: str) -> bool:
    """A file that cannot be read keeps nobody from starting: it is told, and the version before stays."""
    try:
        put(None, name, source, reason="docs/runbooks")
    except Refused as refused:
        log.error("docs/runbooks/%s.md: %s", name, refused.message)
        return False
    return True


def visible(actor: Actor) -> QuerySet[Runbook]:
    """Those that the actor's tenant sees; a platform admin's: all."""
    rows = Runbook.objects.select_related("current__created_by").filter(current__isnull=False)
    return rows if actor.platform_admin else rows.filter(Q(tenants=[]) | Q(tenants__contains=[actor.tenant.slug]))


def find(actor: Actor, name: str) -> Runbook:
    runbook = visible(actor).filter(name=name).first()
    if runbook is None:
        raise NotFound("runbook")
    return runbook


def version(name: str, number: int | None) -> RunbookVersion | None:
    """The version that an incident pinned; without a number, the current one."""
    rows = RunbookVersion.objects.select_related("created_by").filter(runbook=name)
    return rows.filter(number=number).first() if number is not None else rows.filter(pk__in=Runbook.objects.values("current")).first()


def read(held: RunbookVersion) -> reading.Book | None:
    """None for one that can no longer be read: what a page then shows is its text."""
    try:
        return reading.read(held.source)
    except reading.Unreadable:
        return None
