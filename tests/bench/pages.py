"""S12 and S13: pages, lists and series beside a large past: `python -m tests.bench.pages` (BENCH_RUNS, else 100,000).

Server time: the whole of Django's handling, in one process, of a platform admin who sees every tenant, without the network. S13 is
`metrics.series` alone: what it asks the database, and adding it up. CPU: what this process used for one of them, without PostgreSQL's
part. Nothing is asserted.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from console.postgres import Cluster
from tests.bench import bulk
from tests.bench.report import tell

ROOT = Path(__file__).resolve().parent.parent.parent
TIMES = 20
RUNS = int(os.environ.get("BENCH_RUNS", "100000"))
PAGE_MS, SERIES_MS = 150, 30  # goals, p95
PERSON = "bench-platform"  # "bench" may be an operator


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="sbx-pages-"))
    cluster = Cluster(home)
    environment = os.environ | cluster.start().environment() | {"SIGNALBOX_HOME": str(home), "SIGNALBOX_ROLE": "engine"}
    try:
        manage(environment, "migrate", "--database", "owner", "-v0")
        fill(environment)
        measured_in(environment | {"SIGNALBOX_ROLE": "web"})
    finally:
        cluster.destroy()
        shutil.rmtree(home, ignore_errors=True)


def fill(environment: dict[str, str]) -> None:
    """A past of RUNS runs in the last 30 days, its hours counted."""
    began = time.perf_counter()
    manage(environment, "generate", "--runs", str(RUNS), "--force")
    since = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() - 32 * 86400))
    manage(environment, "rollups", "--since", since)
    print(f"{RUNS:,} runs were made, and their hours counted, in {time.perf_counter() - began:.0f} s", flush=True)


def measured_in(environment: dict[str, str]) -> str:
    """All rows, measured by a process with these settings. -> how large the past is."""
    given = environment | {"DJANGO_SETTINGS_MODULE": "console.settings"}
    command = [sys.executable, "-m", "tests.bench.pages", "measure"]
    process = subprocess.Popen(command, cwd=ROOT, env=given, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    if process.wait(3600):
        sys.exit("the pages could not be measured")
    return lines[0].strip()


def manage(environment: dict[str, str], *words: str) -> None:
    command = [sys.executable, "manage.py", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    if done.returncode:
        sys.exit(f"manage.py {words[0]} failed:\n{done.stderr[-2000:]}")


def measure() -> None:
    import django

    django.setup()
    from django.conf import settings
    from django.test import Client

    from tenants.scope import ALL, tenant_scope

    settings.ALLOWED_HOSTS = ["*"]
    client = Client()
    addresses = prepared(client)
    with tenant_scope(ALL):
        size = sized()
    print(size, flush=True)
    for name, address in addresses.items():
        row(name, PAGE_MS, *timed(partial(client.get, address)))
    with tenant_scope(ALL):
        for name, ask in series().items():
            row(name, SERIES_MS, *timed(ask))
    bulk.measured(client, PERSON)


def sized() -> str:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("select (select count(*) from run), (select count(*) from event), pg_database_size(current_database()) / 1e9")
        runs, events, gigabytes = cursor.fetchone()
    return f"{runs:,} runs, {events:,} events, {gigabytes:.1f} GB"


def series() -> dict[str, Callable[[], Any]]:
    from django.utils import timezone

    from console import metrics
    from console.readings import Cut

    now = timezone.now()
    hours = {"24 hours": 24, "7 days": 168, "30 days": 720}
    asked = {name: partial(metrics.series, Cut(), metrics.last_hours(now, many), now) for name, many in hours.items()}
    one = partial(metrics.series, Cut(agent="support-triage"), metrics.last_hours(now, 168), now)
    return {**{f"S13 series of {name}, all agents": ask for name, ask in asked.items()}, "S13 series of 7 days, one agent": one}


def prepared(client: Any) -> dict[str, str]:
    from django.urls import reverse

    from approvals.models import Approval
    from runs.models import Run
    from tenants.models import User
    from tenants.scope import ALL, tenant_scope

    about = {"is_platform_admin": True, "is_superuser": True, "is_staff": True}
    root, _ = User.objects.get_or_create(username=PERSON, defaults=about)
    client.force_login(root)
    with tenant_scope(ALL):
        some = Run.objects.filter(outcome="completed").order_by("-id")[200]
        asked = Approval.objects.filter(state="pending").first()
    week = time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(time.time() - 7 * 86400))
    return {
        "S12 overview": reverse("overview"),
        "S12 overview of 7 days": f"{reverse('overview')}?period=7d",
        "S12 runs": reverse("runs"),
        "S12 runs, failed of an agent with model_error": f"{reverse('runs')}?state=failed&agent=support-triage&outcome=model_error",
        "S12 runs, with a tool, a cost and a time": f"{reverse('runs')}?tool=create_ticket&cost_gt=0.002&since={week}",
        "S12 runs, degraded (none is)": f"{reverse('runs')}?outcome=completed_degraded",
        "S12 runs, a word of the question": f"{reverse('runs')}?q=invoices",
        "S12 runs, a word that nobody said": f"{reverse('runs')}?q=xylophone",
        "S12 API runs, three filters": "/api/v1/runs?state=failed&agent=refund-agent&outcome=model_error",
        "S12 a run": reverse("run", args=[some.run_id]),
        "S12 approvals": reverse("approvals"),
        "S12 an approval": reverse("approval", args=[asked.approval_id]) if asked else reverse("approvals"),
        "S12 tools": reverse("tools"),
        "S12 a tool": "/tools/search_docs/",
        "S12 an agent": "/agents/support-triage/",
        "S12 models": "/models/",
        "S12 incidents": "/incidents/",
        "S12 changes": "/changes/",
        "S12 audit": "/audit/",
        "S12 spend": reverse("spend"),
        "S12 metrics for Prometheus": "/metrics",
        "S12 API series of a week": "/api/v1/metrics/series?since=168h&every=6h",
        "S12 API summary of a week": "/api/v1/metrics/summary?since=168h",
    }


def timed(ask: Callable[[], Any]) -> tuple[int, list[float], float]:
    """(status, milliseconds of each, of the processor for one here). The first answer, which compiles templates, does not count."""
    status, took, busy = getattr(ask(), "status_code", 200), [], time.thread_time()
    for _ in range(TIMES):
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1000)
    return status, sorted(took), (time.thread_time() - busy) / TIMES * 1000


def row(name: str, goal: int, status: int, took: list[float], cpu: float) -> None:
    wrong = "" if status == 200 else f" [{status}]"
    p50, p95 = statistics.median(took), took[int(len(took) * 0.95)]
    shown = f"p50 {p50:.0f}, p95 {p95:.0f} ms, CPU {cpu:.0f}"
    tell(name[:3], f"{name[4:]}{wrong}", shown, f"p95 {goal} ms", p95 / goal)


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
