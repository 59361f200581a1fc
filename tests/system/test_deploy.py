"""The image's steps, done by hand in a folder by somebody who is not root; and the units, as systemd reads them."""

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
SOMEBODY = "nobody"


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = Path("/tmp") / f"signalbox-image-{os.getpid()}"
    made.mkdir(mode=0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def built(place: Path) -> list[str]:
    """COPY and RUN of the first stage, as lines of shell below `place`."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").split("\nFROM ")[1]
    lines = []
    for step in text.splitlines():
        kind, _, rest = step.partition(" ")
        if kind == "COPY":
            source, target = rest.split()
            inside = target + Path(source).name if target.endswith("/") else target
            lines.append(f"mkdir -p $(dirname {inside}) && cp -r {ROOT}/{source} {inside}")
        elif kind in ("RUN", "WORKDIR"):
            lines.append(f"{{ {rest.strip()}; }} || exit 1" if kind == "RUN" else f"cd {rest}")
    moved = [re.sub(r"(?<![\w./-])/(opt/signalbox|build|tmp/build)\b", rf"{place}/\1", line) for line in lines]
    assert len([line for line in moved if "--require-hashes" in line]) == 1
    return moved


@pytest.mark.timeout(1200)
def test_the_steps_of_the_image_make_an_installation_that_starts(place: Path) -> None:
    account = pwd.getpwnam(SOMEBODY)
    script = place / "steps.sh"
    script.write_text("set -eu\n" + "\n".join(built(place)) + f"\n{place}/opt/signalbox/venv/bin/python manage.py check\n")
    for folder in (place, script):
        os.chown(folder, account.pw_uid, account.pw_gid) if os.geteuid() == 0 else None
    (place / "home").mkdir(mode=0o777)
    (place / "home").chmod(0o777)
    (place / "bin").mkdir()
    (place / "bin" / "python").symlink_to("/usr/bin/python3" if os.geteuid() == 0 else sys.executable)  # one that somebody else may run
    environment = {
        "PATH": f"{place / 'bin'}:/usr/bin:/bin", "HOME": str(place / "home"), "PIP_NO_CACHE_DIR": "1",
        "SIGNALBOX_HOME": str(place / "home"), "DATABASE_URL": "postgresql://nobody@127.0.0.1/none", "SECRET_KEY": "x" * 60,
        **{name: value for name, value in os.environ.items() if name.startswith(("PIP_INDEX", "SSL_", "HTTP", "http"))},
    }  # fmt: skip
    user = {"user": account.pw_uid, "group": account.pw_gid} if os.geteuid() == 0 else {}
    done = subprocess.run(["bash", str(script)], env=environment, cwd=place, capture_output=True, text=True, timeout=1100, **user)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (place / "opt/signalbox/static/staticfiles.json").exists()
    assert not (place / "opt/signalbox/venv/bin/pip").exists()


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.fail("systemd-analyze is needed here (Debian: apt-get install systemd).", pytrace=False)
    for unit in (ROOT / "deploy" / "systemd").glob("*.service"):
        text = unit.read_text().replace("/opt/signalbox/venv/bin/python", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run([program, "verify", *map(str, tmp_path.glob("*.service"))], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
