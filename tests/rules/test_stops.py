"""Which runs and calls a kill switch covers, and which of several counts."""

from uuid import UUID

import pytest

from runs import stops
from runs.stops import SwitchOn, misplaced, of_call, of_run, strictest, typed_name

ACME, OTHER = UUID(int=1), UUID(int=2)


def on(scope: str, id: int = 9, then: str = "pause", tenant: UUID | None = None, agent: str = "", tool: str = "") -> SwitchOn:
    return SwitchOn(UUID(int=id), scope, then, tenant, agent, tool)


@pytest.mark.mission("X10")
@pytest.mark.parametrize(
    ("switch", "tenant", "agent", "covered"),
    [
        (on("all"), ACME, "helper", True),
        (on("tenant", tenant=ACME), ACME, "helper", True),
        (on("tenant", tenant=ACME), OTHER, "helper", False),
        (on("agent", agent="helper"), OTHER, "helper", True),
        (on("agent", agent="helper"), ACME, "help", False),
        (on("agent", tenant=ACME, agent="helper"), ACME, "helper", True),
        (on("agent", tenant=ACME, agent="helper"), OTHER, "helper", False),
        (on("tool", tool="helper"), ACME, "helper", False),
        (on("writes"), ACME, "helper", False),
    ],
)
def test_a_switch_covers_whole_runs_by_everything_tenant_or_agent(switch: SwitchOn, tenant: UUID, agent: str, covered: bool) -> None:
    assert of_run([switch], tenant, agent) == (switch if covered else None)


@pytest.mark.mission("X10")
@pytest.mark.parametrize(
    ("switch", "tenant", "tool", "mutating", "covered"),
    [
        (on("tool", tool="refund"), ACME, "refund", True, True),
        (on("tool", tool="refund"), ACME, "refund", False, True),
        (on("tool", tool="refund"), ACME, "refunds", True, False),
        (on("tool", tenant=ACME, tool="refund"), OTHER, "refund", True, False),
        (on("writes"), ACME, "anything", True, True),
        (on("writes"), ACME, "anything", False, False),
        (on("writes", tenant=ACME), ACME, "anything", True, True),
        (on("writes", tenant=ACME), OTHER, "anything", True, False),
        (on("all"), ACME, "refund", True, False),
        (on("agent", agent="refund"), ACME, "refund", True, False),
    ],
)
def test_a_switch_covers_calls_by_tool_or_because_they_write(
    switch: SwitchOn, tenant: UUID, tool: str, mutating: bool, covered: bool
) -> None:
    assert of_call([switch], tenant, tool, mutating=mutating) == (switch if covered else None)


def test_one_that_stops_counts_before_one_that_pauses_and_then_the_oldest() -> None:
    old, young, stops_ = on("all", 1), on("all", 2), on("all", 3, "stop")
    assert strictest([young, old]) == old
    assert strictest([old, stops_, young]) == stops_
    assert strictest([]) is None


@pytest.mark.parametrize(
    ("scope", "given", "wrong"),
    [
        ("all", "", ""),
        ("all", "tenant", "names no tenant"),
        ("all", "tool", "names no tool"),
        ("tenant", "tenant", ""),
        ("tenant", "", "names the tenant"),
        ("tenant", "tenant agent", "names no agent"),
        ("agent", "agent", ""),
        ("agent", "agent tenant", ""),
        ("agent", "tenant", "names the agent"),
        ("agent", "agent tool", "names no tool"),
        ("tool", "tool tenant", ""),
        ("tool", "", "names the tool"),
        ("tool", "tool agent", "names no agent"),
        ("writes", "", ""),
        ("writes", "tenant", ""),
        ("writes", "tool", "names no tool"),
    ],
)
def test_a_switch_names_what_its_scope_needs_and_nothing_else(scope: str, given: str, wrong: str) -> None:
    found = misplaced(scope, **{name: name in given.split() for name in ("tenant", "agent", "tool")})
    assert wrong in found if wrong else found == ""


def test_the_word_to_type_is_what_will_stop() -> None:
    words = [typed_name(scope, tenant="acme", agent="helper", tool="refund") for scope in stops.SCOPES]
    assert words == ["everything", "acme", "helper", "refund", "writes"]
