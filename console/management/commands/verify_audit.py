"""`manage.py verify_audit`: does the audit trail still say what was written?"""

from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from console import audit_health
from tenants import checkpoints, verification
from tenants.chain import PLATFORM
from tenants.errors import Refused
from tenants.models import Tenant


class Command(BaseCommand):
    help = "Walk the audit trail's chains and hold them to the signed checkpoints. Exit code 1 at the first place that does not hold."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", default="", help="only this tenant's chain, by its slug; `platform`: the installation's own")
        parser.add_argument("--keys", action="store_true", help="print the public keys that check the checkpoints, and verify nothing")

    def handle(self, *args: Any, tenant: str, keys: bool, **options: Any) -> None:
        try:
            if keys:
                for name, key in checkpoints.public_keys().items():
                    self.stdout.write(f"{name} {key}")
                return
            self.walk([chain_named(tenant)] if tenant else None)
        except Refused as refused:
            raise CommandError(refused.message)

    def walk(self, chains: list[UUID] | None) -> None:
        entries = count = 0
        for looked in verification.verify(chains):
            audit_health.keep(looked)
            name = audit_health.names([looked.chain])[looked.chain]
            if looked.broken is not None:
                broken = looked.broken
                self.stderr.write(f"BROKEN chain {name}, entry {broken.seq}: {broken.what}.\n    {broken.cure}")
                raise SystemExit(1)
            if looked.reached.seq:
                self.stdout.write(f"{name}: {looked.reached.seq:,} entries hold.")
            entries, count = entries + looked.reached.seq, count + 1
        self.stdout.write(f"{count} chains, {entries:,} entries, nothing is missing and nothing was changed.")


def chain_named(name: str) -> UUID:
    if name == "platform":
        return PLATFORM
    found = Tenant.objects.filter(slug=name).values_list("id", flat=True).first()
    if found is None:
        raise CommandError(f"There is no tenant {name}. Give its slug, or `platform`.")
    return found
