"""Canonical bytes, storable values, limited depth."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.canonical import clean, dumps, loads_limited

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


# RFC 8785, appendix B: IEEE 754 bits -> text
@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_are_written_as_the_standard_says(bits: str, text: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert dumps(number) == text.encode()


def test_keys_are_ordered_by_utf16_and_nothing_is_escaped_that_need_not_be() -> None:
    value = {"€": 1, "\r": 2, "\ufb33": 3, "1": 4, "😀": 5, "\x80": 6, "ö": 7}
    assert list(json.loads(dumps(value))) == ["\r", "1", "\x80", "ö", "€", "😀", "\ufb33"]
    assert dumps({"b": '€$\x0f\nA\'B"\\\\"/', "a": [True, None, 1.0]}) == (
        '{"a":[true,null,1],"b":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'.encode()
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", {1: 2}, {"a": object()}, {"\udfff": 1}, b"x"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        dumps(value)


def test_endless_nesting_is_refused_and_not_a_recursion_error() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="deep"):
        dumps(loop)


@given(JSON)
def test_canonical_bytes_mean_the_same_and_are_stable(value: object) -> None:
    raw = dumps(value)
    assert json.loads(raw, parse_int=float) == json.loads(json.dumps(value), parse_int=float)
    assert dumps(json.loads(raw)) == raw


def test_integers_are_never_rounded() -> None:
    assert dumps({"id": 2**53 + 1}) == b'{"id":9007199254740993}'


@pytest.mark.parametrize(
    ("value", "cleaned", "count"),
    [
        ({"a\x00": ["x\x00y\x00"]}, {"a�": ["x�y�"]}, 3),
        ("\ud800 and \udc00", "� and �", 2),
        ([math.nan, math.inf, -math.inf], ["NaN", "Infinity", "-Infinity"], 3),
        ([2**63, -(2**63), 2**63 - 1], [str(2**63), -(2**63), 2**63 - 1], 1),
        ({"fine": [1, 1.5, "ok", None, True]}, {"fine": [1, 1.5, "ok", None, True]}, 0),
    ],
)
def test_what_the_database_cannot_hold_is_replaced_and_counted(value: object, cleaned: object, count: int) -> None:
    assert clean(value) == (cleaned, count)


def test_an_integer_of_twenty_thousand_digits_is_storable() -> None:
    cleaned, count = clean([1 << 70_000])
    assert count == 1
    assert isinstance(cleaned[0], str)


def test_depth_is_limited_without_a_recursion_error() -> None:
    assert loads_limited(b"[" * 64 + b"]" * 64)
    for depth in (65, 900, 100_000):
        with pytest.raises(ValueError, match="deeper"):
            loads_limited(b"[" * depth + b"]" * depth)
        with pytest.raises(ValueError, match="deeper"):
            loads_limited(b'{"a":' * depth + b"1" + b"}" * depth)


def test_many_brackets_side_by_side_are_not_depth() -> None:
    assert loads_limited(b"[" + b"[]," * 500 + b'"[[[["]')[500] == "[[[["


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b'{"a":1}x', b"\xed\xa0\x80", b"9" * 5000])
def test_what_is_not_json_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        loads_limited(raw)


def test_lone_surrogates_in_escapes_are_let_through_for_cleaning() -> None:
    assert clean(loads_limited(b'["\\ud800", NaN]')) == (["�", "NaN"], 2)
