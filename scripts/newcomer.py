"""The newcomer's walk: what docs/start.md says, typed on a fresh clone, with a stop-watch. It fails where the document lies.

    python scripts/newcomer.py                    clone what is committed; print what each step took
    python scripts/newcomer.py --working-tree     the files as they are now, committed or not
    python scripts/newcomer.py --write            put the figures into docs/newcomer.md

`PORT` says where the installation listens. The folder and everything in it are gone afterwards.
"""

from __future__ import annotations

import argparse
import http.cookiejar
import json
import os
import platform
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START = ROOT / "docs" / "start.md"
PAGE = ROOT / "docs" / "newcomer.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
OURS = re.compile(r"^(SIGNALBOX_|DATABASE_|SANDBOX_|DJANGO_|PUBLIC_URL|SECRET_KEY|SEALING_KEYS|VIRTUAL_ENV|OPENAI_|PYTHONPATH)")
AT_MOST_S = 600
DONE = "---- done"
# A block with the first word keeps a terminal for itself; the second is what it prints once it works.
STAYS = {"make run": "Signalbox is at", "stockroom.py": "The stock room is at"}
# What the page says that they print.
SAYS = ("check_stock: item tea, left 3.", "waiting_approval", "approved", "event: run_completed", "order_item: order_id order-1")


