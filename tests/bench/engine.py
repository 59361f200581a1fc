"""One engine over a queue of runs, all its guards on. Prints one JSON line.  python -m tests.bench.engine URL RUNS CONCURRENCY [warm]

`warm`: three times as many, and the middle third is measured: an engine meets a host with ten calls at once and doubles with each
answer's time, which is not how it goes on.

Settings come from the environment as for any process. The runs are accepted (by the real intake) before the clock starts.
"""

import asyncio
import json
import os
import resource
import sys
import time
from datetime import timedelta
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
import django

django.setup()

import uvloop  # noqa: E402
from django.conf import settings  # noqa: E402
from django.utils import timezone  # noqa: E402

from runs import intake  # noqa: E402
from runs.engine.engine import Engine  # noqa: E402
from runs.models import Agent, ModelDefinition, Run  # noqa: E402
from runs.releases import create, promote  # noqa: E402
from tenants.actors import Actor  # noqa: E402
from tenants.models import Controls, EgressAllow, Member, Tenant, User  # noqa: E402
from tools import catalog  # noqa: E402
from tools.spec import ToolSpec  # noqa: E402

LOOKUP = {
    "type": "object",
    "properties": {"q": {"type": "string", "maxLength": 200}, "n": {"type": "integer"}},
    "required": ["q"],
    "additionalProperties": False,
}


def prepare(url: str, runs: int) -> Actor:
    """A tenant with one agent, one model and one tool; `runs` runs in the queue."""
    tenant, _ = Tenant.objects.get_or_create(slug="bench")
    Controls.objects.get_or_create(tenant=tenant)
    user, _ = User.objects.get_or_create(username="bench")
    Member.objects.get_or_create(tenant=tenant, user=user, defaults={"role": "operator"})
    EgressAllow.objects.get_or_create(host_port=url.partition("//")[2])
    ModelDefinition.objects.update_or_create(
        name="fake",
        defaults={"provider": "openai", "base_url": f"{url}/v1", "model": "fake", "price_input": "1", "price_output": "2"},
    )
    adapter = {"kind": "http", "url": f"{url}/tools/lookup"}
    spec = {"adapter": adapter, "description": "Look an item up", "effect": "read", "input_schema": LOOKUP}
    catalog.put(None, "lookup", ToolSpec.model_validate(spec))
    Agent.objects.get_or_create(name="bench")
    release = create(None, "bench", {
        "instructions": "Look up, then answer.", "tools": ["lookup"], "models": {"planner": {"model": "fake"}},
        "deadlines": {"run_s": 3600, "step_s": 600, "model_call_s": 120, "tool_call_s": 120},
    })  # fmt: skip
    promote(None, release)
    actor = Actor(user, tenant, "operator")
    queue(actor, runs)
    return actor


def queue(actor: Actor, runs: int) -> None:
    order = intake.Order(agent="bench", input="Summarise the three items of the ticket.")
    for _ in range(runs):
        intake.submit(actor, order)


async def measure(runs: int, concurrency: int, warm: bool = False) -> dict[str, Any]:
    since = timezone.now() - timedelta(minutes=10)
    engine = Engine(settings.ENGINE_URL, slots=concurrency)
    task = asyncio.create_task(engine.run())
    await ended(engine, runs if warm else 0)
    journal = engine.services.journal
    flushes, entries = journal.flushes, journal.entries
    cpu, began = _cpu(), time.perf_counter()
    await ended(engine, runs * 2 if warm else runs)
    wall, used = time.perf_counter() - began, _cpu() - cpu
    flushes, entries = journal.flushes - flushes, journal.entries - entries
    await ended(engine, runs * 3 if warm else runs)
    ours = Run.objects.filter(agent="bench", created_at__gte=since).exclude(state="waiting_approval")
    left = await ours.exclude(state__in=("succeeded", "failed", "cancelled")).acount()
    failed = await ours.filter(state="failed").acount()
    if left or failed:
        sys.exit(f"{failed} runs failed and {left} did not end: nothing was measured")
    engine.stop()
    await task
    calls = runs * 7
    return {
        "runs_per_s": runs / wall, "cpu_ms_per_call": used * 1000 / calls, "commits_per_call": flushes / calls,
        "entries_per_run": entries / runs, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "wall_s": wall,
    }  # fmt: skip


async def ended(engine: Engine, runs: int) -> None:
    while engine.ended < runs:
        await asyncio.sleep(0.005)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    target, total, together = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    warmed = sys.argv[4:] == ["warm"]
    prepare(target, total * 3 if warmed else total)
    print(json.dumps(uvloop.run(measure(total, together, warmed))))
