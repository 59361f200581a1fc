"""What opens an incident, and what does not: detectors over readings, and over the hours of the past."""

import math
from typing import Any

import pytest

from console.incidents import parameters
from console.incidents.detectors import LEAST_HOURS, Baseline, Looked, Reading, Rule, baseline_of, judge, line_of
from console.incidents.kinds import KINDS, OUTSIDE, spelled
from console.incidents.parameters import Parameters
from tenants.errors import Refused

pytestmark = pytest.mark.mission("P11.1")
TOOL, AGENT, MODEL, ALL = ("tool", "create_ticket"), ("agent", "support"), ("model", "primary"), ("", "")
FEW, MANY = (3.0, 3.0, 4.0, 3.0, 3.0, 2.0, 3.0, 3.0), (0.02, 0.0, 0.03, 0.02, 0.01, 0.02, 0.02, 0.02)
CENTS, FAST = tuple(0.01 * one for one in (1, 1.1, 0.9, 1, 1, 1.2, 1, 1)), (400.0, 420.0, 380.0, 400.0, 410.0, 400.0, 390.0)


def rule(kind: str, **changes: Any) -> Rule:
    about = KINDS[kind]
    return Rule(kind, kind, about.severity, parameters.read(about.parameters, changes))


def look(kind: str, value: float | None, n: int, past: tuple[float, ...] = (), **more: Any) -> Looked:
    subject = {"tool": TOOL, "agent": AGENT, "model": MODEL, "": ALL, "release": ("release", "r")}[KINDS[kind].about]
    return judge(rule(kind, **more.pop("parameters", {})), [Reading(subject, value, n, past, **more)])


CASES = [  # kind, a figure that fires, one that does not, of how many things, the usual
    ("tool_errors", 0.35, 0.15, 40, ()),
    ("steps_per_run", 6.0, 4.0, 12, FEW),
    ("cost_per_run", 0.02, 0.012, 12, CENTS),
    ("fallback_rate", 0.4, 0.1, 30, MANY),
    ("budget_exceeded", 0.3, 0.05, 30, MANY),
    ("duplicate_writes", 1.0, 0.0, 2, ()),
    ("duplicate_answers", 0.3, 0.05, 30, MANY),
    ("retry_cascade", 2.4, 1.2, 20, ()),
    ("unknown_outcomes", 1.0, 0.0, 1, ()),
    ("approvals_ageing", 90.0, 20.0, 3, ()),
    ("provider_degraded", 0.5, 0.1, 20, ()),
    ("provider_slow", 1200.0, 500.0, 30, FAST),
    ("audit_chain", 1.0, 0.0, 1, ()),
]


def test_every_kind_that_looks_for_itself_is_in_the_table() -> None:
    assert {kind for kind, *_ in CASES} == set(KINDS) - set(OUTSIDE)


@pytest.mark.parametrize(("kind", "bad", "fine", "n", "past"), CASES)
def test_it_fires_on_a_bad_figure_and_not_on_a_fine_one(kind: str, bad: float, fine: float, n: int, past: tuple[float, ...]) -> None:
    [finding] = look(kind, bad, n, past).findings
    assert (finding.value, finding.severity, finding.n) == (bad, KINDS[kind].severity, n)
    assert finding.threshold <= bad and finding.fingerprint.startswith(f"{kind}:")
    assert spelled(bad, KINDS[kind].unit) in finding.sentence and spelled(finding.threshold, KINDS[kind].unit) in finding.sentence
    assert look(kind, fine, n, past).findings == ()


@pytest.mark.parametrize(("kind", "bad", "fine", "n", "past"), CASES)
def test_it_does_not_fire_below_the_minimum_count(kind: str, bad: float, fine: float, n: int, past: tuple[float, ...]) -> None:
    assert look(kind, bad, n, past, parameters={"minimum": n + 1}).findings == ()
    assert look(kind, bad, n, past, parameters={"minimum": n}).findings != ()


@pytest.mark.parametrize(("kind", "bad", "fine", "n", "past"), [case for case in CASES if KINDS[case[0]].by != "level"])
def test_one_mad_hour_of_the_past_neither_hides_nor_makes_an_incident(
    kind: str, bad: float, fine: float, n: int, past: tuple[float, ...]
) -> None:
    for mad in (max(past) * 1000, 0.0):
        assert look(kind, bad, n, (*past, mad)).findings != ()
        assert look(kind, fine, n, (*past, mad)).findings == ()


