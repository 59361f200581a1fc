"""Grants and policies for the plain roles, given again after every migration: they serve, they never own, they cannot change
history, and the web's sees the rows of whoever asks alone."""

from typing import Any

from django.conf import settings
from django.db import connections
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from . import row_security

APPEND_ONLY = (
    "event",
    "tenants_auditentry",
    "approvals_approvaldecision",
    "runs_release",
    "tools_toolversion",
    "runs_observation",
    "tools_policyversion",
    "tenants_auditlink",
    "tenants_auditcheckpoint",
    "console_runbookversion",
    "console_incidententry",
)
BY_TRIGGERS = ("tenants_auditlink", "tenants_audithead", "tenants_auditnote", "runs_deletedhistory")  # nobody who serves writes them


def plain_roles() -> set[str]:
    """The roles that serve, without the owner's (one role for everything is possible; `doctor` says so)."""

    return {_user(settings.WEB_URL), _user(settings.ENGINE_URL)} - {_user(settings.OWNER_URL), ""}


def confined_role() -> str | None:
    """The role that sees by tenant; None where it is the engines' or the owner's as well, which see every row."""
    web = _user(settings.WEB_URL)
    return web if web in plain_roles() - {_user(settings.ENGINE_URL)} else None


def _user(url: str) -> str:
    return str(conninfo_to_dict(url).get("user") or "")


def grant(using: str = "owner", **_: Any) -> None:
    """Runs after `migrate` as the owner. Tables made later by a migration are covered by the next run."""
    with connections[using].cursor() as cursor:
        for role in plain_roles():
            name = sql.Identifier(role)
            cursor.execute(sql.SQL("grant usage on schema public to {0}").format(name))
            cursor.execute(sql.SQL("grant select, insert, update, delete on all tables in schema public to {0}").format(name))
            cursor.execute(sql.SQL("grant usage, select on all sequences in schema public to {0}").format(name))
            for table in APPEND_ONLY:
                statement = sql.SQL("revoke update, delete, truncate on {1} from {0}")
                cursor.execute(statement.format(name, sql.Identifier(table)))
            for table in BY_TRIGGERS:
                statement = sql.SQL("revoke insert, update, delete, truncate on {1} from {0}")
                cursor.execute(statement.format(name, sql.Identifier(table)))
            if role != confined_role():  # the web deletes no history
                cursor.execute(sql.SQL("grant execute on function forget_runs(uuid[], timestamptz) to {0}").format(name))
    web = confined_role()
    row_security.enforce(connections[using], web, plain_roles() - {web or ""})
