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
    checks = {"database": False, "migrations": False, "engine": False}
    try:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
        checks["database"] = True
        executor = MigrationExecutor(connection)
        checks["migrations"] = not executor.migration_plan(executor.loader.graph.leaf_nodes())
        checks["engine"] = checks["migrations"] and Engine.objects.filter(lease_until__gt=Now()).exclude(pid=0).exists()
    except DatabaseError:
        pass
    ready = all(checks.values())
    return JsonResponse({"status": "ready" if ready else "not_ready", "checks": checks}, status=200 if ready else 503)
