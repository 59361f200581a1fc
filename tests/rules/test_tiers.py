"""Which role takes a turn."""

import pytest

from runs.inference.tiers import Turn, came_back_poor, closing_role, model_for, role_for
from runs.spec import Models

PLANNER = {"model": "primary", "fallback": ["fast"]}
FULL = Models.model_validate({"planner": PLANNER, "reformulation": {"model": "fast"}, "synthesis": {"model": "premium"}})
BARE = Models.model_validate({"planner": PLANNER})

fine, poor = Turn("planner", poor_read=False), Turn("planner", poor_read=True)
again = Turn("reformulation", poor_read=True)


def always(when):
    return True


def never(when):
    return False


@pytest.mark.mission("P5.3")
@pytest.mark.parametrize(
    ("turns", "role"),
    [
        ([], "planner"),
        ([fine], "planner"),
        ([poor], "reformulation"),
        ([poor, fine], "planner"),
        ([poor, again], "reformulation"),
        ([poor, again, again], "planner"),  # two in a row are enough
        ([poor, again, again, poor], "reformulation"),
        ([poor, again, again, fine], "planner"),
        ([again, Turn("reformulation", poor_read=False)], "planner"),
    ],
)
def test_reformulation_takes_the_turn_after_a_poor_read_twice_at_most(turns, role):
    assert role_for(FULL, turns, always) == role


@pytest.mark.mission("P5.3")
def test_a_missing_role_means_planner():
    assert role_for(BARE, [poor], always) == "planner"
    assert closing_role(BARE, always) is None
    assert model_for(BARE, "synthesis") == model_for(BARE, "reformulation") == model_for(BARE, "nonsense") == BARE.planner
    assert (model_for(BARE, "planner").model, *model_for(BARE, "planner").fallback) == ("primary", "fast")


@pytest.mark.mission("P5.3")
def test_each_role_has_its_own_model():
    assert [model_for(FULL, role).model for role in ("planner", "reformulation", "synthesis")] == ["primary", "fast", "premium"]


@pytest.mark.mission("P5.3")
def test_a_condition_decides_whether_a_role_is_there():
    roles = {
        "reformulation": {"model": "fast", "when": "run.step < 3"},
        "synthesis": {"model": "premium", "when": "run.writes > 0"},
    }
    models = Models.model_validate({"planner": PLANNER, **roles})
    asked = []
    assert closing_role(models, lambda when: not asked.append(when)) == "synthesis"
    assert role_for(models, [poor], lambda when: not asked.append(when)) == "reformulation"
    assert asked == ["run.writes > 0", "run.step < 3"]
    assert closing_role(models, never) is None
    assert role_for(models, [poor], never) == "planner"


def test_a_role_without_a_condition_asks_nothing():
    assert closing_role(FULL, never) == "synthesis"
    assert role_for(FULL, [poor], never) == "reformulation"


@pytest.mark.parametrize(
    ("data", "poor"),
    [
        ({"ok": True}, True),
        ({"ok": True, "results": []}, True),
        ({"ok": True, "results": [], "total": 0, "more": False}, True),
        ({"ok": True, "account": None, "found": False}, True),
        ({"ok": True, "text": "  "}, True),
        ({"ok": True, "data": {"items": [], "next": None}}, True),
        ({"ok": True, "results": [{}]}, False),
        ({"ok": True, "text": "hello"}, False),
        ({"ok": True, "balance": 0}, False),
        ({"ok": True, "member": False}, False),
        ({"ok": True, "results": [], "total": 3}, False),
        ({"ok": True, "status": "active", "tags": []}, False),
        ({"ok": False, "error_type": "validation", "message": "no"}, True),
        ({"ok": False, "error_type": "invalid_output", "message": "no"}, True),
        ({"ok": False, "error_type": "timeout", "message": "no"}, False),
        ({"ok": False, "error_type": "policy", "message": "no"}, False),
        ({}, False),
    ],
)
def test_a_read_is_poor_when_other_words_might_help(data, poor):
    assert came_back_poor(data) is poor
