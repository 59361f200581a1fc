"""Known weaknesses in what is installed from requirements.lock: pip-audit, where an advisory service can be reached.

Exit code 1 when one is known, 0 when none is; 3 when nobody could be asked: then nothing was audited, and it says so.
Never a part of `make test`, whose answer must not change with the day.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNREACHED = ("ConnectionError", "Max retries exceeded", "ServiceError", "Failed to establish", "Name or service not known")


def main() -> int:
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--require-hashes",
        "--disable-pip",
        "--no-deps",
        "--progress-spinner=off",
        "--timeout=20",
    ]
    done = subprocess.run([*command, "-r", str(ROOT / "requirements.lock"), *sys.argv[1:]], capture_output=True, text=True)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr[-4000:])
    if done.returncode and any(word in done.stderr for word in UNREACHED):
        print("NOT AUDITED: no advisory service could be reached from here.", file=sys.stderr)
        return 3
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
