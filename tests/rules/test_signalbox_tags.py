"""The words of the template tags."""

import datetime as dt

import pytest

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Expired"),
        (-5, "Expired"),
        (59, "00:59"),
        (599, "09:59"),
        (600, "10 min"),
        (3599, "59 min"),
        (11100, "3 h 05"),
        (187200, "2 d 4 h"),
    ],
)
def test_the_time_left_is_told_in_the_words_that_the_browser_goes_on_with(
    monkeypatch: pytest.MonkeyPatch, seconds: int, words: str
) -> None:
    from console.templatetags import signalbox

    monkeypatch.setattr(signalbox.timezone, "now", lambda: NOW)
    assert signalbox.left(NOW + dt.timedelta(seconds=seconds)) == words
