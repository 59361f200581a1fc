"""From a person's yes to the request at the tool: `python -m tests.bench.approvals [decisions]`. Prints one JSON line.

The clock starts just before COMMIT of the transaction that records the decision (`runs.signoff`, in this process, as a web process does
it) and stops when the first bytes of the tool's request arrive at a server in this same process: one clock at both ends. Between them:
the commit, the NOTIFY, the claim by an engine in a process of its own, everything that is checked again, the dispatch's own commit,
the connection. One decision at a time, nothing else to do. Settings come from the environment.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.engine import prepare, queue  # sets Django up

from asgiref.sync import sync_to_async  # isort: skip
from django.db import transaction  # isort: skip

from approvals.models import Approval  # isort: skip
from runs import signoff  # isort: skip
from runs.models import Run  # isort: skip
from tenants.actors import Actor  # isort: skip
from tenants.models import Member, User  # isort: skip
from tenants.scope import ALL, tenant_scope  # isort: skip
from tests.bench.fake_server import TOOL_TURNS, Fake  # isort: skip
from tools import permissions  # isort: skip

ROOT = Path(__file__).resolve().parent.parent.parent
PAUSE_S = 0.02


class Noting(Fake):
    """Says when a request whose path begins with `path` began to arrive."""

    arrived: "asyncio.Queue[float]"
    path = b"/tools/"

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"POST " + self.path):
            self.arrived.put_nowait(time.perf_counter())
        super().data_received(data)


@tenant_scope(ALL)
def people(url: str, runs: int) -> Actor:
    """The runs, whose every call is asked about, and somebody else than their starter to say yes."""
    starter = prepare(url, 0)
    permissions.set_permission(None, "lookup", starter.tenant, decision="ask")
    user, _ = User.objects.get_or_create(username="bench-approver")
    Member.objects.get_or_create(tenant=starter.tenant, user=user, defaults={"role": "approver"})
    queue(starter, runs)
    return Actor(user, starter.tenant, "approver")


@tenant_scope(ALL)
def never_mind(actor: Actor) -> None:
    """Whatever is measured next is not asked about."""
    permissions.set_permission(None, "lookup", actor.tenant, decision="allow", loosen=True)


@tenant_scope(ALL)
def waiting() -> Approval | None:
    """The next request, once nothing moves."""
    if Run.objects.filter(state__in=("queued", "running")).exists():
        return None
    return Approval.objects.filter(state=Approval.State.PENDING).order_by("id").first()


def decide(actor: Actor, one: Approval) -> float:
    """-> when COMMIT was about to be sent."""
    with tenant_scope(actor.tenants), transaction.atomic():
        signoff.decide(actor, one.id, verdict="approve", digest=one.digest)
        return time.perf_counter()


async def measure(decisions: int) -> dict[str, Any]:
    Noting.arrived = asyncio.Queue()
    server = await asyncio.get_running_loop().create_server(Noting, "127.0.0.1", 0, backlog=256)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    actor = await sync_to_async(people)(url, -(-decisions // TOOL_TURNS))
    environment = os.environ | {"SIGNALBOX_ROLE": "engine"}
    engine = await asyncio.create_subprocess_exec(sys.executable, "manage.py", "engine", cwd=ROOT, env=environment)
    took: list[float] = []
    try:
        async with asyncio.timeout(600):
            while len(took) < decisions:
                await asyncio.sleep(PAUSE_S)
                if one := await sync_to_async(waiting)():
                    began = await sync_to_async(decide)(actor, one)
                    took.append((await Noting.arrived.get() - began) * 1000)
    finally:
        engine.terminate()
        await engine.wait()
        server.close()
    await sync_to_async(never_mind)(actor)
    took.sort()
    return {"decisions": decisions, "p50_ms": statistics.median(took), "p95_ms": took[int(len(took) * 0.95)], "worst_ms": took[-1]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200))))
