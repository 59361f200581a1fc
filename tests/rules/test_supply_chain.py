"""T60: what it is made of, and that no secret lies in the repository. What is known to be weak is asked by `make audit`, not here."""

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {  # shapes that mean one thing only; a variable part that is a placeholder is none
    "private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s*\n?[A-Za-z0-9+/=]{40}",
    "AWS": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "GitHub": r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{60,}",
    "Slack": r"\bxox[abprs]-[0-9]{10,}-[A-Za-z0-9-]{20,}|hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}",
    "OpenAI": r"\bsk-(?:proj-)?[A-Za-z0-9_-]{40,}",
    "Anthropic": r"\bsk-ant-[A-Za-z0-9_-]{40,}",
    "Google": r"\bAIza[A-Za-z0-9_-]{35}\b",
    "Stripe": r"\b[sr]k_live_[A-Za-z0-9]{20,}",
    "Signalbox": r"\bsbx_[0-9A-Za-z]{12}_[A-Za-z0-9_-]{43}\b",
}
INVENTED = re.compile(r"(.)\1{7}|EXAMPLE|0123456789|abcdefgh", re.IGNORECASE)  # of tests: a letter repeated, an alphabet


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    return script("sbom")


FINE: dict[str, Any] = {"name": "fine", "version": "1.0", "vulns": []}
WEAK: dict[str, Any] = {"name": "weak", "version": "1.0", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}]}
UNKNOWN: dict[str, Any] = {"name": "unknown", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code"), [([FINE], 0), ([FINE, UNKNOWN], 0), ([FINE, WEAK], 1), ([UNKNOWN, WEAK], 1), ([UNKNOWN, UNKNOWN], 3), ([], 3)]
)
def test_a_known_weakness_fails_the_audit_and_an_index_that_knows_nothing_is_no_audit(
    packages: list[dict[str, Any]], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script("audit_dependencies").told(packages) == code
    said = capsys.readouterr()
    assert ("PYSEC-1" in said.out) == (WEAK in packages) and ("NOT AUDITED" in said.err) == (code == 3)


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def secrets_in(text: str) -> list[str]:
    found = [(name, match[0]) for name, pattern in SECRETS.items() for match in re.finditer(pattern, text)]
    return [f"{name}: {value[:12]}…" for name, value in found if not INVENTED.search(value)]


def test_no_file_of_the_repository_holds_a_secret() -> None:
    files = [path for path in tracked() if path.suffix not in (".woff2", ".png", ".lock") and "vendor" not in path.parts]
    found = {str(path.relative_to(ROOT)): secrets_in(path.read_text(errors="replace")) for path in files}

    assert len(files) > 300
    assert {name: secrets for name, secrets in found.items() if secrets} == {}


@pytest.mark.parametrize("name", ["AWS", "GitHub", "Stripe", "Signalbox"])
def test_a_secret_that_lies_there_is_seen(name: str) -> None:
    body = "Zq7Xw2Rk9Tn4Vb6Yc1Md3Lf5Hj8Gs0PaQeWuItOrKnBvC"
    made = {"AWS": "AKIA" + body[:16].upper(), "GitHub": "gh" + "p_" + body[:36], "Stripe": "sk_" + "live_" + body[:24],
            "Signalbox": "sb" + f"x_{body[:12]}_{body[:43]}"}  # fmt: skip
    assert [one.split(":")[0] for one in secrets_in(f"KEY={made[name]}\n")] == [name]


def test_the_bill_of_materials_names_every_pin_once_and_each_dependency_of_ours(sbom: ModuleType) -> None:
    bill = sbom.bill()
    refs = [part["bom-ref"] for part in bill["components"]]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[<>=!~;\[ ]", one)[0].lower() for one in project["dependencies"]}

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert len(refs) == len(set(refs)) and wanted <= {part["name"] for part in bill["components"]}
    assert {"htmx.org", "plotly.js-basic-dist-min"} <= {part["name"] for part in bill["components"]}
    assert all(part.get("properties") or part.get("hashes") for part in bill["components"])
    assert set(bill["dependencies"][0]["dependsOn"]) <= set(refs)


def test_a_pin_is_read_with_its_hashes_and_its_platform_left_out(sbom: ModuleType) -> None:
    lock = f"One_Two==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n    # via x\n"
    part = sbom.component(sbom.pinned(lock)[0])
    assert part["purl"] == "pkg:pypi/one-two@1.0" and [p["value"][0] for p in part["properties"]] == ["a", "b"]
