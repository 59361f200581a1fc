"""S12 and S13: pages, lists and series beside a large past: `python -m tests.bench.pages [runs]` (BENCH_RUNS, else 100,000).

Server time: the whole of Django's handling, in this process, without the network. Medians and p95 are printed; nothing is asserted.
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
TIMES = 30


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

    settings.ALLOWED_HOSTS = ["*"]
    client = Client()
    addresses = prepared(client)
    print(f"{'server time, ms':52}{'p50':>8}{'p95':>8}")
    for name, address in addresses.items():
        row(name, *timed(partial(client.get, address)))


def prepared(client: Any) -> dict[str, str]:
    from django.urls import reverse

    from approvals.models import Approval
    from runs.models import Run
    from tenants.models import User
    from tenants.scope import ALL, tenant_scope

    root = User.objects.create(username="bench", is_platform_admin=True, is_superuser=True, is_staff=True)
    client.force_login(root)
    with tenant_scope(ALL):
        some = Run.objects.filter(outcome="completed").order_by("-id")[200]
        asked = Approval.objects.filter(state="pending").first()
    week = time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(time.time() - 7 * 86400))
    return {
        "S12 overview": reverse("overview"),
        "S12 runs": reverse("runs"),
        "S12 runs, failed of an agent with model_error": f"{reverse('runs')}?state=failed&agent=support-triage&outcome=model_error",
        "S12 runs, with a tool, a cost and a time": f"{reverse('runs')}?tool=create_ticket&cost_gt=0.002&since={week}",
        "S12 runs, a word of the question": f"{reverse('runs')}?q=invoices",
        "S12 runs, a word that nobody said": f"{reverse('runs')}?q=xylophone",
        "S12 API runs, three filters": "/api/v1/runs?state=failed&agent=refund-agent&outcome=model_error",
        "S12 a run": reverse("run", args=[some.run_id]),
        "S12 approvals": reverse("approvals"),
        "S12 an approval": reverse("approval", args=[asked.approval_id]) if asked else reverse("approvals"),
        "S12 tools": reverse("tools"),
        "S12 a tool": "/tools/search_docs/",
        "S12 incidents": "/incidents/",
        "S12 spend": reverse("spend"),
        "S13 series of a week": "/api/v1/metrics/series?since=168h&every=6h",
        "S13 summary of a week": "/api/v1/metrics/summary?since=168h",
    }


def timed(ask: Callable[[], Any]) -> tuple[int, list[float]]:
    """(status, milliseconds of each). The first answer, which compiles templates, does not count."""
    status, took = ask().status_code, []
    for _ in range(TIMES):
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1000)
    return status, sorted(took)


def row(name: str, status: int, took: list[float]) -> None:
    told = name + ("" if status == 200 else f" [{status}]")
    print(f"{told:52}{statistics.median(took):8.1f}{took[int(len(took) * 0.95)]:8.1f}", flush=True)


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
