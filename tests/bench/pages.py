"""S12 and S13: pages, lists and series beside a large past: `python -m tests.bench.pages [runs]` (BENCH_RUNS, else 100,000).

Server time: the whole of Django's handling, in this process, without the network. S13 is `metrics.series` alone: what it asks the
database, and adding it up. Medians and p95 are printed beside the goals; nothing is asserted. PERFORMANCE=<file> has them written
there as a table, too.
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

ROOT = Path(__file__).resolve().parent.parent.parent
TIMES = 20
PAGE_MS, SERIES_MS = 150, 30  # goals, p95
TOLD = """# How long pages and series take

{size}; measured on {date} by `python -m tests.bench.pages` (`make bench` runs it, too; `BENCH_RUNS=1000000` for a larger past).
Server time in milliseconds, {times} requests each after the first: all of Django's handling in one process, of a platform admin who sees
every tenant, without the network. S13 is the reading of a series alone. CPU: what this process
used for one of them, without PostgreSQL's part; on a machine with other work ({load:.1f} processes wanted its {cores} cores) it is the
steadier figure. Read the ratios: absolute figures wander with the machine.

| what | p50 | p95 | goal | p95 / goal | CPU |
|---|---|---|---|---|---|
{rows}

## How it is done

- Figures of a period are never counted from runs: `console/rollups.py` keeps them by the hour, `console/stored_hours.py` adds up in
  PostgreSQL what nobody tells apart, and each process remembers the hours it read until they are counted anew.
- The hour that runs now is read as background jobs counted it last, while that is at most 20 seconds old.
- Runs that are not over are found by tenant and state, for which there is an index; spend is the sum of hours, and of rehearsals.
- Lists go by the key of the last row, never by its number.

## What stands in the way

- The text search of runs (`q`) reads every question that is in sight, from the newest back, until a page is full: its time grows with the
  runs there are when few of them match. So do other filters that hardly any run matches.
- `/metrics` adds up all hours that are kept, however old: its time grows with the age of the installation.
"""


def main() -> None:
    runs = (sys.argv[1:] or [os.environ.get("BENCH_RUNS", "100000")])[0]
    home = Path(tempfile.mkdtemp(prefix="sbx-pages-"))
    cluster = Cluster(home)
    urls = cluster.start()
    os.environ |= urls.environment() | {"SIGNALBOX_HOME": str(home), "DJANGO_SETTINGS_MODULE": "console.settings"}
    try:
        manage("migrate", "--database", "owner", "-v0")
        began = time.perf_counter()
        print(manage("generate", "--runs", runs).splitlines()[-1].split(" Count")[0] + f" ({int(runs):,} runs)")
        since = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() - 32 * 86400))
        manage("rollups", "--since", since)
        print(f"with the hours counted: {time.perf_counter() - began:.0f} s")
        subprocess.run(
            [sys.executable, "-m", "tests.bench.pages", "measure"], cwd=ROOT, check=True, env=os.environ | {"SIGNALBOX_ROLE": "web"}
        )
    finally:
        cluster.destroy()
        shutil.rmtree(home, ignore_errors=True)


def manage(*words: str) -> str:
    done = subprocess.run([sys.executable, "manage.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        sys.exit(f"manage.py {words[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


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
    print(f"{size}\n{'server time, ms':52}{'p50':>8}{'p95':>8}{'goal':>8}{'cpu':>8}")
    lines = [row(name, PAGE_MS, *timed(partial(client.get, address))) for name, address in addresses.items()]
    with tenant_scope(ALL):
        lines += [row(name, SERIES_MS, *timed(ask)) for name, ask in series().items()]
    if target := os.environ.get("PERFORMANCE"):
        (ROOT / target).write_text(
            TOLD.format(
                times=TIMES,
                load=os.getloadavg()[1],
                cores=os.cpu_count(),
                size=size,
                date=time.strftime("%-d %B %Y", time.gmtime()),
                rows="\n".join(lines),
            )
        )


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
    root, _ = User.objects.get_or_create(username="bench", defaults=about)
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


def row(name: str, goal: int, status: int, took: list[float], cpu: float) -> str:
    told = name + ("" if status == 200 else f" [{status}]")
    p50, p95 = statistics.median(took), took[int(len(took) * 0.95)]
    print(f"{told:52}{p50:8.1f}{p95:8.1f}{goal:8}{cpu:8.1f}", flush=True)
    return f"| {told} | {p50:.0f} | {p95:.0f} | {goal} | {p95 / goal:.2f} | {cpu:.0f} |"


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
