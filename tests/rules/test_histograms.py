"""Log buckets, files of rows, and the text format of Prometheus."""

import csv as stdlib_csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console import exposition, histograms, tables
from console.exposition import Family

NUMBERS = st.floats(min_value=1, max_value=1e15)


def nearest_rank(values: list[float], q: float) -> float:
    return sorted(values)[max(1, math.ceil(q * len(values))) - 1]


@pytest.mark.mission("P8.2")
@given(st.lists(NUMBERS, min_size=1, max_size=60), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_a_quantile_is_within_the_stated_error_of_the_nearest_rank(values: list[float], q: float) -> None:
    told = histograms.quantile(histograms.of(values), q)
    assert told == pytest.approx(nearest_rank(values, q), rel=histograms.ERROR + 1e-9)


@given(NUMBERS)
def test_a_value_lies_between_the_ends_of_its_bucket(x: float) -> None:
    number = histograms.bucket(x)
    assert histograms.upper(number - 1) * (1 - 1e-9) <= x <= histograms.upper(number) * (1 + 1e-9)


@given(st.lists(st.lists(st.floats(min_value=0, max_value=1e9), max_size=20), max_size=5))
def test_merged_histograms_are_the_histogram_of_all_values(parts: list[list[float]]) -> None:
    assert histograms.merge(*map(histograms.of, parts)) == histograms.of(x for part in parts for x in part)


@pytest.mark.parametrize("x", [0, -1, 0.999, float("nan"), float("-inf")])
def test_what_is_below_one_or_no_number_lies_in_the_bucket_zero(x: float) -> None:
    assert histograms.bucket(x) == 0


@pytest.mark.parametrize("x", [1e40, 1e300, float("inf")])
def test_what_is_too_large_is_as_large_as_the_last_bucket(x: float) -> None:
    assert histograms.bucket(x) == histograms.MOST


def test_without_anything_counted_there_is_no_quantile() -> None:
    assert histograms.quantile({}, 0.5) is None and histograms.quantile({"3": 0}, 0.5) is None


# files ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\0x"])
def test_no_cell_of_a_csv_begins_as_a_formula_does(text: str) -> None:
    assert tables.cell(text) == f'"\'{text}"'


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_a_csv_is_read_back_as_it_was_written(texts: list[str]) -> None:
    names = [f"c{n}" for n in range(len(texts))]
    _, found = stdlib_csv.reader(io.StringIO(tables.csv(names, [dict(zip(names, texts, strict=True))]), newline=""))
    assert found == [f"'{text}" if text.startswith(tables.RISKY) else text for text in texts]


def test_numbers_are_numbers_and_nothing_is_an_empty_cell() -> None:
    assert tables.csv(["a", "b", "c"], [{"a": -1.5, "b": None}]) == '"a","b","c"\r\n"-1.5","",""\r\n'


def test_a_name_with_quotes_and_lines_stays_one_header() -> None:
    told = tables.attachment('a"b\r\nSet-Cookie: é.csv')
    assert (
        "\r" not in told and "\n" not in told and told.count('"') == 2 and "filename*=UTF-8''a%22b%0D%0ASet-Cookie%3A%20%C3%A9.csv" in told
    )


# Prometheus -------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P8.2")
def test_labels_are_escaped_and_long_ones_cut() -> None:
    samples: list[exposition.Sample] = [("", {"tool": 'a"b\\c\nd'}, 3), ("", {"tool": "x" * 4096}, float("nan"))]
    made = exposition.text([Family("calls_total", "counter", "Calls\nof tools.", samples)])
    lines = made.splitlines()
    assert lines[:3] == ["# HELP calls_total Calls\\nof tools.", "# TYPE calls_total counter", 'calls_total{tool="a\\"b\\\\c\\nd"} 3']
    assert len(lines) == 4 and len(lines[3]) < 300 and lines[3].endswith("NaN")


def test_a_label_of_many_values_keeps_the_largest_and_adds_the_others_up() -> None:
    counts = {f"t{n}": {"calls": float(n)} for n in range(10)}
    kept = exposition.bounded(counts, "calls", 3)
    assert kept == {"t9": {"calls": 9}, "t8": {"calls": 8}, "t7": {"calls": 7}, exposition.OTHER: {"calls": 21}}


def test_names_that_are_alike_when_cut_are_one_series() -> None:
    kept = exposition.bounded({"x" * 4096: {"calls": 1}, "x" * 4095: {"calls": 2}}, "calls")
    assert [found["calls"] for found in kept.values()] == [3]
