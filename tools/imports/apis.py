"""Operations of OpenAPI documents, taken into the registry by a platform admin who names them."""

from django.db import transaction

from tenants.actors import Actor
from tenants.errors import Refused
from tools import catalog
from tools.models import Tool

from . import documents, openapi
from .drafts import Draft


def import_operations(
    actor: Actor | None,
    raw: bytes,
    prefix: str,
    chosen: list[str],
    *,
    base_url: str = "",
    credential: str = "",
    tenants: tuple[str, ...] = (),
    dry_run: bool = False,
) -> list[tuple[Draft, bool]]:
    """-> each draft, and whether it was made or changed. Only operations in `chosen` are; none chosen: all are shown.

    Refuses: platform_admin_needed 403; as `documents.read`; bad_url, unknown_operation, not_importable, and as `catalog.put`, 422.
    """
    catalog.need_platform_admin(actor)
    document = documents.read(raw)
    url = openapi.base_url(document, base_url)
    found = openapi.drafts(document, prefix, url=url, credential=credential, tenants=tenants)
    known = {one.remote for one in found}
    if missing := [each for each in chosen if each not in known]:
        raise Refused("unknown_operation", f"The document has no operation {missing[0][:100]}.", operation=missing[0][:100])
    if dry_run or not chosen:
        return [(one, False) for one in found]
    return put_all(actor, prefix, [one for one in found if one.remote in chosen])


@transaction.atomic
def put_all(actor: Actor | None, prefix: str, wanted: list[Draft]) -> list[tuple[Draft, bool]]:
    done = []
    for one in wanted:
        if one.spec is None:
            raise Refused("not_importable", f"{one.remote[:100]} cannot be imported: {one.problem}.", operation=one.remote[:100])
        held = Tool.objects.filter(name=one.name).first()
        if held is not None and (held.origin or {}).get("document") != prefix:
            raise Refused("name_taken", f"There is a tool {one.name} that came from elsewhere: choose another name.", tool=one.name)
        version, changed = catalog.put(actor, one.name, one.spec)
        origin = {"kind": "openapi", "document": prefix, "operation": one.remote, "sha256": version.sha256}
        Tool.objects.filter(name=one.name).update(origin=origin)
        done.append((one, changed))
    return done
