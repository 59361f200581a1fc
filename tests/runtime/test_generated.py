"""Invented history is like real history: no rule of the doctor, no schema and no rebuild can tell."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from approvals.models import Approval
from console.doctor import examine
from console.generated import stories
from console.management.commands.generate import furnish
from console.retention import database_now
from runs.models import Event, Run
from tests import history


@pytest.mark.mission("P8.3")
def test_what_is_generated_holds_like_what_was_run(committed_db: None) -> None:
    out = StringIO()
    call_command("generate", runs=400, days=3, tenants=3, stdout=out)

    assert Run.objects.count() == 400 and "400 of 400 runs" in out.getvalue()
    assert set(Run.objects.values_list("state", flat=True)) == {"succeeded", "failed", "cancelled", "waiting_approval"}
    assert Event.objects.count() > 3000 and Approval.objects.filter(state="pending").exists()
    assert [one for one in examine(connection) if not one.warning] == []
    assert history.faults() == []
    with pytest.raises(CommandError, match="has runs"):
        call_command("generate", runs=1)


def test_the_same_seed_tells_the_same_stories(committed_db: None) -> None:
    places, now = furnish(2), database_now()

    def told(seed: int) -> list[Any]:
        return [(story.id, story.place.agent, story.events) for story in stories(places, 20, now, 2, seed)]

    assert told(7) == told(7) != told(8)
