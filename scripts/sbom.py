"""What Signalbox is made of, as CycloneDX 1.6 JSON, from requirements.lock and the vendored front-end files: `make sbom` prints it.

Nothing is looked up: names, versions and hashes are those of the lock, so the same lock gives the same text.
"""

import base64
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def pinned(lock: str) -> list[dict[str, Any]]:
    """The components of a lock file, in its order."""
    found: list[dict[str, Any]] = []
    for line in lock.splitlines():
        if pin := PIN.match(line):
            found.append({"name": pin[1], "version": pin[2], "hashes": []})
        elif found and (digest := HASH.search(line)):
            found[-1]["hashes"].append(digest[1])
    return found


def component(one: dict[str, Any]) -> dict[str, Any]:
    """`hashes` are those of its files (wheels and source), any of which may have been installed: kept as properties."""
    name = re.sub(r"[-_.]+", "-", one["name"]).lower()
    purl = f"pkg:pypi/{name}@{one['version']}"
    files = [{"name": "signalbox:sha256", "value": digest} for digest in one["hashes"]]
    return {"type": "library", "bom-ref": purl, "name": name, "version": one["version"], "purl": purl, "properties": files}


def vendored(lock: Path) -> list[dict[str, Any]]:
    """The front-end packages, as `scripts/vendor_static.py` holds them to their hashes."""
    packages: dict[str, dict[str, Any]] = json.loads(lock.read_text())["packages"]
    return [of_npm(name, facts) for name, facts in sorted(packages.items())]


def of_npm(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    purl = f"pkg:npm/{name.replace('@', '%40')}@{facts['version']}"
    digest = base64.b64decode(facts["integrity"].partition("-")[2]).hex()
    hashes = [{"alg": "SHA-512", "content": digest}]
    return {"type": "library", "bom-ref": purl, "name": name, "version": facts["version"], "purl": purl, "hashes": hashes}


def bill(root: Path = ROOT) -> dict[str, Any]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    itself = {"type": "application", "bom-ref": "signalbox", "name": project["name"], "version": project["version"]}
    parts = [component(one) for one in pinned((root / "requirements.lock").read_text())]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {**itself, "licenses": [{"license": {"id": project["license"]}}]}},
        "components": parts + vendored(root / "static" / "vendor" / "vendor.lock.json"),
        "dependencies": [{"ref": "signalbox", "dependsOn": [part["bom-ref"] for part in parts]}],
    }  # fmt: skip


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1)
    print()
