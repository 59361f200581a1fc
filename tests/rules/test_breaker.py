"""When a breaker opens and closes, and how much may be in flight. Time is a number here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.breaker import FIRST_OPEN_S, LEAST, LONGEST_OPEN_S, MOST, START, WINDOW_S, Breaker, Pace, State, Window, open_s, says


def fed(outcomes: str, breaker: Breaker | None = None, now: float = 0.0) -> tuple[Breaker, bool]:
    """`x` failed, `.` answered. -> (the breaker, whether the last one was to open it)."""
    breaker, opens = breaker or Breaker(), False
    for outcome in outcomes:
        opens = breaker.saw(outcome == "x", now, LEAST)
    return breaker, opens


@pytest.mark.mission("P3.1")
@pytest.mark.parametrize(
    ("outcomes", "opens"),
    [
        ("x" * 19, False),
        ("x" * 20, True),
        ("." * 10 + "x" * 9, False),
        ("." * 10 + "x" * 10, True),
        ("." * 11 + "x" * 10, False),
        ("." * 11 + "x" * 11, True),
        ("x" * 19 + ".", False),
    ],
)
def test_it_opens_when_half_of_at_least_twenty_failed(outcomes: str, opens: bool) -> None:
    assert fed(outcomes)[1] is opens


def test_what_is_older_than_thirty_seconds_no_longer_counts() -> None:
    breaker, _ = fed("x" * 19)
    assert fed("x", breaker, now=WINDOW_S - 1)[1] is True
    breaker, _ = fed("x" * 19)
    assert fed("x", breaker, now=WINDOW_S)[1] is False


@pytest.mark.parametrize(
    ("error", "retry_after", "verdict"),
    [
        (None, False, False),
        ("not_sent", False, True),
        ("timeout", False, True),
        ("transient_upstream", True, True),
        ("unknown", False, True),
        ("rate_limit", False, True),
        ("rate_limit", True, False),
        ("policy", False, None),
        ("validation", False, False),
        ("authorization", False, False),
        ("conflict", False, False),
        ("duplicate_request", False, False),
        ("invalid_output", False, False),
    ],
)
def test_an_outcome_says_whether_the_host_failed(error: str | None, retry_after: bool, verdict: bool | None) -> None:
    assert says(error, retry_after=retry_after) is verdict


def test_it_stays_open_for_five_seconds_and_then_twice_as_long_up_to_a_minute() -> None:
    lengths, before = [], 0.0
    for _ in range(6):
        before = open_s(before, 0)
        lengths.append(before)
    assert lengths == [5, 10, 20, 40, 60, 60]


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
def test_with_chance_it_never_opens_for_less_and_never_for_more_than_a_minute(chances: list[float]) -> None:
    before, plain = 0.0, 0.0
    for chance in chances:
        before, plain = open_s(before, chance), open_s(plain, 0)
        assert plain <= before <= LONGEST_OPEN_S and before >= FIRST_OPEN_S


def test_a_persons_word_beats_what_was_measured() -> None:
    breaker, _ = fed("x" * 40)
    breaker.open(0, 5)
    breaker.forced = "closed"
    assert breaker.lets_through and not breaker.probe_is_due(100)
    breaker.close()
    breaker.forced = "open"
    assert not breaker.lets_through and not breaker.probe_is_due(100)
    breaker.forced = "closed"
    assert fed("x" * 40, breaker)[1] is False


@given(st.lists(st.tuples(st.sampled_from(["send", "fail", "answer", "wait"]), st.floats(0, 30)), max_size=150))
def test_there_is_never_more_than_one_probe_and_nothing_else_passes_an_open_breaker(moves: list[tuple[str, float]]) -> None:
    breaker, now, out, probe = Breaker(), 0.0, 0, False
    for move, seconds in moves:
        if move == "wait":
            now += seconds
        elif move == "send" and breaker.lets_through:
            assert not probe
            out += 1
        elif move == "send" and breaker.probe_is_due(now):
            assert not probe and now >= breaker.probe_at
            breaker.take_probe(now, 1000)
            probe = True
        elif move in ("fail", "answer") and probe:
            probe = False
            breaker.reopen(now, 0) if move == "fail" else breaker.close()
        elif move in ("fail", "answer") and out:
            out -= 1
            if breaker.saw(move == "fail", now, LEAST):
                breaker.open(now, open_s(0, 0))
        assert breaker.lets_through == (breaker.state is State.CLOSED)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=200))
def test_the_window_counts_as_a_list_of_the_last_thirty_seconds_would(outcomes: list[tuple[bool, float]]) -> None:
    window, now, seen = Window(), 0.0, []
    for failed, later in outcomes:
        now += later
        window.add(failed, now)
        seen.append((int(now), failed))
        kept = [failed for second, failed in seen if second > int(now) - WINDOW_S]
        assert (window.sends, window.failures) == (len(kept), sum(kept))


def rounds(pace: Pace, calls: int, failed: bool, now: float, latency_s: float = 1.0) -> list[int]:
    """How many were sent in each round, each answered after `latency_s`."""
    sent = []
    while calls > 0:
        taken = 0
        while taken < calls and pace.enter(now):
            taken += 1
        now += latency_s
        for _ in range(taken):
            pace.saw(failed, now, latency_s)
            pace.leave()
        calls -= taken
        sent.append(taken)
    return sent


def test_a_healthy_burst_grows_twofold_with_each_round() -> None:
    assert rounds(Pace(), 1000, False, 0) == [10, 20, 40, 80, 160, 320, 370]


def test_a_host_that_lets_everything_time_out_is_asked_by_half_as_many_each_time() -> None:
    assert rounds(Pace(), 21, True, 0) == [10, 5, 2, 1, 1, 1, 1]


def test_failures_of_one_burst_halve_once() -> None:
    pace = Pace()
    for _ in range(10):
        pace.saw(True, 1.0, 0)
    assert pace.room == START // 2


def test_room_grows_only_where_it_is_used_and_is_given_back_after_half_a_minute_of_silence() -> None:
    pace = Pace()
    for now in range(500):
        assert pace.enter(now)
        pace.saw(False, now, 0.1)
        pace.leave()
    assert pace.room == START
    rounds(pace, 500, False, 500, 0.1)
    assert pace.room > 100
    assert pace.enter(600)
    assert pace.room == START


@given(st.lists(st.tuples(st.sampled_from(["enter", "answer", "fail"]), st.floats(0, 40)), max_size=300))
def test_there_is_always_room_for_one_and_never_more_in_flight_than_there_was_room(moves: list[tuple[str, float]]) -> None:
    pace, now = Pace(), 0.0
    for move, later in moves:
        now += later
        if move == "enter":
            room = pace.room
            entered = pace.enter(now)
            assert not entered or pace.in_flight <= room
        elif pace.in_flight:
            pace.saw(move == "fail", now, 0.1)
            pace.leave()
        assert 1 <= pace.room <= MOST and pace.in_flight >= 0
        assert pace.wait_s(10, now) >= 0
