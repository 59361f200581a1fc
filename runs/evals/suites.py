"""Suites and their cases: the only writer. They belong to the installation; what was made from a run is its tenant's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet

from runs.limits import Strict
from runs.models import Case, Run, Suite
from runs.spec import Name
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import new_id
from tenants.models import User
from tools.canonical import dumps
from tools.catalog import need_platform_admin
from tools.spec import Slug

from .cases import CaseSpec, read

JSON = dict[str, Any]
Action = Literal["create", "update", "unchanged"]
MOST = 10_000  # cases of a suite
MAX_IMPORT = 64 << 20  # bytes of one import
MAX_LINE = 1 << 20
TOLD = 50  # wrong lines that a refusal names
BATCH = 500


class SuiteSpec(Strict):
    """A block of `suites:` in a configuration document. `cases` absent: they stay as they are."""

    name: Name
    description: str = ""
    tenants: tuple[Slug, ...] = ()
    cases: tuple[JSON, ...] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """Keys of the cases, by what became of them."""

    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: int = 0
    removed: tuple[str, ...] = ()

    def as_json(self) -> JSON:
        counts = {name: len(getattr(self, name)) for name in ("created", "updated", "removed")}
        return counts | {"unchanged": self.unchanged}


@transaction.atomic
def put_suite(actor: Actor | None, name: str, description: str = "", tenants: tuple[str, ...] = ()) -> tuple[Suite, Action]:
    """Refuses: platform_admin_needed 403; suite_holds_runs 409 where cases made from a tenant's runs would be shown to others."""
    need_platform_admin(actor)
    after = {"description": description, "tenants": sorted(set(tenants))}
    row = Suite.objects.select_for_update(no_key=True).filter(name=name).first()
    before = {"description": row.description, "tenants": row.tenants} if row else None
    if row is not None and before == after:
        return row, "unchanged"
    if row is not None:
        check_owners(row, after["tenants"])  # type: ignore[arg-type]
    row, _ = Suite.objects.update_or_create(name=name, defaults=after)
    audit.append(actor, "suite.updated" if before else "suite.created", "suite", name, before, after, tenant=None)
    return row, "update" if before else "create"


def check_owners(suite: Suite, tenants: list[str]) -> None:
    """A case that was made from a run holds what its tenant's people wrote: nobody else is to see it."""
    owners = set(Case.objects.filter(suite=suite, tenant__isnull=False).values_list("tenant__slug", flat=True).distinct())
    if owners and set(tenants) != owners:
        names = ", ".join(sorted(owners))
        message = f"Cases of {suite.name} were made from runs of {names}: it stays with tenants: [{names}]. Make another suite for others."
        raise Refused("suite_holds_runs", message, 409, tenants=sorted(owners))


@transaction.atomic
def put_cases(actor: Actor | None, suite: Suite, specs: list[CaseSpec], *, prune: bool = False, made_from: Run | None = None) -> Done:
    """All or nothing. A changed case gets a new version, an equal one stays; `prune` ends those that are not given.

    Refuses: platform_admin_needed 403, too_many_cases, duplicate_key 422.
    """
    need_platform_admin(actor)
    held = Suite.objects.select_for_update(no_key=True).get(pk=suite.pk)
    wanted = keyed(specs)
    now = {case.key: case for case in current(held)}
    fresh = {key: digest for key, (_, digest) in wanted.items() if key not in now or now[key].sha256 != digest}
    gone = sorted(set(now) - set(wanted)) if prune else []
    if not fresh and not gone:
        return Done(unchanged=len(wanted))
    if len(now) + sum(key not in now for key in fresh) - len(gone) > MOST:
        raise Refused("too_many_cases", f"A suite has {MOST} cases at most. Put the others into another one.", limit=MOST)
    revision = held.revision + 1
    Case.objects.filter(pk__in=[now[key].pk for key in (*fresh, *gone) if key in now]).update(until=revision)
    versions = last_versions(held, list(fresh))
    ids = iter(sorted(new_id() for _ in fresh))  # in the order in which they were given
    rows = [
        Case(
            id=next(ids),
            suite=held,
            key=key,
            version=versions.get(key, 0) + 1,
            since=revision,
            spec=wanted[key][0],
            sha256=sha,
            added_by=who(actor),
        )
        for key, sha in fresh.items()
    ]
    for row in rows:
        row.tenant_id, row.run_id = (made_from.tenant_id, made_from.pk) if made_from else origin(now.get(row.key))
    Case.objects.bulk_create(rows, batch_size=BATCH)
    Suite.objects.filter(pk=held.pk).update(revision=revision)
    suite.revision = revision
    new, old = tuple(key for key in fresh if key not in now), tuple(key for key in fresh if key in now)
    done = Done(new, old, len(wanted) - len(fresh), tuple(gone))
    tell(actor, held, now, fresh, done)
    return done


def who(actor: Actor | None) -> User | None:
    return actor.user if actor else None


def origin(case: Case | None) -> tuple[UUID | None, UUID | None]:
    """Tenant and run: what came from a run stays its tenant's when it is edited."""
    return (case.tenant_id, case.run_id) if case else (None, None)


def keyed(specs: list[CaseSpec]) -> dict[str, tuple[JSON, str]]:
    """Key -> (content, digest)."""
    found: dict[str, tuple[JSON, str]] = {}
    for spec in specs:
        if spec.key in found:
            raise Refused("duplicate_key", f"The case {spec.key} is given twice. Give each its own key.", key=spec.key)
        content = spec.content()
        found[spec.key] = content, sha256(dumps(content)).hexdigest()
    return found


