"""The blocks of a configuration document that describe one tool and one release."""

from typing import Any

import pytest
from pydantic import ValidationError

from runs.limits import Tightening
from runs.spec import ReleaseSpec, limits
from tenants.errors import Refused
from tools.spec import ToolSpec, destination, private_host_port

TOOL: dict[str, Any] = {
    "adapter": {"kind": "http", "url": "https://desk.example.com/tickets"},
    "description": "Open a ticket.",
    "effect": "write",
    "idempotency": "key",
    "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
}
RELEASE: dict[str, Any] = {"instructions": "Help.", "models": {"planner": {"model": "primary"}}}


def test_two_documents_that_say_the_same_have_one_digest() -> None:
    same = dict(reversed(TOOL.items())) | {"labels": ["money", "egress"]}
    assert ToolSpec(**TOOL, labels=("egress", "money")).sha256("t") == ToolSpec(**same).sha256("t")
    assert ToolSpec(**TOOL).sha256("t") != ToolSpec(**TOOL).sha256("u")


def test_who_sees_a_tool_is_not_part_of_its_version() -> None:
    assert ToolSpec(**TOOL).sha256("t") == ToolSpec(**TOOL, tenants=("acme",)).sha256("t")


@pytest.mark.parametrize(
    "change",
    [
        {"description": "Other."},
        {"effect": "irreversible"},
        {"idempotency": "none"},
        {"timeout_s": 3},
        {"labels": ["egress"]},
        {"retry": {"max_attempts": 3}},
        {"credential": "desk-token"},
        {"output_schema": {"type": "object"}},
        {"adapter": {"kind": "http", "url": "https://desk.example.com/other"}},
        {"duplicate_when": "status == 409"},
    ],
)
def test_everything_that_decides_what_a_call_does_changes_the_digest(change: dict[str, Any]) -> None:
    assert ToolSpec(**(TOOL | change)).sha256("t") != ToolSpec(**TOOL).sha256("t")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"colour": "red"}, ("colour",)),
        ({"effect": "perhaps"}, ("effect",)),
        ({"adapter": {"kind": "smtp"}}, ("adapter",)),
        ({"adapter": {"kind": "python", "name": "os.system"}}, ("adapter", "python", "name")),
        ({"adapter": {"kind": "http", "url": "file:///etc/passwd"}}, ("adapter", "http", "url")),
        ({"adapter": {"kind": "http", "url": "https://user:pw@desk.example.com/"}}, ("adapter", "http", "url")),
        ({"adapter": {"kind": "http", "url": "${SANDBOX_URL}/desk"}}, ("adapter", "http", "url")),
        ({"retry": {"max_attempts": 0}}, ("retry",)),
        ({"retry": {"retry_on": ["unknown"]}}, ("retry",)),
        ({"timeout_s": 0}, ("timeout_s",)),
        ({"timeout_s": float("inf")}, ("timeout_s",)),
    ],
)
def test_what_a_tool_may_not_say_is_refused_with_its_path(change: dict[str, Any], where: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        ToolSpec(**(TOOL | change))
    assert caught.value.errors()[0]["loc"] == where


READ = {"kind": "http", "url": "https://desk.example.com/charges"}
PREVIEW = {"adapter": READ, "args": {"id": "args.id"}, "before": {"status": "result.status"}, "after": {"status": "'refunded'"}}
COMPENSATE = {"tool": "close_ticket", "args": {"ticket_id": "result.ticket_id"}}


@pytest.mark.mission("X8")
def test_a_tool_without_preview_and_undo_has_the_digest_that_it_had_before_there_were_any() -> None:
    plain = ToolSpec(**TOOL)
    assert plain.sha256("t") == "5fd35aad0dec1d2906356bc16bf5e2b25e4e2e734caa0290ff40fe63493b80ce"
    assert ToolSpec(**TOOL, preview=None, compensate=None).sha256("t") == plain.sha256("t")
    assert (plain.stored()["preview"], plain.stored()["compensate"]) == (None, None)
    digests = {ToolSpec(**TOOL, **more).sha256("t") for more in ({}, {"preview": PREVIEW}, {"compensate": COMPENSATE})}
    assert len(digests) == 3


@pytest.mark.mission("X8")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preview": {"adapter": READ, "before": {}}}, "at least 1 item"),
        ({"preview": PREVIEW | {"timeout_s": 6}}, "less than or equal to 5"),
        ({"preview": PREVIEW | {"after": {"other": "1"}}}, "after: other is not among before"),
        ({"preview": PREVIEW | {"before": {"a\nb": "1"}, "after": {}}}, "match pattern"),
        ({"preview": PREVIEW, "effect": "read"}, "preview: a read changes nothing"),
        ({"compensate": COMPENSATE, "effect": "read"}, "compensate: a read has no effect"),
        ({"compensate": COMPENSATE, "effect": "irreversible"}, "compensate: what is irreversible has no undo"),
        ({"compensate": COMPENSATE | {"within_s": 0}}, "greater than 0"),
        ({"compensate": {"args": {}}}, "Field required"),
    ],
)
def test_a_preview_or_an_undo_that_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ToolSpec(**(TOOL | change))


