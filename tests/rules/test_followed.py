"""The chart of an incident goes on after it opened, with few points however long it lasts."""

from datetime import UTC, datetime, timedelta

import pytest

from console.incidents.detectors import Looked
from console.incidents.followed import noted, of_look

pytestmark = pytest.mark.mission("P11.3")
AT = datetime(2026, 3, 4, 10, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def followed(*seen: tuple[float, float | None], threshold: float = 0.2) -> list[float | None]:
    """(seconds after the first look, value) -> the values that are kept."""
    evidence = {"threshold": threshold}
    for after, value in seen:
        evidence = noted(evidence, AT + after * SECOND, value, last=False) or evidence
    return [point["value"] for point in evidence["since"]]


def test_looks_within_a_minute_are_one_point_unless_the_line_is_crossed() -> None:
    assert followed((0, 0.5), (15, 0.6), (30, 0.7), (60, 0.4)) == [0.5, 0.4]
    assert followed((0, 0.5), (15, 0.1), (30, 0.05), (45, 0.3)) == [0.5, 0.1, 0.3]
    assert followed((0, 0.5), (15, None), (30, None)) == [0.5, None]


def test_the_last_look_is_always_a_point_and_its_time_is_told_as_everywhere() -> None:
    evidence = noted({"threshold": 0.2, "since": [{"at": "2026-03-04T10:00:00.000Z", "value": 0.1}]}, AT + SECOND, 0.0, last=True)
    assert evidence is not None and evidence["since"][-1] == {"at": "2026-03-04T10:00:01.000Z", "value": 0.0}


def test_a_week_of_looks_is_a_few_hundred_points() -> None:
    assert 100 < len(followed(*((n * 60, 0.5) for n in range(7 * 24 * 60)))) < 400


@pytest.mark.parametrize(("unit", "value"), [("count", 0.0), ("minutes", 0.0), ("share", None), ("sends", None)])
def test_a_subject_that_is_not_there_any_more_is_a_count_of_nothing_and_no_share(unit: str, value: float | None) -> None:
    assert of_look(Looked((), frozenset(), {}), "x:*", unit) == value
    assert of_look(Looked((), frozenset(), {"x:*": 0.5}), "x:*", unit) == 0.5
