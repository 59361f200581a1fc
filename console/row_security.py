"""Row-level security: which rows the role of the web process sees and may write, by `app.tenant` (see `tenants.scope`).

`GUARDED` is the whole rule; every other table is in `OPEN` with the reason, and a test holds that no table is in neither.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

PREFIX = "sbx_"  # of the policies that are ours to replace


@dataclass(frozen=True, slots=True)
class Own:
    """Rows of one tenant. `shared`: those without a tenant are for every tenant to read, else they are the platform's own."""

    column: str = "tenant_id"
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that belong to a row of another guarded table, and are seen and written with it."""

    column: str
    of: str
    key: str = "id"


OWN, SHARED = Own(), Own(shared=True)
OF_RUN = Part("run_id", "run")
GUARDED: dict[str, Own | Part] = {
    "approvals_approval": OWN,
    "approvals_approvaldecision": Part("approval_id", "approvals_approval"),
    "approvals_delegation": OWN,
    "approvals_glassreview": OWN,
    "approvals_group": OWN,
    "approvals_group_people": Part("group_id", "approvals_group"),
    "approvals_opening": Part("approval_id", "approvals_approval"),
    "approvals_standinggrant": OWN,
    "call": OWN,
    "console_bulk": OWN,
    "console_bulkitem": Part("bulk_id", "console_bulk"),
    "console_callhour": OWN,
    "console_channel": OWN,
    "console_delivery": OWN,
    "console_incident": OWN,
    "console_incidententry": Part("incident_id", "console_incident"),
    "console_incidentrun": Part("incident_id", "console_incident"),
    "console_policybacktest": OWN,
    "console_runhour": OWN,
    "console_savedview": OWN,
    "controls": OWN,
    "event": OWN,
    "run": OWN,
    "run_input": OF_RUN,
    "runs_case": SHARED,
    "runs_deletedhistory": OWN,
    "runs_draftdecision": OWN,
    "runs_effectclaim": OWN,
    "runs_evaluation": OWN,
    "runs_memoryitem": OWN,
    "runs_memoryuse": OWN,
    "runs_observation": OWN,
    "runs_retention": OWN,
    "runs_score": OWN,
    "runs_switch": SHARED,
    "runs_undo": OWN,
    "runs_unknownwrite": OWN,
    "step": OWN,
    "tenants_auditentry": OWN,
    "tenants_ceiling": SHARED,
    "tenants_credential": OWN,
    "tenants_idempotencyrecord": OWN,
    "tenants_reservation": OF_RUN,
    "tenants_settlement": OF_RUN,
    "tenants_spending": Part("ceiling_id", "tenants_ceiling"),
    "tools_breaker": OWN,
    "tools_permission": SHARED,
    "tools_policyversion": SHARED,
    "tools_rule": SHARED,
}
BEFORE = "read before the tenant is known"
INSTALLATION = "belongs to the installation"
HASHES = "numbers and hashes of chains, nothing that anybody wrote"
OPEN = {
    "tenants_apikey": BEFORE,
    "tenants_member": BEFORE,
    "tenants_ratebucket": BEFORE,
    "tenants_tenant": BEFORE,
    "tenants_user": BEFORE,
    "tenants_user_groups": BEFORE,
    "tenants_user_user_permissions": BEFORE,
    "django_session": BEFORE,
    "account_emailaddress": BEFORE,
    "account_emailconfirmation": BEFORE,
    "mfa_authenticator": BEFORE,
    "socialaccount_socialaccount": BEFORE,
    "socialaccount_socialapp": BEFORE,
    "socialaccount_socialtoken": BEFORE,
    "console_guess": BEFORE,
    "console_invitation": BEFORE,
    "console_keyallowlist": BEFORE,
    "console_preference": BEFORE,
    "console_session": BEFORE,
    "console_detector": INSTALLATION,
    "console_examination": INSTALLATION,
    "console_foldedhour": INSTALLATION,
    "console_runbook": INSTALLATION,
    "console_runbookversion": INSTALLATION,
    "console_telemetryexport": INSTALLATION,
    "console_telemetrysent": INSTALLATION,
    "engine": INSTALLATION,
    "runs_agent": INSTALLATION,
    "runs_canary": INSTALLATION,
    "runs_modeldefinition": INSTALLATION,
    "runs_modelversion": INSTALLATION,
    "runs_release": INSTALLATION,
    "runs_releasemove": INSTALLATION,
    "runs_rollout": INSTALLATION,
    "runs_suite": INSTALLATION,
    "tenants_auditcheckpoint": HASHES,
    "tenants_audithead": HASHES,
    "tenants_auditlink": HASHES,
    "tenants_auditnote": HASHES,
    "tenants_auditverified": HASHES,
    "tenants_egressallow": INSTALLATION,
    "tools_mcpserver": INSTALLATION,
    "tools_tool": INSTALLATION,
    "tools_toolversion": INSTALLATION,
}

# Sub-selects without a reference to the row: evaluated once for a statement, not once for a row. CASE, because the sides of an
# `or` may be evaluated in any order, and `*` is no array of ids.
EVERYTHING = "(select current_setting('app.tenant', true) = '*')"
SEEN = """(select case when current_setting('app.tenant', true) in ('', '*') then null
    else string_to_array(current_setting('app.tenant', true), ',')::uuid[] end)"""


@dataclass(frozen=True, slots=True)
class Policy:
    table: str
    role: str
    command: str  # all, select
    condition: str

    @property
    def name(self) -> str:
        """Says what it says: a policy that is there under its name need not be made again."""
        return PREFIX + hashlib.sha256(f"{self.role} {self.command} {self.condition}".encode()).hexdigest()[:16]


def condition(table: str, guard: Own | Part) -> str:
    if isinstance(guard, Part):
        whole = condition("whole", GUARDED[guard.of])  # not what is only shared: others' sums stay out of sight
        return f"exists (select from {guard.of} whole where whole.{guard.key} = {table}.{guard.column} and ({whole}))"
    return f"{EVERYTHING} or {table}.{guard.column} = any({SEEN}::uuid[])"


def policies(web: str | None, unconfined: set[str]) -> Iterator[Policy]:
    """`web`: the role that sees by scope. `unconfined`: the roles that see and write every row."""
    for table, guard in GUARDED.items():
        if web:
            yield Policy(table, web, "all", condition(table, guard))
        if web and isinstance(guard, Own) and guard.shared:
            yield Policy(table, web, "select", f"{table}.{guard.column} is null")
        for role in sorted(unconfined):
            yield Policy(table, role, "all", "true")


PRESENT = """
select c.relname, c.relrowsecurity, array(select p.polname::text from pg_policy p join pg_roles r on r.oid = any(p.polroles)
  where p.polrelid = c.oid and p.polname like %(ours)s and r.rolname = any(%(roles)s))
