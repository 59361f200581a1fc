"""Changes as plain sentences: what was done, from what to what."""

from typing import Any

import pytest

from console.change_words import KINDS, kind_of, label, told

pytestmark = pytest.mark.mission("X11")
RELEASES = {"rel_a": "r1", "rel_b": "r2"}
SENTENCES: list[tuple[str, str, str, Any, Any, str]] = [
    (
        "permission", "permission.updated", "7", {"tool": "issue_refund", "agent": "", "decision": "allow", "approvers": 1},
        {"tool": "issue_refund", "agent": "", "decision": "ask", "approvers": 2},
        "changed the permission of issue_refund for every agent: decision allow → ask; approvers 1 → 2.",
    ),
    ("rule", "rule.created", "cap", None, {"decision": "deny", "when": "true", "tenant": "acme"}, 
     "added the rule cap: decision deny, when true."),
    ("rule", "rule.deleted", "cap", {"decision": "deny"}, None, "removed the rule cap."),
    (
        "release", "release.promoted", "support", {"live": "1", "release": "rel_a"}, {"live": "2", "release": "rel_b"},
        "promoted the release of support: release r1 → r2.",
    ),
    ("release", "release.created", "rel_b", None, {"agent": "support", "number": 2, "sha256": "ff"},
     "added the release of support: number 2."),
    ("model", "model.updated", "primary", {"price_input": "0.15"}, {"price_input": "0.30"},
     "changed the model primary: price input 0.15 → 0.30."),
    (
        "breaker", "breaker.opened", "desk:80", {"state": "closed"}, {"state": "open", "host_port": "desk:80"},
        "opened the breaker desk:80: state closed → open.",
    ),
    (
        "switch", "switch.engaged", "swi_x", None, {"scope": "tool", "tool": "create_ticket", "then": "pause", "drill": False},
        "turned on the kill switch tool create_ticket: then pause.",
    ),
    ("ceiling", "ceiling.changed", "acme cost", {"cost": "50"}, {"cost": "60"}, "changed the ceiling acme cost: cost 50 → 60."),
    ("tool", "tool.disabled", "x", {"enabled": True}, {"enabled": False}, "switched off the tool x: enabled yes → no."),
    ("tool", "tool.updated", "x", {"version": 1, "tenants": ["a"]}, {"version": 1, "tenants": ["b"]}, "changed the tool x: who sees it."),
    ("credential", "credential.updated", "desk", {"version": 1}, {"version": 2}, "changed the credential desk: version 1 → 2."),
    ("group", "group.updated", "leads", {"people": ["a", "b"]}, {"people": ["b", "c"]}, "changed the group leads: people + c, - a."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "action", "object_id", "before", "after", "sentence"), SENTENCES)
def test_a_change_is_told_in_one_sentence(kind: str, action: str, object_id: str, before: Any, after: Any, sentence: str) -> None:
    assert told(kind, action, object_id, before, after, RELEASES) == sentence
    assert kind in KINDS and len(label(kind, action, object_id, before, after)) <= 60


def test_many_differences_are_counted_and_long_ones_cut() -> None:
    before, after = {name: 1 for name in "abcdef"}, {name: 2 for name in "abcdef"}
    assert told("model", "model.updated", "m", before, after, {}).endswith("a 1 → 2; b 1 → 2; c 1 → 2; and 3 more.")
    assert len(told("rule", "rule.created", "r", None, {"when": "x" * 500}, {})) < 120


@pytest.mark.parametrize(
    ("stored", "action", "kind"),
    [
        ("agent", "release.promoted", "release"),
        ("agent", "agent.updated", "agent"),
        ("modeldefinition", "modeldefinition.changed", "model"),
        ("tool", "tool.pinned", "tool"),
    ],
)
def test_what_an_entry_is_about_has_one_name(stored: str, action: str, kind: str) -> None:
    assert kind_of(stored, action) == kind
