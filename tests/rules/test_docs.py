"""What the documents say is compared with the code: generated pages, settings, links, names of tests, dependencies, configuration."""

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from runs.events import Kind

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ROOMS = ("tenants", "tools", "approvals", "runs", "console")
OF_THE_SYSTEM = {"PATH", "PYTHONPATH", "DJANGO_SETTINGS_MODULE"}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(path: str) -> str:
    return (ROOT / path).read_text()


def test_generated_documents_are_fresh(generator: ModuleType) -> None:
    assert generator.stale() == [], "run `python scripts/generate_docs.py`"


def test_a_document_that_was_edited_or_is_missing_is_stale(generator: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "events.md").write_text(text("docs/events.md") + "\n")

    assert generator.stale(tmp_path) == list(generator.GENERATED)


@pytest.mark.mission("P8.1")
def test_every_kind_of_event_is_told() -> None:
    assert set(ROW.findall(text("docs/events.md"))) == {kind.value for kind in Kind}


def test_every_variable_that_is_read_is_a_documented_setting_and_no_other_is() -> None:
    read = {name for path in (ROOT / "console").rglob("*.py") for name in variables(path)}
    read |= {name for room in ROOMS for path in (ROOT / room).rglob("*.py") for name in variables(path)}
    read |= {"SIGNALBOX_UP"}  # behind a name in `up`

    assert set(ROW.findall(text("docs/settings.md"))) == read - OF_THE_SYSTEM


def variables(path: Path) -> Iterator[str]:
    """Names read as `os.environ.get("NAME")`, `os.environ["NAME"]` or from the copies `environment` and `_urls`."""
    for node in ast.walk(ast.parse(path.read_text())):
        key: ast.expr | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            key = node.args[0] if holds_environment(node.func.value) else None
        elif isinstance(node, ast.Subscript) and holds_environment(node.value):
            key = node.slice
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


def holds_environment(node: ast.expr) -> bool:
    return ast.unparse(node) in {"os.environ", "environment", "_urls"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", document.read_text())):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def anchors(path: Path) -> set[str]:
    """As a reader of Markdown makes them of headings: lower case, no punctuation, spaces as hyphens."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    missing = []
    for path, name in TEST.findall(document.read_text()):
        file = ROOT / path
        if not file.exists() or (name and f"def {name}(" not in file.read_text()):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_every_promise_of_the_readme_names_a_test() -> None:
    section = text("README.md").partition("## What it promises")[2].partition("\n## ")[0]
    promises = [line for line in section.splitlines() if line.startswith("| ")][1:]

    assert promises
    assert [line for line in promises if not TEST.search(line)] == []


def test_every_dependency_has_its_reason_and_no_other_has() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.split(r"[<>=!~; ]", one)[0] for one in wanted}

    assert set(ROW.findall(text("docs/adr/0002-dependencies.md"))) == names


def test_what_is_not_built_is_listed_where_configuration_is_told() -> None:
    section = text("docs/configuration.md").partition("## Known, and answered with `not_supported`")[2]
    told = {key for line in section.splitlines() if line.startswith("| `") for key in re.findall(r"`([^`]+)`", line)}
    refused = set(constant("console/document.py", "NOT_BUILT"))

    assert told == refused


def constant(path: str, name: str) -> list[str]:
    """The value of a module's constant of strings, without importing the module."""
    for node in ast.parse(text(path)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return list(ast.literal_eval(node.value))
    raise AssertionError(f"{path} has no {name}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_names_a_place_that_only_one_machine_has(document: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:work|root|home|Users)/\S+", document.read_text()) == []
