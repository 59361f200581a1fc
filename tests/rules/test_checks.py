"""The checks against paths that a person labelled by reading them (tests/rules/paths), and the edges of each."""

import json
from pathlib import Path as File
from typing import Any

import pytest
import yaml

from runs import loops
from runs.evals.cases import Expectations
from runs.evals.checks import BY_NAME, CHECKS, Measure, failing, score
from runs.evals.paths import Path, ToolCall, Turn, short

WRITES = {
    "create_ticket": "write",
    "issue_refund": "write",
    "send_email": "write",
    "update_account": "write",
    "delete_account": "irreversible",
}
ERRORS = {"rejected": "approval_rejected", "expired": "approval_expired"}
DATA = [case for file in sorted((File(__file__).parent / "paths").glob("*.yaml")) for case in yaml.safe_load(file.read_text())]


def call_of(step: int, ord: int, said: dict[str, Any]) -> ToolCall:
    person, effect = said.get("person", ""), WRITES.get(said["tool"], "read")
    error = said.get("error", "") or ERRORS.get(person, "") or ("policy" if said.get("denied") else "")
    answered = short(error) if error else short(json.dumps(said["gives"])) if "gives" in said else ""
    return ToolCall(
        step, ord, said["tool"], loops.key(said["tool"], json.dumps(said["args"]).encode()), said["args"], effect, answered, error,
        applied=said.get("applied", effect != "read" and "gives" in said), denied=said.get("denied", False), asked=bool(person),
        approved=person == "approved", sends=said.get("sends", 0 if said.get("denied") or error.startswith("approval") else 1),
    )  # fmt: skip


def path_of(case: dict[str, Any]) -> Path:
    turns = [
        Turn(step, calls=tuple(call_of(step, ord, said) for ord, said in enumerate(calls, 1)), sends=sends)
        for step, (calls, sends) in enumerate(zip(case["steps"], case.get("model_sends", [1] * len(case["steps"])), strict=True), 1)
    ]
    return Path(tuple(turns), case.get("answer"), case.get("cost_micro", 0), case.get("withheld"))


def agrees(name: str, label: Any, found: Measure) -> bool:
    if label == "none":
        return found.value is None
    if isinstance(label, str):  # k/n: k right of n, or k bad of n where low is better
        of, n = (int(part) for part in label.split("/"))
        return found.n == n and found.value == pytest.approx(of / n)
    return found.value == pytest.approx(label)


@pytest.mark.mission("P9.1")
def test_the_checks_agree_with_a_person_who_reads_the_path() -> None:
    agreed, compared, wrong, explained = 0, 0, [], []
    for case in DATA:
        found = score(path_of(case), Expectations.model_validate(case.get("expect", {})))
        labels = dict(case["labels"])
        places = labels.pop("at", {})
        for name, label in labels.items():
            compared += 1
            same = agrees(name, label, found[name]) and found[name].at == tuple(places.get(name, found[name].at))
            agreed += same
            reason = case.get("disagrees", {}).get(name)
            if same == bool(reason):  # a disagreement that is not explained, or an explanation of none
                wrong.append((case["name"], name, label, found[name]))
            elif reason:
                explained.append(f"{case['name']}, {name}: {reason}")
    print(f"\n{len(DATA)} paths, {compared} labels, {agreed} agree ({agreed / compared:.1%}); the others:", *explained, sep="\n  ")
    assert not wrong
    assert len(DATA) >= 60 and agreed / compared >= 0.95


def test_each_check_is_labelled_both_good_and_bad() -> None:
    """A label that a check would meet whatever it counts shows nothing."""
    seen: dict[str, set[float]] = {}
    for case in DATA:
        found = score(path_of(case), Expectations.model_validate(case.get("expect", {})))
        for name in set(case["labels"]) - {"at"}:
            seen.setdefault(name, set()).add(found[name].value if found[name].value is not None else -1)
    assert set(seen) == set(BY_NAME) and all(len(values - {-1}) >= 2 for values in seen.values())


def test_names_and_stories_of_the_labelled_paths_are_their_own() -> None:
    assert len({case["name"] for case in DATA}) == len(DATA) and all(case["story"] for case in DATA)


def test_a_run_that_was_not_asked_for_anything_is_judged_by_nothing() -> None:
    found = score(Path((Turn(1, calls=(ToolCall(1, 1, "x", "x"),)),), "yes"))
    judged = {name for name, measure in found.items() if measure.value is not None}
    assert judged == {"steps", "unnecessary_loop_rate", "retries", "policy_violation_rate", "cost_usd"}
    assert failing(found) == ()


def test_a_case_fails_by_what_it_expects_and_by_nothing_else() -> None:
    again = ToolCall(1, 2, "a", "a", answer="1")
    path = Path((Turn(1, calls=(ToolCall(1, 1, "a", "a", answer="1"), again)),), "yes", 10)
    assert failing(score(path, Expectations(allowed=("a",), max_steps=1))) == ()
    missed = Expectations.model_validate({"required": ["b"], "answer": [{"contains": "no"}], "writes": [{"tool": "w"}]})
    assert failing(score(path, missed)) == ("tool_selection_recall", "action_correctness", "answer_correct")


def test_every_check_says_how_it_is_counted() -> None:
    assert len(BY_NAME) == len(CHECKS) and all(len(check.counted) > 20 and check.title for check in CHECKS)


def test_long_paths_are_scored_quickly_enough_to_be_scored_at_all() -> None:
    """A run of a thousand steps with ten calls each must not take minutes: the work is bounded by its calls."""
    calls = [tuple(ToolCall(step, ord, "a", f"{step % 50}.{ord}", answer=str(step)) for ord in range(1, 4)) for step in range(400)]
    found = score(Path(tuple(Turn(step, calls=some) for step, some in enumerate(calls))))
    assert found["unnecessary_loop_rate"].n == 1200
