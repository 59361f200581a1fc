"""The detectors of the installation: how each is set, and the only writer of that. Changed by platform admins.

Each kind that has no detector yet gets one, named as the kind and set as `kinds` says, on the first look.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from django.db import transaction
from django.db.models import QuerySet
from pydantic import ValidationError

from console.models import Detector
from console.runbooks import shelf
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools.catalog import need_platform_admin

from . import parameters
from .detectors import Rule
from .kinds import KINDS
from .parameters import NAME, DetectorSpec, Parameters

JSON = dict[str, Any]
Action = Literal["create", "update", "unchanged"]


def ensure() -> None:
    """A detector for every kind; those that are there stay as they are."""
    there = set(Detector.objects.values_list("kind", flat=True))
    missing = [kind for name, kind in KINDS.items() if name not in there]
    rows = (Detector(name=kind.name, **values(DetectorSpec(kind=kind.name))) for kind in missing)
    Detector.objects.bulk_create(rows, ignore_conflicts=True)


def listed() -> "QuerySet[Detector]":
    ensure()
    return Detector.objects.order_by("name")


def visible(actor: Actor) -> list[Detector]:
    """Those that look at the actor's tenant; a platform admin's: all."""
    rows = list(listed())
    return rows if actor.platform_admin else [row for row in rows if looks_at(row, actor.tenant.slug)]


def find(actor: Actor, name: str) -> Detector:
    found = next((row for row in visible(actor) if row.name == name), None)
    if found is None:
        raise NotFound("detector")
    return found


def looks_at(row: Detector, slug: str) -> bool:
    return not row.tenants or slug in row.tenants


def parameters_of(row: Detector) -> Parameters:
    """Refuses detector_invalid 422: the row was written by other hands."""
    return parameters.read(KINDS[row.kind].parameters, row.parameters)


def rule_of(row: Detector, instead: Mapping[str, Any] | None = None) -> Rule:
    """`instead`: other parameters, to try. Refuses detector_invalid 422."""
    held = parameters_of(row) if instead is None else parameters.read(KINDS[row.kind].parameters, instead)
    return Rule(row.name, row.kind, row.severity, held)


@transaction.atomic
def put(actor: Actor | None, name: str, given: DetectorSpec, reason: str = "") -> tuple[Detector, Action, tuple[str, ...]]:
    """-> (the detector, what was done, fields that an update changed).

    Refuses platform_admin_needed 403, detector_invalid, unknown_runbook 422, kind_fixed 409.
    """
    need_platform_admin(actor)
    ensure()
    before = Detector.objects.select_for_update(no_key=True).filter(name=name).first()
    wanted = values(named(checked(name), given, before))
    if before is not None and before.kind != wanted["kind"]:
        raise Refused("kind_fixed", f"{name} is of the kind {before.kind}. Give the other detector another name.", 409)
    if wanted["runbook"] and shelf.version(wanted["runbook"], None) is None and "runbook" in given.model_fields_set:
        raise Refused("unknown_runbook", f"There is no runbook {wanted['runbook']}. Write it first.", 422, field="runbook")
    was = as_json(before) if before else None
    fields = tuple(field for field, value in wanted.items() if was is not None and was[field] != value)
    if was is not None and not fields:
        return before, "unchanged", ()  # type: ignore[return-value]
    row, new = Detector.objects.update_or_create(name=name, defaults=wanted)
    audit.append(actor, "detector.created" if new else "detector.updated", "detector", name, was, as_json(row), reason, tenant=None)
    return row, "create" if new else "update", fields


def checked(name: str) -> str:
    """Refuses detector_invalid 422."""
    if not re.fullmatch(NAME, name):
        raise Refused("detector_invalid", "A detector's name is lower case letters, digits, _ and -, 64 at most.", 422, field="name")
    return name


def named(name: str, given: DetectorSpec, before: Detector | None) -> DetectorSpec:
    """With its kind: as given, as it is, or as its name says. Refuses detector_invalid 422."""
    kind = given.kind or (before.kind if before else name)
    if kind not in KINDS:
        raise Refused("detector_invalid", f"There is no kind {kind[:40]}. Kinds: {', '.join(KINDS)}.", 422, field="kind")
    return given.model_copy(update={"kind": kind})


def values(given: DetectorSpec) -> JSON:
    """Refuses detector_invalid 422."""
    kind = KINDS[given.kind]
    held = parameters.read(kind.parameters, given.parameters)
    return {
        "kind": kind.name,
        "enabled": given.enabled,
        "severity": given.severity or kind.severity,
        "runbook": kind.runbook if given.runbook is None else given.runbook,
        "tenants": sorted(set(given.tenants)),
        "parameters": held.model_dump(),
    }


def read(given: Mapping[str, Any]) -> DetectorSpec:
    """Refuses detector_invalid 422."""
    try:
        return DetectorSpec.model_validate(given)
    except ValidationError as error:
        raise parameters.invalid(error) from None


def as_json(row: Detector) -> JSON:
    fields = ("kind", "enabled", "severity", "runbook", "tenants", "parameters")
    return {field: getattr(row, field) for field in fields}
