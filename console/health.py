"""Liveness and readiness, told as they are."""

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models.functions import Now
from django.http import HttpRequest, JsonResponse

from runs.models import Engine


def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers. Says nothing about the database."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """200 when runs can be accepted and driven: database reachable, migrations applied, an engine alive."""
    found = checks()
    ready = all(found.values())
    return JsonResponse({"status": "ready" if ready else "not_ready", "checks": found}, status=200 if ready else 503)


def checks() -> dict[str, bool]:
    found = {"database": False, "migrations": False, "engine": False}
    try:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
        found["database"] = True
        executor = MigrationExecutor(connection)
        found["migrations"] = not executor.migration_plan(executor.loader.graph.leaf_nodes())
        found["engine"] = found["migrations"] and Engine.objects.filter(lease_until__gt=Now()).exclude(pid=0).exists()
    except DatabaseError:
        pass
    return found