@pytest.mark.mission("X8")
@pytest.mark.parametrize(
    "change",
    [
        {"preview": PREVIEW | {"args": {"id": "result.id"}}},
        {"preview": PREVIEW | {"before": {"status": "run.state"}, "after": {}}},
        {"preview": PREVIEW | {"before": {"status": "result."}, "after": {}}},
        {"compensate": COMPENSATE | {"args": {"id": "effect_key"}}},
    ],
)
def test_an_expression_that_names_what_is_not_there_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        ToolSpec(**(TOOL | change))
    assert caught.value.code == "bad_condition"


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://desk.example.com/x", None),
        ("http://8.8.8.8/", None),
        ("http://127.0.0.1:9009/desk", "127.0.0.1:9009"),
        ("http://127.1:9009/", "127.0.0.1:9009"),
        ("http://0x7f000001/", "127.0.0.1:80"),
        ("http://2130706433/", "127.0.0.1:80"),
        ("https://10.0.0.3/", "10.0.0.3:443"),
        ("http://169.254.169.254/latest", "169.254.169.254:80"),
        ("http://[::1]:8080/", "[::1]:8080"),
        ("http://[::ffff:10.0.0.1]/", "[::ffff:a00:1]:80"),
        ("http://localhost:9/", "localhost:9"),
        ("http://localhost./", "localhost:80"),
        ("http://a.localhost/", "a.localhost:80"),
        ("http://0.0.0.0/", "0.0.0.0:80"),
    ],
)
def test_an_address_that_is_not_public_is_recognised_in_every_spelling(url: str, private: str | None) -> None:
    assert private_host_port(url) == private


@pytest.mark.parametrize(
    "url", ["", "desk.example.com", "ftp://a/", "http:///x", "http://a:99999/", "http://a/ b", "http://a/#x", "http://[::1/"]
)
def test_a_url_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        destination(url)


@pytest.mark.mission("P7.1")
def test_a_release_without_memory_is_the_release_that_it_was_before_there_was_any() -> None:
    for absent in ({}, {"memory": None}, {"memory": {}}):
        assert "memory" not in ReleaseSpec(**(RELEASE | absent)).content()
    assert ReleaseSpec(**(RELEASE | {"memory": {"session": True}})).content()["memory"] == {
        "session": True, "references": False, "sensitive": False, "retention_days": 30, "max_items": 100,
    }  # fmt: skip


@pytest.mark.mission("P7.1", "P7.2")
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"memory": {"sensitive": True}}, "switch session or references on"),
        ({"memory": {"session": True, "retention_days": 0}}, "retention_days"),
        ({"memory": {"session": True, "forever": True}}, "forever"),
        ({"tools": ["memory_write"]}, "comes with memory"),
        ({"tools": ["memory_read_sensitive"], "memory": {"session": True}}, "comes with memory"),
    ],
)
def test_a_release_that_means_no_memory_or_too_much_of_it_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ReleaseSpec(**(RELEASE | change))


@pytest.mark.mission("P6.2")
@pytest.mark.parametrize(
    ("ladder", "complaint"),
    [
        ([{"on": "loop", "do": "ask"}, {"on": "loop", "do": "ask"}], "there twice"),
        ([{"on": "loop", "do": "stop"}, {"on": "loop", "do": "ask"}], "never reached"),
        ([{"on": "budget", "at": 0.8, "do": "fewer_steps"}], "needs max"),
        ([{"on": "loop", "do": "draft", "max": 2}], "needs max"),
        ([{"on": "loop", "at": 0.5, "do": "draft"}], "at belongs to"),
        ([{"on": "budget", "at": 1.0, "do": "stop"}], "less than 1"),
        ([{"on": "budget", "at": 0, "do": "stop"}], "greater than 0"),
        ([{"on": "budget", "at": float("nan"), "do": "stop"}], "finite"),
        ([{"on": "fire", "do": "stop"}], "Input should be"),
        ([{"on": "loop", "do": "panic"}], "Input should be"),
        ([{"on": "budget", "at": n / 100, "do": "draft"} for n in range(1, 30)], "at most 20"),
    ],
)
def test_a_ladder_that_makes_no_sense_or_never_ends_is_refused(ladder: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ReleaseSpec(**(RELEASE | {"ladder": ladder}))


@pytest.mark.parametrize(
    "budget", [{"max_steps": 0}, {"max_steps": -1}, {"max_cost_usd": 0}, {"max_cost_usd": -1}, {"max_output_tokens": 0}]
)
def test_a_budget_of_nothing_or_less_is_refused(budget: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReleaseSpec(**(RELEASE | {"budget": budget}))
    with pytest.raises(ValidationError):
        Tightening(**budget)


def test_parts_that_came_later_leave_the_content_of_older_releases_as_it_was() -> None:
    assert "ladder" not in ReleaseSpec(**RELEASE).content() and "critique" not in ReleaseSpec(**RELEASE).content()["models"]
    assert ReleaseSpec(**(RELEASE | {"ladder": [{"on": "loop", "do": "stop"}]})).content()["ladder"]


def test_a_release_may_not_name_a_model_outside_its_budget_or_a_tool_twice() -> None:
    with pytest.raises(ValidationError, match="primary"):
        ReleaseSpec(**(RELEASE | {"budget": {"allowed_models": ["other"]}}))
    with pytest.raises(ValidationError, match="twice"):
        ReleaseSpec(**(RELEASE | {"tools": ["a", "a"]}))


def test_a_caller_may_only_tighten() -> None:
    spec = ReleaseSpec(**(RELEASE | {"budget": {"max_steps": 6, "max_cost_usd": "0.08"}}))
    asked = limits(spec, Tightening(max_steps=20, max_cost_usd="0.02", run_s=5))
    assert (asked.max_steps, asked.max_cost_micro, asked.run_s) == (6, 20_000, 5)


@pytest.mark.parametrize("properties", [None, [], 3, "x"])
def test_an_effect_key_over_a_broken_schema_is_a_refusal_and_not_a_fault(properties: object) -> None:
    block = TOOL | {"effect_key": "t:{id}", "input_schema": {"type": "object", "properties": properties}}
    with pytest.raises(ValidationError, match="effect_key"):
        ToolSpec(**block)
