"""`manage.py alive engine|jobs`: is the process of this host at work? For health checks of container runtimes."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.db.models.functions import Now

from runs.engine.host import Host
from runs.models import Engine

from .jobs import OVERDUE, canary_age


class Command(BaseCommand):
    help = "Exit code 0 while an engine of this host holds its lease, or while the jobs cluster works; a container is a host."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=("engine", "jobs"))

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        try:
            alive = engine() if what == "engine" else jobs()
        except DatabaseError:
            alive = True  # a database that is away accuses nobody: a restart would not bring it back
        if not alive:
            raise CommandError(f"{what} is not at work here: see its log.")


def engine() -> bool:
    here = Host.here()
    return Engine.objects.filter(host=here.name, boot_id=here.boot_id, lease_until__gt=Now()).exclude(pid=0).exists()


def jobs() -> bool:
    age = canary_age()
    return age is not None and age < OVERDUE
