"""Where arguments go, and that a value in the path changes nothing but its own segment."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from tools import places
from tools.spec import ToolSpec

URL_ = "http://api.example.com/v1/things/{id}/parts/{n}.json"
PLACE = {"id": "path", "n": "path", "q": "query", "X-Kind": "header"}


def spec(url: str, method: str = "GET", place: dict[str, str] | None = None, **properties: Any) -> ToolSpec:
    return ToolSpec.model_validate({
        "adapter": {"kind": "http", "url": url, "method": method, "place": place or {}}, "description": "d", "effect": "read",
        "input_schema": {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False},
    })  # fmt: skip


@pytest.mark.mission("P2.1")
def test_each_argument_goes_to_its_place() -> None:
    args = {"id": "a b", "n": 7, "q": ["x&y", "z"], "X-Kind": "fast", "rest": {"deep": 1}}
    placed = places.put(URL_, "POST", PLACE, b"{}", args)
    assert placed.url == "http://api.example.com/v1/things/a%20b/parts/7.json?q=x%26y&q=z"
    assert (dict(placed.headers), placed.body) == ({"X-Kind": "fast"}, b'{"rest":{"deep":1}}')


def test_a_body_that_holds_all_arguments_is_the_approved_bytes() -> None:
    assert places.put("http://a/", "POST", {}, b'{ "n": 1.0 }', {"n": 1.0}).body == b'{ "n": 1.0 }'
    assert places.put("http://a/{n}", "DELETE", {"n": "path"}, b"{}", {"n": 1}).body is None
    assert places.put("http://a/", "GET", {}, b"{}", {"n": True}).url == "http://a/?n=true"


@given(st.text(max_size=12) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_no_value_leaves_its_segment(value: Any) -> None:
    try:
        sent = URL(places.put("http://api.example.com/v1/{id}/end", "GET", {"id": "path"}, b"{}", {"id": value}).url, encoded=True)
    except places.Unplaceable:
        return
    assert (sent.host, sent.query_string, sent.fragment) == ("api.example.com", "", "")
    first, second, third, fourth = sent.raw_path.split("/")
    assert (first, second, fourth) == ("", "v1", "end") and third not in ("", ".", "..")


@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "../../etc", "a\\b", "a\nb", "a\x00", None, [1], {"a": 1}, "\u2028"])
def test_a_value_that_would_change_the_path_is_refused(value: Any) -> None:
    with pytest.raises(places.Unplaceable):
        places.put("http://api.example.com/v1/{id}", "GET", {"id": "path"}, b"{}", {"id": value})


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://{host}/v1", {"host": "path"}),
        ("http://api.example.com/v1?x={id}", {"id": "path"}),
        ("http://api.example.com/{id}", {}),
        ("http://api.example.com/{id}/{id}", {"id": "path"}),
        ("http://api.example.com/v1", {"id": "path"}),
        ("http://api.example.com/{id", {"id": "path"}),
        ("http://api.example.com/v1", {"Authorization": "header"}),
        ("http://api.example.com/v1", {"Host": "header"}),
        ("http://api.example.com/v1", {"X-Signalbox-Run": "header"}),
        ("http://api.example.com/v1", {"a b": "header"}),
        ("http://api.example.com/v1", {"id": "body"}),
        ("http://api.example.com/v1", {"id": "cookie"}),
    ],
)
def test_places_that_do_not_fit_the_url_are_refused(url: str, place: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        spec(url, "GET", place, **{name: {"type": "string"} for name in place})


@pytest.mark.parametrize("part", [{"type": "object"}, {"type": "array"}, {}])
def test_what_goes_into_the_path_is_a_plain_value_and_required(part: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="goes into the path"):
        spec("http://api.example.com/{id}", "GET", {"id": "path"}, id=part)


def test_a_tool_without_places_is_the_version_that_it_was() -> None:
    assert "place" not in spec("http://api.example.com/v1").stored()["adapter"]
    assert spec("http://api.example.com/{id}", "GET", {"id": "path"}, id={"type": "string"}).stored()["adapter"]["place"]


@pytest.mark.parametrize("value", ["a\r\nX: y", "é", "a" * 2001])
def test_a_value_that_cannot_be_a_header_is_refused(value: str) -> None:
    with pytest.raises(places.Unplaceable):
        places.put("http://api.example.com/", "GET", {"X-Kind": "header"}, b"{}", {"X-Kind": value})