@dataclass
class Walk:
    """`steps`: what was reached, seconds, commands typed for it."""

    folder: Path
    environment: dict[str, str]
    steps: list[tuple[str, float, int]] = field(default_factory=list)
    left_running: list[subprocess.Popen[str]] = field(default_factory=list)
    heard: dict[int, queue.SimpleQueue[str]] = field(default_factory=dict)
    said: str = ""

    def stays(self, block: str, word: str) -> None:
        """In a terminal of its own, until it prints the word."""
        process = self.bash(block)
        self.until(process, STAYS[word])

    def typed(self, terminal: subprocess.Popen[str], block: str) -> None:
        assert terminal.stdin
        terminal.stdin.write(f"{block}\necho '{DONE}'\n")
        terminal.stdin.flush()
        self.until(terminal, DONE)

    def bash(self, block: str = "") -> subprocess.Popen[str]:
        """A terminal; a thread hears what it prints."""
        words = ["bash", "-eu", "-o", "pipefail", *(["-c", block] if block else [])]
        process = subprocess.Popen(
            words, cwd=self.folder, env=self.environment, text=True, bufsize=1, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.left_running.append(process)
        lines = self.heard.setdefault(process.pid, queue.SimpleQueue())
        threading.Thread(target=listen, args=(process, lines), daemon=True).start()
        return process

    def until(self, process: subprocess.Popen[str], word: str) -> None:
        lines = self.heard[process.pid]
        deadline = time.monotonic() + AT_MOST_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = lines.get(timeout=left)
            except queue.Empty:
                break
            if not line:
                break
            print("   |", line.rstrip(), flush=True)
            self.said += line
            if word in line:
                return
        raise SystemExit(f"The document promises {word!r}; it did not come.")

    def end(self) -> None:
        for process in reversed(self.left_running):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def listen(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    """Line by line; an empty one is the end."""
    assert process.stdout
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def commands(block: str) -> int:
    """Lines that somebody types and waits for; definitions and continued lines are not counted apart."""
    joined = block.replace("\\\n", " ")
    return sum(1 for line in joined.splitlines() if line.strip() and not re.match(r"\w+\(\)", line))


def walk(made: Walk) -> None:
    blocks = BLOCK.findall(START.read_text())
    if len(blocks) != 6:
        raise SystemExit(f"docs/start.md has {len(blocks)} blocks of bash; the walk knows six.")
    begin, stockroom, apply, ask, order, approve = blocks
    clone, rest = begin.split("\n", 1)
    at = time.monotonic()

    def reached(what: str, *typed: str) -> None:
        nonlocal at
        made.steps.append((what, time.monotonic() - at, sum(map(commands, typed))))
        print(f"== {what}: {made.steps[-1][1]:.1f} s", flush=True)
        at = time.monotonic()

    subprocess.run(["bash", "-euc", clone], cwd=made.folder, env=made.environment, check=True)
    made.folder /= "signalbox"
    reached("the clone", clone)
    made.stays(rest, "make run")
    reached("`make run` has installed, started and is ready", rest)
    sign_in(json.loads((made.folder / ".signalbox" / "dev.json").read_text()))
    reached("signed in to the console")
    made.stays(stockroom, "stockroom.py")
    terminal = made.bash()
    made.typed(terminal, apply)
    reached("own tools and agent are applied", stockroom, apply)
    made.typed(terminal, ask)
    reached("the agent has called the own tool", ask)
    made.typed(terminal, order)
    reached("a write waits for a person", order)
    made.typed(terminal, approve)
    reached("the first approval is given, and the write is made", approve)
    if missing := [words for words in SAYS if words not in made.said]:
        raise SystemExit(f"docs/start.md says that these are printed, and they were not: {missing}")


def sign_in(dev: dict[str, dict[str, str]]) -> None:
    """As a browser does it, up to the overview."""
    base = str(dev["base_url"])
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    page = browser.open(f"{base}/sign-in/", timeout=30).read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    given = {"csrfmiddlewaretoken": token.group(1) if token else "", **dev["operator"]}
    form = urllib.request.Request(f"{base}/sign-in/", urllib.parse.urlencode(given).encode(), {"Referer": f"{base}/sign-in/"})
    answer = browser.open(form, timeout=30).read().decode()
    if "<h1>Overview</h1>" not in answer:
        raise SystemExit("Signing in as operator did not lead to the overview.")


def snapshot(folder: Path) -> Path:
    """A repository of its own of the files as they are now."""
    place = folder / "repository"
    names = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    author = ["-c", "user.name=walk", "-c", "user.email=walk@localhost"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "As it is"]):
        subprocess.run(["git", *words], cwd=place, check=True)
    return place


def written(steps: list[tuple[str, float, int]]) -> str:
    total, rows = 0.0, []
    for what, seconds, typed in steps:
        total += seconds
        rows.append(f"| {what} | {typed or '-'} | {seconds:.1f} | {total:.1f} |")
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    table = "\n".join(rows)
    return f"""# The newcomer's walk

`python scripts/newcomer.py --write` follows [the five-minute start](start.md) as it is written: it reads the commands from the page and
types them on a fresh clone in an empty folder, and fails where the page promises something that does not come. What people read and think
between the commands is not in these figures; the packages came from a nearby index or its cache.

{datetime.now(UTC):%Y-%m-%d}, {machine}, shared with other work:

| reached | commands | seconds | since the start |
|---|---|---|---|
{table}

{sum(typed for *_, typed in steps)} commands in all.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Follow docs/start.md on a fresh clone, with a stop-watch.")
    parser.add_argument("--working-tree", action="store_true", help="walk the files as they are, not what is committed")
    parser.add_argument("--write", action="store_true", help="write docs/newcomer.md")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sbx-walk-"))
    source = snapshot(folder) if options.working_tree else ROOT
    environment = {name: value for name, value in os.environ.items() if not OURS.match(name)} | {"REPOSITORY": str(source)}
    made = Walk(folder, environment)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        walk(made)
    finally:
        made.end()
        clean(folder)
    page = written(made.steps)
    print(page)
    if options.write:
        PAGE.write_text(page)
    return 0


def clean(folder: Path) -> None:
    """Also the data of root's database, which lies elsewhere."""
    sys.path.insert(0, str(ROOT))
    from console.embedded.places import places

    base = places(folder / "signalbox" / ".signalbox", root=os.geteuid() == 0).base
    for place in (base, folder):
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
