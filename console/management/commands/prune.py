"""`manage.py prune`: delete the history of runs that ended longer ago than their tenant keeps it."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from console import retention
from runs.models import Retention
from tenants.models import Tenant


class Command(BaseCommand):
    help = (
        "Delete the history of runs that ended longer ago than their tenant keeps it (`retention` in the configuration), and messages"
        " that left 30 days ago. The jobs cluster does the same every day."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", help="the slug of the one tenant to look at; without it, all that have a setting")

    def handle(self, *args: Any, tenant: str | None, **options: Any) -> None:
        one = Tenant.objects.filter(slug=tenant).first() if tenant else None
        if tenant and one is None:
            raise CommandError(f"There is no tenant {tenant}. Its slug is wanted.")
        done = retention.prune(one)
        settings = Retention.objects.count()
        self.stdout.write(f"{done.runs} runs and {done.messages} messages deleted; {done.kept} old runs kept, something stands on them.")
        if not settings:
            self.stdout.write("No tenant has a retention: every run is kept. Set `retention: {history_days: …}` and apply it.")