@pytest.mark.parametrize(("kind", "bad", "fine", "n", "past"), [case for case in CASES if KINDS[case[0]].by != "level"])
def test_without_a_past_a_comparison_says_nothing(kind: str, bad: float, fine: float, n: int, past: tuple[float, ...]) -> None:
    looked = look(kind, bad, n, past[: LEAST_HOURS - 1])
    assert looked.findings == () and looked.holding  # and an incident that is open stays open


@pytest.mark.parametrize("value", [None, math.nan])
@pytest.mark.parametrize("kind", ["tool_errors", "steps_per_run"])
def test_what_is_no_number_is_no_finding(kind: str, value: float | None) -> None:
    assert (found := look(kind, value, 100, FEW)).findings == () and found.holding == frozenset()


def test_a_past_with_holes_is_compared_with_what_is_there() -> None:
    assert baseline_of((math.nan, math.inf, *FEW)) == baseline_of(FEW) == Baseline(3.0, 0.0, len(FEW))


def test_a_past_that_varies_moves_the_line_up() -> None:
    calm, wild = baseline_of(FEW), baseline_of((1.0, 6.0, 2.0, 5.0, 3.0, 4.0, 1.0, 6.0))
    kind, given = KINDS["steps_per_run"], KINDS["steps_per_run"].parameters
    assert calm and wild
    low, high = line_of(kind, given, calm), line_of(kind, given, wild)
    assert low and high and low.trigger == 4.5 and high.trigger == pytest.approx(3.5 + 4 * 1.4826 * 2)


def test_an_open_breaker_counts_however_few_calls_there_were() -> None:
    [finding] = look("provider_degraded", 1.0, 1, certain=True, note="The breaker of h:1 is open.").findings
    assert finding.sentence.endswith("The breaker of h:1 is open.")


@pytest.mark.parametrize(("value", "n", "holds"), [(0.35, 40, True), (0.18, 40, True), (0.15, 40, False), (0.9, 2, True), (0.0, 0, False)])
def test_it_is_over_well_below_the_line_only(value: float, n: int, holds: bool) -> None:
    assert bool(look("tool_errors", value, n).holding) is holds


def test_relative_lines_clear_between_the_usual_and_the_line() -> None:
    """Were it a share of the line alone, a figure that is usually high could never be over."""
    usual = (0.9,) * 8
    found = line_of(KINDS["fallback_rate"], KINDS["fallback_rate"].parameters, baseline_of(usual))
    assert found and [found.trigger, found.clear] == pytest.approx([1.05, 1.02])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.1, 10.0**10])
def test_a_threshold_that_is_no_threshold_is_refused_by_name(bad: float) -> None:
    with pytest.raises(Refused) as refused:
        parameters.read(KINDS["tool_errors"].parameters, {"threshold": bad})
    assert refused.value.code == "detector_invalid" and refused.value.fields["errors"][0]["path"] == "threshold"


@pytest.mark.parametrize("wrong", [{"window_minutes": 0}, {"minimum": 0}, {"clear_ratio": 0}, {"k": math.nan}, {"treshold": 1}])
def test_other_figures_are_held_within_bounds(wrong: dict[str, float]) -> None:
    with pytest.raises(Refused) as refused:
        parameters.read(KINDS["tool_errors"].parameters, wrong)
    assert refused.value.status == 422


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [(0.314, "share", "31%"), (0.018, "share", "1.8%"), (4.5, "steps", "4.5 steps"), (0.0123, "usd", "0.0123 USD"), (2.0, "count", "2"),
     (1234.4, "ms", "1,234 ms")],
)  # fmt: skip
def test_figures_are_spelled_as_people_read_them(value: float, unit: str, words: str) -> None:
    assert spelled(value, unit) == words


def test_the_kinds_defaults_are_within_their_own_bounds() -> None:
    for kind in KINDS.values():
        assert Parameters.model_validate(kind.parameters.model_dump()) == kind.parameters
