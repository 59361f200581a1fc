"""`manage.py apply FILE...`: bring the installation to the configuration in the files."""

import os
from argparse import ArgumentParser
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from console import document
from console.apply import Action, Change, apply, sandbox_variables
from tenants.errors import Refused
from tools import lint

MARKS: dict[Action, str] = {"create": "+", "update": "~", "delete": "-"}
LINT: dict[lint.Severity, str] = {"error": "!!", "warning": "! ", "info": "  "}
WORDS: dict[Action, str] = {"create": "created", "update": "updated", "delete": "deleted", "unchanged": "unchanged"}


class Command(BaseCommand):
    help = "Apply configuration files (YAML or JSON) in one transaction and print what changed. Applying again changes nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
        parser.add_argument("--dry-run", action="store_true", help="only print what would change")
        parser.add_argument(
            "--prune",
            action="store_true",
            help="also delete permissions, egress entries, credentials and unused models that the files leave out",
        )

    def handle(self, *args: Any, files: list[Path], dry_run: bool, prune: bool, **options: Any) -> None:
        try:
            parts = [document.read(path.read_bytes()) for path in files]
            wanted = document.load(*parts, variables=sandbox_variables())
            changes = apply(None, wanted, dry_run=dry_run, prune=prune, secrets=from_environment(wanted))
        except OSError as error:
            raise CommandError(f"{error.filename or 'The file'} cannot be read: {error.strerror or error}.")
        except Refused as refused:
            raise CommandError(f"Nothing was changed. {refused.message}")
        for line in chain.from_iterable(lines(change) for change in changes):
            self.stdout.write(line)
        self.stdout.write(summary(changes, dry_run))


def from_environment(wanted: document.Document) -> dict[str, str]:
    """Only the variables that a `value_env` names."""
    names = {block.value_env for block in wanted.credentials if block.value_env}
    return {name: os.environ[name] for name in names if name in os.environ}


def lines(change: Change) -> list[str]:
    """What changes; under a tool, what the lint says of it."""
    if change.action not in MARKS:
        return []
    said = f"{MARKS[change.action]} {change.kind} {change.name}" + (f" ({', '.join(change.fields)})" if change.fields else "")
    return [said, *(f"    {LINT[f.severity]} {f.severity:<7} {f.code} {f.path}: {f.message}" for f in change.lint)]


def summary(changes: list[Change], dry_run: bool) -> str:
    many = Counter(change.action for change in changes)
    said = ", ".join(f"{many[action]} {word}" for action, word in WORDS.items() if many[action])
    return ("Nothing was changed. It would be: " if dry_run else "Applied: ") + (said or "nothing") + "." + linted(changes)


def linted(changes: list[Change]) -> str:
    found = lint.counts(chain.from_iterable(change.lint for change in changes if change.action in MARKS))
    said = ", ".join(f"{number} {severity}{'s' * (number != 1 and severity != 'info')}" for severity, number in found.items() if number)
    return f" The lint of these tools says: {said}." if said else ""
