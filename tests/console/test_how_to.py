"""What the documents tell people to type exists: commands, targets, addresses of the API, settings; and the map for language models."""

import re
from pathlib import Path

import pytest
from django.test import Client

from console.api import urls
from scripts.reference import commands

ROOT = Path(__file__).resolve().parents[2]
TOLD = [ROOT / "README.md", ROOT / "docs" / "start.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
OF_DJANGO = {"migrate", "check", "shell", "createsuperuser", "collectstatic"}
SETTING = re.compile(r"`((?:SIGNALBOX|OTEL|EMAIL|OIDC|DATABASE)_[A-Z_]+|[A-Z]+_KEYS?|PUBLIC_URL)\b")
PLACE = re.compile(r"\{\w+\}|<\w+:\w+>|\$\w+|\$\(asked \w+\)|\b[a-z]{3}_\.\.\.")


def shape(path: str) -> str:
    return PLACE.sub("*", path).rstrip("/")


@pytest.mark.parametrize("document", TOLD, ids=lambda path: path.stem)
def test_what_a_document_names_is_there(document: Path) -> None:
    text = document.read_text()
    ours = {name for name in re.findall(r"manage\.py ([a-z_]+)", text)} - OF_DJANGO
    assert [name for name in ours if f"| `manage.py {name}` |" not in commands.written()] == []

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)(?:[A-Z]+=\S+ )*make ([a-z-]+)", text, re.MULTILINE)) <= targets

    known = {shape(f"/api/v1/{each.pattern}") for each in urls.urlpatterns}
    named = re.findall(r"/api/v1/[\w/{}$<>:.()-]*(?: (?:approval_id|digest)\)[\w/]*)?", text)
    assert [path for path in named if shape(path.rstrip(".")) not in known | {"/api/v1"}] == []

    settings = (ROOT / "docs" / "settings.md").read_text()
    assert [name for name in SETTING.findall(text) if f"| `{name}` |" not in settings] == []


def test_each_how_to_is_listed_and_so_is_each_document_for_language_models() -> None:
    listed = (ROOT / "docs" / "how-to" / "README.md").read_text()
    assert [path.name for path in TOLD[2:] if path.name != "README.md" and f"({path.name})" not in listed] == []

    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "llms.txt").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
    documents = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")} - {"docs/newcomer.md"}
    assert documents - set(links) == set()


def test_the_map_for_language_models_is_served_to_everybody() -> None:
    answer = Client().get("/llms.txt")
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert answer.content.startswith(b"# Signalbox\n")


def test_the_tour_names_modules_that_are_there() -> None:
    tour = (ROOT / "docs" / "tour.md").read_text()
    paths = re.findall(r"`((?:console|runs|approvals|tools|tenants|templates|static|tests)/[\w./]*)`", tour)
    assert [path for path in paths if not (ROOT / path).exists()] == []
