"""The rows of a run's timeline: what is nested where, where the bars lie, what is shortened and what is grouped."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from console.event_text import text, tone
from console.timescale import Scale
from console.tracks import Call, Event
from console.waterfall import Row, Waterfall, draw, reveal

BEGAN = datetime(2026, 11, 22, 11, 0, tzinfo=UTC)


class Story:
    """Events of one run, each at a second since its beginning."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def at(self, second: float, kind: str, step: int | None = None, ord: int = 0, **payload: Any) -> "Story":
        placed = {} if step is None else {"step_id": step, "ord": ord}
        self.events.append(Event(len(self.events) + 1, kind, BEGAN + timedelta(seconds=second), placed | payload))
        return self

    def sent(
        self, start: float, end: float, step: int, ord: int = 0, *, error: str = "", attempt: int = 1, name: str = "primary"
    ) -> "Story":
        what, who = ("tool", {"tool": name}) if ord else ("model", {"model": name})
        self.at(start, f"{what}_call_started", step, ord, data={"attempt": attempt}, **who)
        result = {"result": "error", "error_type": error} if error else {"result": "ok"}
        return self.at(end, f"{what}_call_{'failed' if error else 'completed'}", step, ord, data={"attempt": attempt}, **result, **who)


def model(step: int, state: str = "done", **more: Any) -> Call:
    return Call(step, 0, "primary", "read", state, **more)


def tool(step: int, ord: int, name: str = "search_docs", effect: str = "read", state: str = "done", **more: Any) -> Call:
    return Call(step, ord, name, effect, state, **more)


def drawn(calls: list[Call], story: Story, until: float, *, over: bool = True) -> Waterfall:
    return draw(calls, {}, story.events, began=BEGAN, until=BEGAN + timedelta(seconds=until), over=over)


def row(waterfall: Waterfall, key: str) -> Row:
    (found,) = [row for row in waterfall.rows if row.key == key]
    return found


# the line of time -----------------------------------------------------------------------------------------------------


def test_without_idle_time_a_second_is_the_same_everywhere() -> None:
    scale = Scale([(0, 4), (5, 10)], 10)
    assert [scale.x(at) for at in (0, 2.5, 5, 10)] == [0, 25, 50, 100]
    assert scale.gaps == []


def test_idle_time_of_thirty_seconds_stays_and_a_longer_one_is_shortened() -> None:
    assert Scale([(0, 10), (40, 50)], 50).gaps == []
    scale = Scale([(0, 10), (70, 80)], 80)
    (gap,) = scale.gaps
    assert (gap.x, gap.width, gap.idle_s) == (40, 20, 60)
    assert [scale.x(at) for at in (10, 40, 70, 80)] == [40, 50, 60, 100]


def test_many_idle_times_take_no_more_than_two_fifths() -> None:
    busy = [(n * 1000.0, n * 1000 + 10.0) for n in range(21)]
    scale = Scale(busy, 20_010)
    assert sum(gap.width for gap in scale.gaps) == pytest.approx(40)
    places = [scale.x(at) for at in range(0, 20_010, 5)]
    assert places == sorted(places) and places[0] >= 0 and places[-1] <= 100


@pytest.mark.parametrize(("busy", "total"), [([], 0), ([], 500), ([(0, 0)], 0), ([(-5, 700)], 100), ([(90, 10)], 100)])
def test_odd_times_stay_on_the_line(busy: list[tuple[float, float]], total: float) -> None:
    scale = Scale(busy, total)
    assert all(0 <= scale.x(at) <= 100 for at in (-1, 0, total / 2, total, total + 99))
    assert all(0 <= tick.x <= 100 for tick in scale.ticks())


@pytest.mark.parametrize("total", [0.02, 0.7, 9, 64, 600, 7200, 500_000])
def test_there_are_few_ticks_at_round_times_and_none_lies_in_a_gap(total: float) -> None:
    scale = Scale([(0, total / 2), (total / 2 + 31, total + 31)], total + 31)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 8 and ticks[0].at_s == 0
    assert all(later.x - tick.x >= 10 for tick, later in itertools.pairwise(ticks))
    assert not any(gap.x < tick.x < gap.x + gap.width for gap in scale.gaps for tick in ticks)


