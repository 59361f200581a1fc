"""Vendored front-end files: fetched with npm, locked by hash, checked without a network.

    python scripts/vendor_static.py --lock    take the versions named below and write the lock file
    python scripts/vendor_static.py           fetch again what the lock file names and refuse anything that differs
    python scripts/vendor_static.py --check   compare the committed files with the lock file; no network, runs in CI

The lock file names packages and hashes only. Where a package comes from is npm's own configuration.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

STATIC = Path(__file__).resolve().parent.parent / "static"
VENDOR = STATIC / "vendor"
LOCK = VENDOR / "vendor.lock.json"
SPRITE = STATIC / "icons" / "sprite.svg"
ICON_PACKAGE = "lucide-static"

# package -> (version, {path inside the package: path under static/vendor/}); a licence goes beside each.
PACKAGES: dict[str, tuple[str, dict[str, str]]] = {
    "htmx.org": ("4.0.1", {"dist/htmx.min.js": "htmx/htmx.min.js", "LICENSE": "htmx/LICENSE"}),
    "plotly.js-basic-dist-min": (
        "4.1.1",
        {"plotly-basic.min.js": "plotly/plotly-basic.min.js", "LICENSE": "plotly/LICENSE"},
    ),
    # The stylesheet that Plotly would otherwise put into a <style> element is only in the 22 MB package.
    "plotly.js": ("4.1.1", {"dist/plotly.css": "plotly/plotly.css", "LICENSE": "plotly/LICENSE-css"}),
    "@fontsource-variable/inter": (
        "5.3.0",
        {"files/inter-latin-wght-normal.woff2": "inter/inter-latin-wght-normal.woff2", "LICENSE": "inter/LICENSE"},
    ),
    "@fontsource-variable/jetbrains-mono": (
        "5.3.0",
        {
            "files/jetbrains-mono-latin-wght-normal.woff2": "jetbrains-mono/jetbrains-mono-latin-wght-normal.woff2",
            "LICENSE": "jetbrains-mono/LICENSE",
        },
    ),
    ICON_PACKAGE: ("1.62.0", {"LICENSE": "lucide/LICENSE"}),
}

ICON_NAMES = """
activity arrow-down-to-line arrow-up-down ban bell book-open bot braces brain building-2 check chevron-down
chevron-left chevron-right circle-alert circle-check circle-dashed circle-pause circle-question-mark circle-x clock
copy cpu database download external-link eye file-diff filter flask-conical gauge git-fork hand history key-round
keyboard link list-checks list-collapse loader-circle lock log-out menu message-square-plus minus octagon-alert
octagon-x pause pen-line pencil play plug plus power-off refresh-cw rocket rotate-ccw scroll-text search settings
shield shield-alert shield-check siren sliders-horizontal sparkles sun-moon timer trending-down trending-up
triangle-alert truck undo-2 user users wallet waypoints wrench x zap-off
"""
ICONS = ICON_NAMES.split()


class Mismatch(Exception):
    """A file or a package is not what the lock file says; the message names it."""


def pack(name: str, version: str, folder: Path) -> bytes:
    """The package's tarball, from the registry npm is set up with."""
    done = subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True, capture_output=True, text=True)
    return (folder / done.stdout.strip().splitlines()[-1]).read_bytes()


def members(tarball: bytes, wanted: set[str], folder: Path) -> dict[str, bytes]:
    """Path inside the package -> bytes. Read from the archive, never unpacked to disk."""
    archive = folder / "package.tgz"
    archive.write_bytes(tarball)
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            path = member.name.partition("/")[2]
            if path in wanted and (handle := tar.extractfile(member)):
                found[path] = handle.read()
    if missing := sorted(wanted - found.keys()):
        raise Mismatch(f"not in the package: {', '.join(missing)}")
    return found


