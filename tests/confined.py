"""`pytest -p tests.confined tests/console`: each request of an in-process test is served as the web's role, under row-level security.

What the test itself does stays the engine's role. Needs the embedded PostgreSQL, whose superuser lets the one role become the other.
"""

from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from console.embedded.roles import ENGINE, WEB

from .conftest import ground, only_pure


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if only_pure(config):
        return
    from tenants.postgresql import base
    from tenants.scope import confine

    def as_web(execute: Any, statement: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        from tenants import scope

        status = context["connection"].connection.pgconn.transaction_status
        if context["connection"].alias != "default" or many or status == TransactionStatus.INERROR:
            return execute(statement, params, many, context)

        def with_role(statement: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
            role = WEB if scope._present.get() is not None else "none"
            answer = execute(f"set local role {role}; {statement}", params, many, context)
            context["cursor"].cursor.nextset()
            return answer

        inside = scope._present.get() is not None or status == TransactionStatus.INTRANS  # where the test's role must come back
        return confine(with_role if inside else execute, statement, params, many, context)

    base.confine = as_web


@pytest.fixture(scope="session", autouse=True)
def _may_become_web(request: pytest.FixtureRequest) -> None:
    if only_pure(request.config):
        return
    request.getfixturevalue("django_db_setup")
    cluster = request.config.stash[ground]._cluster
    assert cluster is not None, "tests.confined needs the embedded PostgreSQL"
    with psycopg.connect(cluster.urls_of_boot(), autocommit=True) as boot:
        boot.execute(f"grant {WEB} to {ENGINE} with inherit false".encode())