def last_versions(suite: Suite, keys: list[str]) -> dict[str, int]:
    rows = Case.objects.filter(suite=suite, key__in=keys).order_by("key", "-version").distinct("key")
    return dict(rows.values_list("key", "version"))


def tell(actor: Actor | None, suite: Suite, now: dict[str, Case], fresh: dict[str, str], done: Done) -> None:
    """One entry for each change of a case by itself, one for many together: digests, never what a case says."""
    if len(fresh) + len(done.removed) == 1:
        key = next(iter((*fresh, *done.removed)))
        action = "case.deleted" if done.removed else "case.updated" if done.updated else "case.created"
        before = {"version": now[key].version, "sha256": now[key].sha256} if key in now else None
        after = None if done.removed else {"sha256": fresh[key], "revision": suite.revision + 1}
        audit.append(actor, action, "case", f"{suite.name}/{key}", before, after, tenant=None)
        return
    after = done.as_json() | {"revision": suite.revision + 1, "sha256": digest(suite, suite.revision + 1)}
    audit.append(actor, "suite.cases_changed", "suite", suite.name, {"revision": suite.revision}, after, tenant=None)


@transaction.atomic
def remove_case(actor: Actor, suite: Suite, key: str, reason: str = "") -> None:
    """It is in no evaluation from now on; those that had it keep it. Refuses platform_admin_needed 403, not_found 404."""
    need_platform_admin(actor)
    held = Suite.objects.select_for_update(no_key=True).get(pk=suite.pk)
    case = current(held).filter(key=key).first()
    if case is None:
        raise NotFound("case")
    Case.objects.filter(pk=case.pk).update(until=held.revision + 1)
    Suite.objects.filter(pk=held.pk).update(revision=F("revision") + 1)
    before = {"version": case.version, "sha256": case.sha256}
    audit.append(actor, "case.deleted", "case", f"{suite.name}/{key}", before, None, reason, tenant=None)


def current(suite: Suite) -> "QuerySet[Case]":
    return Case.objects.filter(suite=suite, until__isnull=True)


def as_of(suite: Suite, revision: int) -> "QuerySet[Case]":
    return Case.objects.filter(Q(until__isnull=True) | Q(until__gt=revision), suite=suite, since__lte=revision)


def digest(suite: Suite, revision: int | None = None) -> str:
    """Of the cases as they were at a revision: what `suite@hash` means."""
    at = suite.revision if revision is None else revision
    with connection.cursor() as cursor:
        cursor.execute(
            """select encode(sha256(coalesce(string_agg(key || ':' || sha256, e'\\n' order by key collate "C"), '')::bytea), 'hex')
            from runs_case where suite_id = %s and since <= %s and (until is null or until > %s)""",
            [suite.pk, at, at],
        )
        return str(cursor.fetchone()[0])


def visible(actor: Actor) -> "QuerySet[Suite]":
    seen = Q() if actor.platform_admin else Q(tenants=[]) | Q(tenants__contains=[actor.tenant.slug])
    return Suite.objects.filter(seen)


def find(actor: Actor, name: str) -> Suite:
    found = visible(actor).filter(name=name).first() if "\0" not in name else None
    if found is None:
        raise NotFound("suite")
    return found


def find_case(suite: Suite, key: str, version: int | None = None) -> Case:
    rows = Case.objects.select_related("tenant", "added_by").filter(suite=suite, key=key)
    found = (rows.filter(until__isnull=True) if version is None else rows.filter(version=version)).first()
    if found is None:
        raise NotFound("case")
    return found


# JSON lines ---------------------------------------------------------------------------------------------------------------------


def import_jsonl(actor: Actor, suite: Suite, raw: bytes, *, prune: bool = False) -> Done:
    """One case a line, blank lines left out. Nothing is taken unless every line is good.

    Refuses: import_too_large 413, bad_lines 422 with `errors` [{line, code, path, message}], and as `put_cases` does.
    """
    need_platform_admin(actor)
    if len(raw) > MAX_IMPORT:
        raise Refused("import_too_large", "An import may have 64 MiB at most. Split it.", 413)
    specs, errors, seen = list[CaseSpec](), list[JSON](), dict[str, int]()
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            spec = read(of_line(line))
            if spec.key in seen:
                raise Refused("duplicate_key", f"The case {spec.key} stands in line {seen[spec.key]} already.")
            seen[spec.key] = number
            specs.append(spec)
        except Refused as refused:
            errors.append(wrong(number, refused))
            if len(errors) >= TOLD:
                break
    if errors:
        first = errors[0]
        message = f"Nothing was imported. Line {first['line']}: {first['message']}"
        raise Refused("bad_lines", message, errors=errors)
    return put_cases(actor, suite, specs, prune=prune)


def wrong(number: int, refused: Refused) -> JSON:
    told = refused.fields.get("errors") or [{"path": ""}]
    return {"line": number, "code": refused.code, "path": told[0]["path"], "message": refused.message}


def of_line(line: bytes) -> Any:
    if len(line) > MAX_LINE:
        raise Refused("bad_json", "The line is longer than 1 MiB.")
    try:
        text = line.decode("utf-8")
        if "\\u0000" in text:
            raise ValueError("it holds a NUL character")
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused("bad_json", f"This is not JSON: {' '.join(str(error).split())[:200]}.") from None


def export_jsonl(suite: Suite, revision: int, after: str = "", most: int = MOST) -> Iterator[tuple[str, str]]:
    """(key, line) of the cases of that revision whose key comes after, by key; they can be imported again."""
    rows = as_of(suite, revision).filter(key__gt=after).order_by("key").values_list("key", "spec")
    for key, spec in rows[:most]:
        yield key, json.dumps(spec, ensure_ascii=False, separators=(",", ":")) + "\n"
