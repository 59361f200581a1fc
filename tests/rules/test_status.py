import datetime as dt
from decimal import Decimal

import pytest

from console.status import APPROVAL, BREAKER, CALL, KINDS, OUTCOME, RUN, TONES, look
from console.templatetags import signalbox as tags

RUN_STATES = """queued running waiting_approval waiting_timer waiting_budget needs_reconciliation quarantined paused
cancelling succeeded failed cancelled""".split()  # noqa: SIM905
OUTCOMES = """completed completed_degraded model_error tool_error invalid_output empty_answer truncated refused
content_filtered loop_detected budget_exceeded step_limit deadline_exceeded policy_denied approval_rejected
approval_expired stopped_by_switch cancelled""".split()  # noqa: SIM905


def test_every_state_and_outcome_of_the_contract_has_a_look() -> None:
    assert set(RUN) == set(RUN_STATES)
    assert set(OUTCOME) == set(OUTCOMES)
    assert {"closed", "half_open", "open", "held_open", "held_closed"} == set(BREAKER)
    assert {"dispatched", "done", "failed_not_applied", "unknown", "waiting_approval"} <= set(CALL)
    assert {"pending", "approved", "rejected", "expired", "consumed", "void"} <= set(APPROVAL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_has_an_icon_a_word_a_tone_and_a_sentence(kind: str) -> None:
    for state, shown in KINDS[kind].items():
        assert shown.icon and shown.label[0].isupper(), state
        assert shown.tone in TONES
        assert shown.description.endswith(".")
        assert not shown.label.isupper()


def test_states_that_need_a_person_are_amber_and_unknown_writes_are_red() -> None:
    for state in ("waiting_approval", "waiting_budget", "waiting_timer", "paused"):
        assert look("run", state).tone == "wait"
    assert look("run", "needs_reconciliation").tone == look("run", "quarantined").tone == "fail"
    assert look("run", "cancelling").tone == "idle"


@pytest.mark.parametrize(("kind", "state"), [("run", "hibernating"), ("weather", "rain"), ("run", None), ("run", "")])
def test_an_unknown_state_is_idle_with_its_raw_name(kind: str, state: str | None) -> None:
    shown = look(kind, state)

    assert shown.tone == "idle"
    assert shown.label == (str(state) or "None")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0s"),
        (0.002, "2ms"),
        (0.9996, "1.0s"),
        (6.14, "6.1s"),
        (9.96, "10s"),
        (41.2, "41s"),
        (59.7, "1m 00s"),
        (192, "3m 12s"),
        (3599.6, "1h 00m"),
        (3840, "1h 04m"),
        (183_600, "2d 03h"),
        (-3, "0s"),
        (None, "–"),
        (dt.timedelta(minutes=15), "15m 00s"),
    ],
)
def test_a_duration_has_decimals_only_under_ten_seconds(value: float | dt.timedelta | None, text: str) -> None:
    assert tags.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1240", "$1,240.00"),
        (0.38, "$0.38"),
        (Decimal("0.019"), "$0.019"),
        (0.000_04, "$0.000040"),
        (0, "$0.00"),
        (-2, "-$2.00"),
        ("NaN", "–"),
        ("many", "–"),
        (None, "–"),
    ],
)
def test_no_cost_is_rounded_to_nothing(value: object, text: str) -> None:
    assert tags.money(value) == text


def test_sizes_counts_ids_and_micro_dollars_read_as_people_write_them() -> None:
    assert [tags.byte_count(n) for n in (512, 8294, 1_258_291, None)] == ["512 B", "8.1 KB", "1.2 MB", "–"]
    assert [tags.compact(n) for n in (940, 41_200, 80_000, 1_300_000)] == ["940", "41.2k", "80k", "1.3M"]
    assert tags.short_id("agt_01JT8Q4ZKDXXXXXXXX") == "agt_01JT8Q4ZKD"
    assert tags.micros(380_000) == "$0.38"


def test_hidden_characters_are_spelt_out_and_markup_is_escaped() -> None:
    shown = tags.visible("pay \u202e<script>\u200b\x00\ufe01end\n")

    assert "<script>" not in shown and "&lt;script&gt;" in shown
    assert not any(c in shown for c in "\u202e\u200b\x00\ufe01")
    assert all(f">U+{code}<" in shown for code in ("202E", "200B", "0000", "FE01"))
    assert shown.endswith("end\n")


def test_a_lone_surrogate_can_be_shown() -> None:
    assert "U+D800" in tags.visible("\ud800").encode().decode()


def test_json_is_coloured_and_escaped() -> None:
    shown = tags.json_tokens({"a<b": "</pre><script>\u202e", "n": -1.5, "t": [True, None]})

    assert "<script>" not in shown and "</pre>" not in shown
    assert '<span class="p">&quot;n&quot;</span>:' in shown
    assert '<span class="nu">-1.5</span>' in shown and '<span class="nu">null</span>' in shown
    assert "U+202E" in shown


def test_json_is_cut_where_told_and_says_how_much_there_is() -> None:
    shown = tags.json_tokens("x" * 5000, 100)

    assert len(shown) < 400
    assert "4.9 KB in all" in shown


def test_json_that_is_nested_too_deeply_is_a_sentence_and_not_a_fault() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]

    assert "too deeply" in tags.json_tokens(value)


@pytest.mark.parametrize(
    ("used", "limit", "level", "width"),
    [(9, 20, "", "45.00%"), (16, 20, "w", "80.00%"), (20, 20, "f", "100.00%"), (30, 20, "f", "100.00%"), (3, None, "", "0.00%")],
)
def test_a_gauge_is_amber_from_eighty_and_red_at_a_hundred(used: int, limit: int | None, level: str, width: str) -> None:
    shown = tags.gauge("Steps", used, limit)

    assert (shown["level"], shown["width"]) == (level, width)
