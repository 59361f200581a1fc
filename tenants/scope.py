"""Whose rows PostgreSQL shows and takes: the tenants of whoever asks, said anew with every statement as `app.tenant`.

The web process serves as a role that sees nothing unless a scope says which tenants (`console.row_security` has the policies,
docs/adr/0012 the reasons). Engines, jobs and commands serve as a role that sees every row, and open no scope.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal
from uuid import UUID

from psycopg.pq import TransactionStatus

ALL: Literal["*"] = "*"
Tenants = Iterable[UUID] | Literal["*"]


class Scope:
    """`seen`: what `app.tenant` says while this lasts. Empty: nothing is visible."""

    __slots__ = ("seen",)

    def __init__(self, seen: str = "") -> None:
        self.seen = seen


_present: ContextVar[Scope | None] = ContextVar("tenant_scope", default=None)
_installation: ContextVar[bool] = ContextVar("installation", default=False)


@contextmanager
def tenant_scope(tenants: Tenants = ()) -> Iterator[None]:
    """Every statement inside it sees and takes the rows of these tenants and no others. None given: nothing, until `settle` says.

    RuntimeError when one is open, the same one included: the end of an inner scope would leave it unsaid which of them holds.
    """
    if _present.get() is not None:
        raise RuntimeError("A tenant scope is open already, and scopes do not nest.")
    scope = Scope(spelled(tenants))
    token = _present.set(scope)
    try:
        yield
    finally:
        scope.seen = ""  # for whatever was started inside it and lives on
        _present.reset(token)


def settle(tenants: Tenants) -> None:
    """Who asks is known now: the open scope shows their rows from here on. Nothing where no scope is open.

    RuntimeError when it has been settled otherwise: a request has one actor.
    """
    scope, wanted = _present.get(), spelled(tenants)
    if scope is None or scope.seen == wanted:
        return
    if scope.seen:
        raise RuntimeError("This scope is settled on other tenants.")
    scope.seen = wanted


@contextmanager
def installation_wide() -> Iterator[None]:
    """Inside a scope: statements for what belongs to no tenant, or to all of them, whoever asks. Works as a decorator, too.

    A test holds the list of its callers. What is read in it is never shown as it is.
    """
    token = _installation.set(True)
    try:
        yield
    finally:
        _installation.reset(token)


def spelled(tenants: Tenants) -> str:
    """As the policies read it: ids with commas, `*` for all, empty for none. Whatever is no id is refused by UUID."""
    return ALL if tenants == ALL else ",".join(sorted(str(UUID(str(tenant))) for tenant in tenants))


def said() -> str | None:
    """What a statement would say now. None: no scope is open."""
    scope = _present.get()
    return None if scope is None else ALL if _installation.get() else scope.seen


def confine(execute: Callable[..., Any], statement: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Around every statement of a connection: says the scope in the same trip and the same transaction as the statement.

    Two statements in one message are one transaction, so `set local` ends with the statement where none is open: a pooled
    connection never keeps it, and no transaction is held for it. A connection that has failed takes nothing but its rollback.
    """
    scope = _present.get()
    if scope is None or context["connection"].connection.pgconn.transaction_status == TransactionStatus.INERROR:
        return execute(statement, params, many, context)
    if many:
        raise NotImplementedError("Inside a tenant scope statements are executed one by one.")
    seen = ALL if _installation.get() else scope.seen
    answer = execute(f"set local app.tenant = '{seen}'; {statement}", params, many, context)
    context["cursor"].cursor.nextset()
    return answer
