"""What a filter of runs asks for: values, or values to leave out; and which columns the list shows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.filter_values import LONGEST, MOST, Values, read, words
from console.pages import run_columns
from tenants.errors import Refused

NAMES = st.lists(st.text("abc_-.1", min_size=1, max_size=4), max_size=5, unique=True).map(tuple)
KNOWN = {"queued,running": "Live", "queued": "Queued", "failed": "Failed"}


@pytest.mark.parametrize(
    ("text", "names", "none_of"),
    [
        ("a", ("a",), False), ("a,b", ("a", "b"), False), ("!a", ("a",), True), ("!a, !b", ("a", "b"), True), ("a,a,,b", ("a", "b"), False),
        (",,", (), False), ("", (), False), ("a!b", ("a!b",), False),
    ],
)  # fmt: skip
def test_values_are_read_as_any_of_them_or_none_of_them(text: str, names: tuple[str, ...], none_of: bool) -> None:
    assert read("state", text) == Values(names, none_of)


@pytest.mark.parametrize("text", ["a,!b", "!a,b", "!", "!a,!", "!!a", "x" * (LONGEST + 1), ",".join(map(str, range(MOST + 1)))])
def test_what_cannot_be_read_is_refused_by_the_filters_name_with_a_cure(text: str) -> None:
    with pytest.raises(Refused) as refused:
        read("agent", text)
    assert (refused.value.code, refused.value.status) == ("bad_agent", 400)
    assert refused.value.message.startswith("agent ") and len(refused.value.message) < 120


@settings(max_examples=100)
@given(names=NAMES, more=NAMES, none_of=st.booleans())
def test_what_is_written_is_read_back_and_two_toggles_undo_each_other(names: tuple[str, ...], more: tuple[str, ...], none_of: bool) -> None:
    values = Values(names, none_of)
    assert read("state", values.text) == (values if names else Values())
    assert values.turned().turned() == values and values.turned().key != values.key
    there = values.toggled(more)
    assert set(there.names) == (set(names) - set(more) if set(more) <= set(names) else {*names, *more}) and there.none_of == none_of
    if not set(names) & set(more):
        assert there.toggled(more).key == values.key or not more


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("queued,running", "Live"), ("running,queued,failed", "Live or Failed"), ("!failed,!queued", "not Queued or Failed"),
        ("strange", "strange"), ("", ""),
    ],
)  # fmt: skip
def test_a_choice_is_told_in_the_fewest_words(text: str, told: str) -> None:
    assert words(read("state", text), KNOWN) == told


def test_columns_are_shown_in_their_own_order_and_none_is_a_choice_too() -> None:
    assert run_columns.read("cost,agent,cost") == ("agent", "cost")
    assert run_columns.read(run_columns.written(())) == () and run_columns.read(run_columns.written(run_columns.USUAL)) == run_columns.USUAL
    assert run_columns.toggled(("agent",), "cost") == ("agent", "cost") and run_columns.toggled(("agent", "cost"), "agent") == ("cost",)
    assert run_columns.read(",".join(run_columns.COLUMNS)) == tuple(run_columns.COLUMNS)


@pytest.mark.parametrize("text", ["agent,secret", "x" * 10_000, "agent," * 200])
def test_an_unknown_column_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(Refused) as refused:
        run_columns.read(text)
    assert refused.value.code == "bad_cols" and "failure" in refused.value.message and len(refused.value.message) < 400
