"""Roles and scopes: who may do what. Pure."""

from enum import StrEnum


class Role(StrEnum):
    VIEWER = "viewer"  # reads
    OPERATOR = "operator"  # viewer + start, cancel, retry runs, decide ordinary approvals, edit tool permissions
    APPROVER = "approver"  # operator + high-risk and irreversible approvals
    ADMIN = "admin"  # everything in the tenant


ORDER = (Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN)

SCOPES = (
    "runs:write",
    "runs:read",
    "approvals:read",
    "approvals:decide",
    "config:read",
    "config:write",
    "memory:read",
    "memory:write",
    "memory:read_sensitive",
    "incidents:write",
    "audit:read",
    "metrics:read",
)

NEEDS = {  # scope -> the least role that holds it
    "runs:read": Role.VIEWER,
    "approvals:read": Role.VIEWER,
    "config:read": Role.VIEWER,
    "memory:read": Role.VIEWER,
    "metrics:read": Role.VIEWER,
    "runs:write": Role.OPERATOR,
    "approvals:decide": Role.OPERATOR,
    "memory:write": Role.OPERATOR,
    "incidents:write": Role.OPERATOR,
    "memory:read_sensitive": Role.ADMIN,
    "audit:read": Role.ADMIN,
    "config:write": Role.ADMIN,
}


def at_least(role: str, needed: Role) -> bool:
    """Whether `role` includes `needed`. An unknown role includes nothing."""
    return role in ORDER and ORDER.index(Role(role)) >= ORDER.index(needed)


def may(role: str, scope: str) -> bool:
    """Whether a member with this role holds the scope. Unknown scopes are held by nobody."""
    needed = NEEDS.get(scope)
    return needed is not None and at_least(role, needed)
