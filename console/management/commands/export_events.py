"""`manage.py export_events`: events as NDJSON on standard output."""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from console import exports
from console.api.run_filters import moment
from console.retention import database_now
from runs.models import Event, Run
from tenants.errors import Refused
from tenants.ids import decode
from tenants.models import Tenant
from tenants.scope import ALL


class Command(BaseCommand):
    help = "Write events to standard output as NDJSON, one object a line, in the form of the API (docs/events.md)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--since", help="a time like 2026-01-31T12:00:00Z; without it, from the first event on")
        parser.add_argument("--until", help="a time; without it, up to ten seconds ago")
        parser.add_argument("--tenant", help="the slug of one tenant")
        parser.add_argument("--agent", default="", help="of runs of this agent only")
        parser.add_argument("--run", help="agt_…: all events of this run, whatever their time")

    def handle(self, *args: Any, run: str | None, **options: Any) -> None:
        try:
            for page in of_run(run) if run else walk(**options):
                sys.stdout.buffer.write(exports.lines(page))
        except Refused as refused:
            raise CommandError(refused.message) from None


def of_run(run_id: str) -> Iterator[list[Event]]:
    try:
        run = Run.objects.filter(id=decode("agt", run_id)).first()
    except ValueError:
        run = None
    if run is None:
        raise CommandError(f"There is no run {run_id}. An id looks like agt_….")
    return exports.of_run(run.id, ALL, run.seq)


def walk(since: str | None, until: str | None, tenant: str | None, agent: str, **_: Any) -> Iterator[list[Event]]:
    one = Tenant.objects.filter(slug=tenant).first() if tenant else None
    if tenant and one is None:
        raise CommandError(f"There is no tenant {tenant}. Its slug is wanted.")
    settled = database_now() - exports.SETTLED
    end = min(moment(until, "until"), settled) if until else settled
    begin = moment(since, "since") if since else exports.EVER
    return exports.walk(exports.Wanted(ALL, begin, end, one.pk if one else None, agent))