def sprite(files: dict[str, bytes]) -> bytes:
    """One SVG with a symbol `i-<name>` for each icon. Stroke and size come from the stylesheet."""
    symbols = []
    for icon in ICONS:
        inner = re.search(r"<svg[^>]*>(.*)</svg>", files[f"icons/{icon}.svg"].decode(), re.DOTALL)
        if inner is None:
            raise Mismatch(f"icon {icon} is not an SVG")
        symbols.append(f'<symbol id="i-{icon}" viewBox="0 0 24 24">{" ".join(inner[1].split())}</symbol>')
    head = "<!-- Lucide icons, ISC licence: vendor/lucide/LICENSE. Built by scripts/vendor_static.py. -->"
    return "\n".join([head, '<svg xmlns="http://www.w3.org/2000/svg">', *symbols, "</svg>", ""]).encode()


def integrity_of(tarball: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()


def fetch(name: str, version: str, picks: dict[str, str]) -> tuple[str, dict[str, bytes]]:
    """Integrity of the tarball, and path under static/ -> bytes."""
    wanted = set(picks)
    if name == ICON_PACKAGE:
        wanted |= {f"icons/{icon}.svg" for icon in ICONS}
    with tempfile.TemporaryDirectory() as scratch:
        tarball = pack(name, version, Path(scratch))
        found = members(tarball, wanted, Path(scratch))
    out = {f"vendor/{target}": found[source] for source, target in picks.items()}
    if name == ICON_PACKAGE:
        out["icons/sprite.svg"] = sprite(found)
    return integrity_of(tarball), out


def write(files: dict[str, bytes]) -> None:
    for path, content in files.items():
        target = STATIC / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lock() -> None:
    entries = {}
    for name, (version, picks) in PACKAGES.items():
        integrity, files = fetch(name, version, picks)
        write(files)
        hashes = {path: sha256(content) for path, content in sorted(files.items())}
        entries[name] = {"version": version, "integrity": integrity, "files": hashes}
    LOCK.write_text(json.dumps({"packages": entries}, indent=2) + "\n")


def recreate() -> None:
    for name, entry in read_lock().items():
        version, picks = PACKAGES[name]
        if version != entry["version"]:
            raise Mismatch(f"{name}: {version} is wanted and {entry['version']} is locked; run --lock")
        integrity, files = fetch(name, version, picks)
        if integrity != entry["integrity"]:
            raise Mismatch(f"{name}@{version}: the package is not the one that was locked")
        for path, content in files.items():
            if sha256(content) != entry["files"].get(path):
                raise Mismatch(f"{path} differs from the lock file")
        write(files)


def read_lock() -> dict[str, dict[str, Any]]:
    packages: dict[str, dict[str, Any]] = json.loads(LOCK.read_text())["packages"]
    return packages


def problems() -> list[str]:
    """What differs between the committed files and the lock file, as sentences. Empty when all is well."""
    entries = read_lock()
    locked = {path: digest for entry in entries.values() for path, digest in entry["files"].items()}
    found = [f"{path} is missing" for path in locked if not (STATIC / path).is_file()]
    found += [
        f"{path} differs from the lock file"
        for path, digest in locked.items()
        if (STATIC / path).is_file() and sha256((STATIC / path).read_bytes()) != digest
    ]
    present = {str(path.relative_to(STATIC)) for path in VENDOR.rglob("*") if path.is_file() and path != LOCK}
    found += [f"{path} is not in the lock file" for path in sorted(present - locked.keys())]
    wanted = {name: version for name, (version, _) in PACKAGES.items()}
    if wanted != {name: entry["version"] for name, entry in entries.items()}:
        found.append("the versions in this script and in the lock file differ; run --lock")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", action="store_true", help="fetch and write the lock file")
    parser.add_argument("--check", action="store_true", help="compare with the lock file, offline")
    options = parser.parse_args()
    try:
        if options.lock:
            lock()
        elif not options.check:
            recreate()
    except Mismatch as error:
        print(error, file=sys.stderr)
        return 1
    for problem in (found := problems()):
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
