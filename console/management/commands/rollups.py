"""Count the hours of a period anew from the runs, and say what was different."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from console import rollups

MOST = 24 * 400


class Command(BaseCommand):
    help = "Count the hours of a period anew from their runs, and print what changed. Safe while everything runs; nothing is lost by it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", required=True, help="when the first hour begins, RFC 3339, e.g. 2026-05-01T00:00:00Z")
        parser.add_argument("--until", help="when the last hour ends; now, if not given")

    def handle(self, *args: Any, **options: Any) -> None:
        since, until = at(options["since"]), at(options["until"]) if options["until"] else timezone.now()
        if not since < until:
            raise CommandError("--since must lie before --until.")
        if until - since > timedelta(hours=MOST):
            raise CommandError(f"That are more than {MOST} hours. Count them in parts.")
        count = changed = 0
        for hour in rollups.hours_between(since, until):
            for line in recount(hour):
                changed += 1
                self.stdout.write(line)
            count += 1
        self.stdout.write(f"{count} {'hour' if count == 1 else 'hours'} counted, {changed} {'row' if changed == 1 else 'rows'} changed.")


def at(text: str) -> datetime:
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise CommandError(f"{text!r} is no time with a zone, such as 2026-05-01T00:00:00Z.")
    return found


def recount(hour: datetime) -> Iterator[str]:
    """A line for each row that came out otherwise: what it is about, and each figure as it was and as it is."""
    before = rollups.kept([hour]).get(hour, {})
    runs, calls = rollups.fold(hour)
    after = {rollups.key_of(run): rollups.plain(run) for run in runs} | {rollups.key_of(call): rollups.plain(call) for call in calls}
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, {}), after.get(key, {})
        moved = [f"{name} {old.get(name, 0)} -> {new.get(name, 0)}" for name in (new or old) if old.get(name) != new.get(name)]
        if moved:
            yield f"{hour:%Y-%m-%dT%H:%MZ} {' '.join(key)}: {', '.join(moved)}"
