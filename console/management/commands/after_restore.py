"""`manage.py after_restore`: once after a backup was restored, before the engines start."""

from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runs import restored
from tenants.errors import Refused


class Command(BaseCommand):
    help = (
        "Once after a backup was restored, before the engines start: runs that were in flight then ask a person before every write, and"
        " writes that were on their way are unknown. Nothing that may have been sent since is sent again by itself."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--restored-to", required=True, help="the time that the backup shows, with its zone: 2026-01-31T12:00:00Z")

    def handle(self, *args: Any, restored_to: str, **options: Any) -> None:
        try:
            to = datetime.fromisoformat(restored_to)
        except ValueError:
            to = None
        if to is None or to.tzinfo is None:
            raise CommandError(f"{restored_to} is no time with a zone. Write it as 2026-01-31T12:00:00Z.")
        try:
            held = restored.hold(to)
        except Refused as refused:
            raise CommandError(refused.message)
        self.stdout.write(
            f"{held.runs} runs ask before every write, {held.unknown} writes are unknown, {held.voided} requests are made anew."
            " The engines may start."
        )
