"""`manage.py doctor`: do the tables still say what must be true?"""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection

from console.doctor import Finding, examine
from console.doctor_rules import RULES


class Command(BaseCommand):
    help = "Check what must hold in the tables whatever happened. Exit code 1 when something does not; warnings alone leave it 0."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", dest="as_json", help="print the findings as JSON")

    def handle(self, *args: Any, as_json: bool, **options: Any) -> None:
        findings = examine(connection)
        broken = [one for one in findings if not one.warning]
        if as_json:
            said = {"examined": len(RULES), "violations": len(broken), "findings": [asdict(one) for one in findings]}
            self.stdout.write(json.dumps(said, indent=2))
        else:
            for one in findings:
                self.stdout.write(told(one))
            self.stdout.write(f"{len(RULES)} rules, {len(broken)} violated, {len(findings) - len(broken)} warnings.")
        if broken:
            raise SystemExit(1)


def told(one: Finding) -> str:
    lines = [f"{'warning' if one.warning else 'VIOLATED'} {one.name}: {one.meaning}", f"    {one.cure}"]
    return "\n".join([*lines, *(f"    {each}" for each in one.ids)])