from pg_class c where c.relnamespace = 'public'::regnamespace and c.relname = any(%(tables)s)
"""


def enforce(connection: BaseDatabaseWrapper, web: str | None, unconfined: set[str]) -> None:
    """Run by the owner, whom nothing of it holds: ENABLE, never FORCE. It only ever adds guards, and replaces policies of these roles.

    A table at a time, each in one statement, and only where something differs: there is no moment without a policy.
    """
    wanted = list(policies(web, unconfined))
    values: dict[str, Any] = {"ours": f"{PREFIX}%", "roles": sorted(unconfined | {web or ""}), "tables": list(GUARDED)}
    with connection.cursor() as cursor:
        cursor.execute(PRESENT, values)
        for table, guarded, there in cursor.fetchall():
            changes = list(_changes(table, guarded, set(there), [one for one in wanted if one.table == table]))
            if changes:
                cursor.execute(sql.SQL("; ").join(changes))


def _changes(table: str, guarded: bool, there: set[str], wanted: list[Policy]) -> Iterator[sql.Composed]:
    name = sql.Identifier(table)
    for old in sorted(there - {one.name for one in wanted}):
        yield sql.SQL("drop policy {} on {}").format(sql.Identifier(old), name)
    for new in wanted:
        if new.name not in there:
            yield made(new)
    if wanted and not guarded:
        yield sql.SQL("alter table {} enable row level security").format(name)


def made(policy: Policy) -> sql.Composed:
    parts = {
        "name": sql.Identifier(policy.name),
        "table": sql.Identifier(policy.table),
        "role": sql.Identifier(policy.role),
        "command": sql.SQL(policy.command),
        "condition": sql.SQL(policy.condition),
    }
    return sql.SQL("create policy {name} on {table} for {command} to {role} using ({condition})").format(**parts)
