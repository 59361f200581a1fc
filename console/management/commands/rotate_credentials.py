"""`manage.py rotate_credentials`: seal credentials and sensitive memory under the newest key, and prove that no older one is needed."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runs import memory_rotation
from runs.models import MemoryItem
from tenants import audit, rotation
from tenants.errors import Refused
from tenants.models import Credential

SHOWN = 20


class Command(BaseCommand):
    help = "Seal every credential under the first of SEALING_KEYS, during traffic. Exit code 1 when one still needs another key."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--batch", type=int, default=rotation.BATCH, help="rows that are locked at a time")
        parser.add_argument("--check", action="store_true", help="change nothing, only count what still needs another key")

    def handle(self, *args: Any, batch: int, check: bool, **options: Any) -> None:
        try:
            sealed = 0 if check else sum(rotation.rotate(max(1, batch))) + sum(memory_rotation.rotate(max(1, batch)))
            left = rotation.left() + memory_rotation.left()
        except Refused as refused:
            raise CommandError(refused.message)
        if sealed:
            audit.append(None, "credentials.rotated", "credential", "all", None, {"sealed": sealed, "left": len(left)}, tenant=None)
        held = f"{Credential.objects.count()} credentials"
        if items := MemoryItem.objects.filter(sealed__isnull=False).count():
            held += f" and {items} items of memory"
        self.stdout.write(f"{held}, {sealed} sealed anew, {len(left)} do not open with the newest key alone.")
        for name in left[:SHOWN]:
            self.stdout.write(f"    {name}")
        if left:
            self.stdout.write("Keep the older keys and run it again. One that no key opens has to be entered again.")
            raise SystemExit(1)
        self.stdout.write("The older keys may go.")
