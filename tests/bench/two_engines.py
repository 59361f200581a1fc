"""Engine processes over one queue, all their guards on. Prints one JSON line.  python -m tests.bench.two_engines URL RUNS ENGINES

The rate is that of the middle three fifths of the runs, by the database's clock: engines that start and queues that run dry are left out.
"""

import json
import os
import signal
import subprocess
import sys
import time

from tests.bench.engine import prepare  # first: it sets Django up

from runs.models import Event, Run  # isort: skip

SLOTS, LIMIT_S = "16", 240.0


def measure(url: str, runs: int, engines: int) -> dict[str, float]:
    queued = prepare(url, runs).tenant
    ours = Run.objects.filter(tenant=queued, id__in=[r.id for r in Run.objects.filter(tenant=queued).order_by("-created_at")[:runs]])
    command = [sys.executable, "manage.py", "engine", "--slots", SLOTS]
    started = [subprocess.Popen(command, env=os.environ | {"SIGNALBOX_ROLE": "engine"}) for _ in range(engines)]
    try:
        until = time.monotonic() + LIMIT_S
        while left := ours.filter(ended_at=None).count():
            if time.monotonic() > until:
                sys.exit(f"{left} runs did not end: nothing was measured")
            time.sleep(0.2)
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(60)
    if failed := ours.exclude(state="succeeded").count():
        sys.exit(f"{failed} runs failed: nothing was measured")
    ends = sorted(at for at in ours.values_list("ended_at", flat=True) if at is not None)
    first, last = runs // 5, runs * 4 // 5
    return {
        "runs_per_s": (last - first) / (ends[last] - ends[first]).total_seconds(),
        "events": Event.objects.filter(run__in=ours).count(),
        "taken_over": sum(ours.values_list("takeovers", flat=True)),
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
