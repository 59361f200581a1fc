"""The threat model is held to the code: what it names is there, and nothing that it has to name is missing."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
SECTION = TEXT.partition("## Threats")[2].partition("\n## ")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in SECTION.splitlines() if line.startswith("| ")][1:]
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
NUMBERS = [f"ASI{n:02}" for n in range(1, 11)] + [f"LLM{n:02}" for n in range(1, 11)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_each_threat_has_a_control_in_a_module_a_test_and_what_remains(row: list[str]) -> None:
    threat, _, control, module, tests, remains = row
    assert threat and control and remains
    assert (ROOT / module.strip("`")).is_file(), module
    named = TEST.findall(tests)
    assert named
    for path, name in named:
        assert (ROOT / path).is_file() and (not name or f"def {name}(" in (ROOT / path).read_text()), f"{path}::{name}"


def test_every_number_of_the_two_lists_is_answered() -> None:
    named = {number for row in ROWS for number in re.findall(r"(?:ASI|LLM)\d\d", row[1])}
    assert named == set(NUMBERS)
