"""What changed from one release to another."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.release_diff import Content, Difference, difference, text
from console.release_figures import guard_words, line, lines

pytestmark = pytest.mark.mission("P12.1")
BASE: dict[str, Any] = {
    "instructions": "You help people. Be kind.", "models": {"planner": {"model": "primary", "temperature": None}},
    "budget": {"max_steps": 8, "max_cost_usd": "1", "allowed_models": None}, "deadlines": {"run_s": 300, "approval_s": None},
}  # fmt: skip


def changed(**parts: Any) -> Difference:
    return difference(Content(BASE, {"a": 1, "b": 1}, {"primary": 1}), Content(BASE | parts, {"a": 1, "b": 1}, {"primary": 1}))


def test_instructions_are_compared_word_by_word() -> None:
    found = changed(instructions="You help all people. Be brief.")
    assert [(part.what, part.text) for part in found.instructions] == [
        ("same", "You help "), ("ins", "all "), ("same", "people. Be "), ("del", "kind."), ("ins", "brief."),
    ]  # fmt: skip
    assert found.words == "instructions"


@settings(max_examples=25, deadline=None)
@given(was=st.text("ab \n", max_size=80), now=st.text("ab \n", max_size=80))
def test_the_parts_give_both_texts_back(was: str, now: str) -> None:
    found = list(text(was, now))
    assert "".join(part.text for part in found if part.what != "ins") == was
    assert "".join(part.text for part in found if part.what != "del") == now
    assert all(a.what != b.what for a, b in pairwise(found))


def test_long_texts_that_have_nothing_in_common_are_not_compared_word_by_word() -> None:
    was, now = " ".join(f"a{n}" for n in range(20_000)), " ".join(f"b{n}" for n in range(20_000))
    assert [part.what for part in text(was, now)] == ["del", "ins"]
    lines_of = [f"{n % 3} line {n}\n" * 1 for n in range(400)]
    found = list(text("".join(lines_of), "".join(["new\n", *lines_of[:200], "other\n", *lines_of[201:]])))
    assert [part.text for part in found if part.what == "ins"] == ["new\n", "other\n"]


def test_tools_are_added_removed_or_of_another_version() -> None:
    found = difference(Content(BASE, {"a": 1, "b": 1}, {}), Content(BASE, {"a": 2, "c": 1}, {}))
    assert [(one.name, one.way, one.before, one.after) for one in found.tools] == [
        ("a", "version", 1, 2), ("b", "removed", 1, None), ("c", "added", None, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("block", "name", "value", "way"),
    [
        ("budget", "max_steps", 4, "tighter"),
        ("budget", "max_steps", 9, "looser"),
        ("budget", "max_cost_usd", "10", "looser"),
        ("budget", "allowed_models", ["primary"], "tighter"),
        ("deadlines", "approval_s", 60, "tighter"),
        ("deadlines", "run_s", 30.5, "tighter"),
    ],
)
def test_a_limit_that_moved_is_tighter_or_looser(block: str, name: str, value: Any, way: str) -> None:
    [moved] = changed(**{block: BASE[block] | {name: value}}).limits
    assert (moved.name, moved.before, moved.after, moved.way) == (name, BASE[block][name], value, way)


def test_models_are_told_by_role_and_by_the_version_that_is_pinned() -> None:
    other = BASE | {"models": {"planner": {"model": "fast", "temperature": 0}, "synthesis": {"model": "primary"}}}
    found = difference(Content(BASE, {}, {"primary": 1}), Content(other, {}, {"primary": 2, "fast": 1}))
    assert [(one.name, one.before, one.after) for one in found.models] == [
        ("planner.model", "primary", "fast"), ("planner.temperature", None, 0), ("synthesis.model", None, "primary"), ("primary", 1, 2),
    ]  # fmt: skip


def test_a_ladder_is_shown_whole_with_what_came_and_went() -> None:
    loop, deny = {"on": "loop", "do": "stop"}, {"on": "policy_denied", "do": "draft"}
    before, after = Content(BASE | {"ladder": [loop]}, {}, {}), Content(BASE | {"ladder": [loop, deny]}, {}, {})
    assert [(rung.what, rung.on) for rung in difference(before, after).ladder] == [("same", "loop"), ("added", "policy_denied")]
    assert difference(before, before).empty and difference(before, before).words == "nothing"


# figures of a rollout ---------------------------------------------------------------------------------------------------------

GUARD = {
    "name": "steps", "title": "Steps per run", "kind": "log", "baseline": 3.0, "candidate": 9.0, "worse": 2.0, "limit": 0.15, "n": 60,
    "confidence": 0.99999, "verdict": "roll_back",
}  # fmt: skip


@pytest.mark.mission("P12.2")
@pytest.mark.parametrize(
    ("guard", "told"),
    [
        ({}, ("3.00", "9.00", "200% worse", "15% worse", ">99.9%", "Worse")),
        (
            {"name": "success", "kind": "share", "baseline": 0.9, "candidate": 0.925, "worse": -0.025, "limit": 0.02, "confidence": 0.0,
             "verdict": "go"},
            ("90%", "92.5%", "2.5 points better", "2 points worse", "–", "Within"),
        ),
        (
            {"name": "cost_per_success", "kind": "per_success", "baseline": None, "candidate": None, "worse": None, "confidence": 0.5,
             "verdict": "wait"},
            ("–", "–", "–", "15% worse", "50%", "Too early"),
        ),
        ({"name": "writes", "kind": "mean", "worse": 0.0}, ("3.00", "9.00", "the same", "0.15 worse", ">99.9%", "Worse")),
    ],
)  # fmt: skip
def test_a_guard_is_told_in_its_own_unit(guard: dict[str, Any], told: tuple[str, ...]) -> None:
    made = line(GUARD | guard)
    assert (made.baseline, made.candidate, made.change, made.limit, made.confidence, made.look[1]) == told


def test_a_guard_names_its_figures_and_how_sure_they_are() -> None:
    assert guard_words(GUARD) == "Steps per run 9.00 against 3.00 (60 runs, >99.9% sure)"
    assert lines({}) == [] and len(lines({"guards": [GUARD]})) == 1
