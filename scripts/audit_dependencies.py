"""Known weaknesses in what is installed from requirements.lock: pip-audit, where an advisory service can be reached.

Exit code 1 when one is known, 0 when none is; 3 when nobody could be asked, or nobody knew a single package: then nothing was
audited, and it says so. Never a part of `make test`, whose answer must not change with the day.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LONGEST_S = 240
OPTIONS = ("--require-hashes", "--disable-pip", "--progress-spinner=off", "--timeout=20", "--format=json")


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", *OPTIONS, "-r", str(ROOT / "requirements.lock"), *sys.argv[1:]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return unasked(f"no answer within {LONGEST_S} s")
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return unasked((done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1][:300])
    return told(packages)


def told(packages: list[dict[str, Any]]) -> int:
    """The exit code; one line for each weakness and one for all."""
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    weak = [(one, found) for one in packages for found in one.get("vulns", ())]
    for one, found in weak:
        fixed = ", ".join(found.get("fix_versions", ())) or "no version"
        print(f"{one['name']} {one['version']}: {found['id']} {' '.join(found.get('aliases', ()))} (fixed in {fixed})")
    if len(skipped) == len(packages):
        return unasked("the index that was asked knows advisories of no package")
    print(f"{len(packages) - len(skipped)} of {len(packages)} packages were audited, {len(weak)} weaknesses are known.")
    return 1 if weak else 0


def unasked(why: str) -> int:
    print(f"NOT AUDITED: {why}.", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