# rows -----------------------------------------------------------------------------------------------------------------


def test_calls_are_nested_under_steps_and_decisions_and_attempts_under_calls() -> None:
    story = Story().sent(0, 1, 1).at(1, "policy_decided", 1, 1).sent(1, 3, 1, 1, error="timeout").sent(4, 5, 1, 1, attempt=2)
    calls = [model(1, asked=1), tool(1, 1, decision={"decision": "allow", "by": "permission"})]
    rows = drawn(calls, story, 5).rows
    assert [(r.key, r.level, r.parent) for r in rows] == [
        ("1", 1, ""), ("1.0", 2, "1"), ("1.1", 2, "1"), ("1.1.policy", 3, "1.1"), ("1.1.1", 3, "1.1"), ("1.1.2", 3, "1.1"),
    ]  # fmt: skip
    assert [(r.position, r.siblings) for r in rows] == [(1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (3, 3)]
    assert [r.title for r in rows] == ["search_docs", "primary", "search_docs", "policy: allow", "#1 timeout", "#2 ok"]


def test_order_is_by_number_and_not_by_who_ended_first() -> None:
    story = Story().sent(0, 9, 1, 1).sent(0, 1, 1, 2)
    assert [r.key for r in drawn([tool(1, 2, "b"), tool(1, 1, "a"), model(1)], story, 9).rows if r.level == 2] == ["1.0", "1.1", "1.2"]


def test_a_failed_attempt_is_hatched_the_backoff_is_dotted_and_the_answer_has_its_colour() -> None:
    story = Story().sent(0, 2, 1, 1, error="timeout").sent(4, 5, 1, 1, attempt=2)
    bars = row(drawn([model(1), tool(1, 1)], story, 10), "1.1").bars
    assert [(b.css, b.x, b.width) for b in bars] == [("bad", 0, 20), ("back", 20, 20), ("read", 40, 10)]


def test_waiting_for_a_person_is_striped_until_the_decision_and_a_first_yes_of_two_does_not_end_it() -> None:
    story = Story().sent(0, 1, 1).at(1, "approval_requested", 1, 1).at(5, "approval_decided", 1, 1, data={"state": "pending"})
    calls = [model(1), tool(1, 1, "refund", "write", "waiting_approval")]
    waits = row(drawn(calls, story, 10, over=False), "1.1")
    assert waits.waits and [b.css for b in waits.bars] == ["waitbar"] and waits.bars[0].end == pytest.approx(100, abs=0.01)
    story.at(8, "approval_decided", 1, 1, data={"state": "approved"})
    decided = row(drawn(calls, story, 10, over=False), "1.1").bars[0]
    assert (decided.x, decided.end) == (10, 80)


def test_the_answers_own_latency_counts_not_the_time_of_its_commit() -> None:
    story = Story().at(0, "model_call_started", 1, data={"attempt": 1}).at(9, "model_call_completed", 1, result="ok", latency_ms=2000)
    assert row(drawn([model(1)], story, 10), "1.0").took_s == 2


def test_no_bar_is_too_thin_to_see_and_none_leaves_the_lane() -> None:
    story = Story().sent(0, 0, 1).sent(999, 1000, 2).sent(1000, 1000, 3)
    bars = [bar for r in drawn([model(1), model(2), model(3)], story, 1000).rows for bar in r.bars]
    assert all(bar.width >= 0.5 and bar.x >= 0 and bar.end <= 100.001 for bar in bars)


def test_what_is_in_progress_reaches_to_now_and_after_the_end_it_is_no_longer_in_progress() -> None:
    story = Story().at(2, "tool_call_started", 1, 1, tool="x", data={"attempt": 1})
    calls = [model(1), tool(1, 1, state="dispatched")]
    assert row(drawn(calls, story, 10, over=False), "1.1").bars[0].end == pytest.approx(100)
    story.sent(3, 4, 1, 1, attempt=2)
    titles = [r.title for r in drawn(calls, story, 10).rows if r.kind == "attempt"]
    assert titles == ["#1 no answer", "#2 ok"]


def test_a_scheduled_retry_says_so_until_the_run_is_over() -> None:
    story = Story().sent(0, 1, 1, 1, error="rate_limit").at(1, "retry_scheduled", 1, 1)
    calls = [model(1), tool(1, 1, state="failed_not_applied", error="rate_limit")]
    assert row(drawn(calls, story, 5, over=False), "1.1").state == "retrying"
    assert row(drawn(calls, story, 5), "1.1").state == "failed_not_applied"


def test_a_step_has_the_worst_state_of_its_calls_and_the_name_of_its_tools() -> None:
    calls = [model(1, asked=3), tool(1, 1, "a"), tool(1, 2, "b", "write", "unknown"), tool(1, 3, "a")]
    step = row(drawn(calls, Story(), 5), "1")
    assert (step.state, step.title, step.kind, step.trouble) == ("unknown", "a ×2, b", "write", True)


@pytest.mark.parametrize(
    ("calls", "title"),
    [([model(1)], "Answer"), ([model(1, "dispatched")], "Model call"), ([model(1, asked=2)], "Plan")],
)
def test_a_step_without_tool_calls_is_named_by_what_the_model_did(calls: list[Call], title: str) -> None:
    assert row(drawn(calls, Story(), 1), "1").title == title


# groups ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("equal", "grouped"), [(5, False), (6, True), (40, True)])
def test_more_than_five_equal_calls_in_a_row_are_one_group(equal: int, grouped: bool) -> None:
    waterfall = drawn([model(1, asked=equal), *(tool(1, n) for n in range(1, equal + 1))], Story(), 1)
    second = [r for r in waterfall.rows if r.level == 2]
    if not grouped:
        assert len(second) == equal + 1
        return
    head = second[1]
    assert (head.title, head.parts, head.open) == (f"search_docs ×{equal}", equal, False)
    inner = [r for r in waterfall.rows if r.parent == head.key]
    assert [(r.level, r.position, r.siblings) for r in inner] == [(3, n, equal) for n in range(1, equal + 1)]
    assert all(r.hidden for r in inner)


def test_another_tool_between_them_parts_a_row_of_equal_calls() -> None:
    calls = [model(1), *(tool(1, n) for n in range(1, 5)), tool(1, 5, "other"), *(tool(1, n) for n in range(6, 10))]
    assert not [r for r in drawn(calls, Story(), 1).rows if ".g" in r.key]


def test_a_group_shows_the_trouble_inside_it() -> None:
    calls = [model(1), *(tool(1, n, state="failed_not_applied" if n == 4 else "done") for n in range(1, 9))]
    waterfall = drawn(calls, Story(), 1)
    assert row(waterfall, "1.g1").trouble and waterfall.default == "1.4"


# what is open, and what is selected -----------------------------------------------------------------------------------


def test_a_small_run_is_open_and_a_long_one_opens_what_needs_a_look() -> None:
    assert all(r.open for r in drawn([model(1), tool(1, 1)], Story(), 1).rows if r.level == 1)
    calls = [call for step in range(1, 41) for call in (model(step), tool(step, 1, state="failed_not_applied" if step == 7 else "done"))]
    rows = drawn(calls, Story(), 1).rows
    assert [r.key for r in rows if r.open] == ["7", "40"]
    assert sorted({r.parent for r in rows if not r.hidden and r.parent}) == ["40", "7"]


def test_what_blocks_is_selected_else_the_last_failure_else_the_last_step() -> None:
    calm = [model(1), tool(1, 1), model(2)]
    assert drawn(calm, Story(), 1).default == "2"
    failed = [*calm, tool(2, 1, state="failed_not_applied"), model(3, "failed_not_applied"), model(4)]
    assert drawn(failed, Story(), 1).default == "3.0"
    assert drawn([*failed, tool(1, 2, "refund", "write", "waiting_approval")], Story(), 1).default == "1.2"
    assert drawn([], Story(), 0).default == ""


def test_whatever_a_row_lies_in_is_opened_to_show_it() -> None:
    waterfall = drawn([model(1), *(tool(1, n) for n in range(1, 9))], Story(), 1)
    assert row(waterfall, "1.4").hidden
    reveal(waterfall.rows, "1.4")
    assert not row(waterfall, "1.4").hidden and row(waterfall, "1.g1").open
    reveal(waterfall.rows, "9.9")


def test_labels_are_left_out_where_they_would_be_cut_and_long_ones_are_shortened() -> None:
    story = Story().sent(0, 10, 1, name="m" * 300)
    full = row(drawn([Call(1, 0, "m" * 300, "read", "done", tokens=5)], story, 10), "1")
    assert full.label is None
    story = Story().sent(0, 1, 1).sent(9, 10, 2)
    late = row(drawn([model(1, tokens=3100), model(2, tokens=10)], story, 10), "2.0")
    assert late.label and late.label.before and late.label.x == 90 and late.label.text == "10 tok"


def test_a_fallback_names_the_model_that_answered() -> None:
    story = Story().sent(0, 1, 1, error="transient_upstream").at(1, "fallback_activated", 1, 0).sent(1, 2, 1, attempt=2, name="spare")
    waterfall = drawn([Call(1, 0, "spare", "read", "done")], story, 20)
    label = row(waterfall, "1.0").label
    assert label and label.text == "ok by fallback to spare"
    assert [r.title for r in waterfall.rows if r.kind == "attempt"] == ["#1 primary: transient upstream", "#2 spare: ok"]
    assert (waterfall.retries, waterfall.fallbacks) == (1, 1)


def test_two_thousand_calls_are_drawn_whole() -> None:
    story = Story()
    for step in range(1, 501):
        story.sent(step, step + 0.5, step).sent(step + 0.5, step + 0.9, step, 1)
    waterfall = drawn([call for n in range(1, 501) for call in (model(n, asked=1), tool(n, 1), tool(n, 2), tool(n, 3))], story, 502)
    assert (waterfall.steps, waterfall.calls) == (500, 2000)
    assert [r.key for r in waterfall.rows if r.level == 1] == [str(n) for n in range(1, 501)]


# the words of an event ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "payload", "words"),
    [
        ("model_call_completed", {"model": "m", "input_tokens": 2204, "latency_ms": 1}, "m · 2,204 tok in, 0 out · 1 ms"),
        ("tool_call_failed", {"tool": "x", "error_type": "rate_limit", "data": {"status": 429}}, "x · rate limit · HTTP 429"),
        ("tool_call_failed", {"tool": "x", "error_type": "timeout", "retryable": True}, "x · timeout · will be tried again"),
        ("approval_requested", {"tool": "refund", "data": {"needed": 2}}, "refund · needs 2 people"),
        (
            "approval_decided",
            {"tool": "refund", "data": {"by": "otto", "verdict": "approve", "state": "pending"}},
            "refund · approved by otto · one more person needed",
        ),
        ("budget_exceeded", {"data": {"limit": "max_steps", "value": 8, "used": 9, "by": "primary"}}, "max_steps · 9 of 8 · primary"),
        ("fallback_activated", {"data": {"from": "a", "to": "b"}, "error_type": "timeout"}, "a → b · timeout"),
        ("hibernated", {"tool": "x", "result": "ok"}, "x · ok"),
        ("run_started", {"v": 1}, ""),
        ("plan_decided", {"data": None}, "no calls"),
    ],
)  # fmt: skip
def test_an_event_is_told_in_one_line(kind: str, payload: dict[str, Any], words: str) -> None:
    assert text(kind, payload) == words


def test_failures_are_red_waits_amber_and_good_ends_green() -> None:
    assert (tone("tool_call_failed", {}), tone("run_completed", {"result": "error"})) == ("fail", "fail")
    assert (tone("approval_requested", {}), tone("retry_scheduled", {})) == ("wait", "wait")
    assert (tone("approval_decided", {"result": "ok"}), tone("approval_decided", {"result": "denied"})) == ("ok", "fail")
    assert tone("model_call_started", {}) == ""
