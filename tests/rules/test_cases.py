"""What a case may say, and which expectations cannot both be met."""

from typing import Any

import pytest

from runs.evals.cases import read
from tenants.errors import Refused

FULL: dict[str, Any] = {
    "key": "k", "input": {"text": "t", "data": {"a": 1}, "user": {"id": "u"}}, "note": "n",
    "tools": {"how": "simulated", "given": [{"tool": "a", "args": {"x": 1}, "result": {"ok": True}}]},
    "expect": {
        "allowed": ["a", "b"], "required": ["a"], "forbidden": ["c"], "order": [["a", "b"]],
        "writes": [{"tool": "b", "args": {"x": 1}, "matches": {"y": "^z"}, "schema": {"type": "object"}}], "max_steps": 3,
        "max_cost_usd": "0.5", "answer": [{"contains": "c"}, {"excludes": "e"}, {"matches": "m"}, {"schema": {"type": "object"}}],
    },
}  # fmt: skip


def refused(value: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        read(value)
    return caught.value


def test_a_case_is_read_and_written_again_as_it_was() -> None:
    made = read(FULL)
    assert made.content() == FULL and read(made.content()) == made
    assert read({"key": "k", "input": "t"}).content() == {"key": "k", "input": {"text": "t"}}


@pytest.mark.mission("P9.2")
@pytest.mark.parametrize(
    ("expect", "first", "second"),
    [
        ({"required": ["a"], "forbidden": ["a"]}, "expect.required", "expect.forbidden"),
        ({"allowed": ["a"], "forbidden": ["a"]}, "expect.allowed", "expect.forbidden"),
        ({"required": ["a"], "allowed": ["b"]}, "expect.required", "expect.allowed"),
        ({"order": [["a", "b"]], "forbidden": ["b"]}, "expect.order", "expect.forbidden"),
        ({"order": [["a", "b"]], "allowed": ["a"]}, "expect.order", "expect.allowed"),
        ({"writes": [{"tool": "a"}], "forbidden": ["a"]}, "expect.writes", "expect.forbidden"),
        ({"order": [["a", "b"], ["b", "a"]]}, "expect.order", "expect.order"),
        ({"order": [["a", "a"]]}, "expect.order", "expect.order"),
        ({"required": ["a", "b"], "order": [["a", "b"]], "max_steps": 1}, "expect.max_steps", "expect.order"),
        ({"required": ["a"], "answer": [{"contains": "x"}], "max_steps": 1}, "expect.max_steps", "expect.required"),
        ({"answer": [{"contains": "x"}, {"excludes": "x"}]}, "expect.answer.contains", "expect.answer.excludes"),
    ],
)
def test_expectations_that_cannot_both_be_met_are_refused_and_both_are_named(expect: dict[str, Any], first: str, second: str) -> None:
    error = refused({"key": "k", "input": "t", "expect": expect})
    assert error.code == "contradiction" and error.fields["between"] == [first, second]
    assert first in error.message and second in error.message


def test_live_tools_are_not_told_what_to_answer() -> None:
    error = refused({"key": "k", "input": "t", "tools": {"how": "live", "given": [{"tool": "a", "result": {}}]}})
    assert error.code == "contradiction" and error.fields["between"] == ["tools.how", "tools.given"]


def test_tools_that_may_be_called_at_once_take_one_step() -> None:
    assert read({"key": "k", "input": "t", "expect": {"required": ["a", "b", "c"], "max_steps": 1}}).expect.max_steps == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"input": ""}, "input.text"), ({"key": "no spaces"}, "key"), ({"colour": 1}, "colour"),
        ({"expect": {"max_steps": 0}}, "expect.max_steps"), ({"expect": {"answer": [{}]}}, "expect.answer.0"),
        ({"expect": {"answer": [{"contains": "a", "matches": "b"}]}}, "expect.answer.0"),
        ({"expect": {"answer": [{"matches": "(a+)+$"}]}}, "expect.answer.0"),
        ({"expect": {"answer": [{"matches": "("}]}}, "expect.answer.0"),
        ({"expect": {"writes": [{"tool": "a", "matches": {"x": "["}}]}}, "expect.writes.0.matches"),
        ({"expect": {"writes": [{"tool": "a", "schema": {"type": "nothing"}}]}}, "expect.writes.0.schema"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_place(change: dict[str, Any], path: str) -> None:
    error = refused({"key": "k", "input": "t"} | change)
    assert error.code == "bad_case" and [each["path"] for each in error.fields["errors"]] == [path]


def test_a_judge_model_is_known_and_not_built() -> None:
    assert refused({"key": "k", "input": "t", "expect": {"answer": [{"judge": {"model": "m"}}]}}).code == "not_supported"


def test_a_case_has_a_size() -> None:
    error = refused({"key": "k", "input": {"text": "t", "data": "x" * 300_000}})
    assert (error.code, error.status) == ("case_too_large", 413)
