"""Signing and verifying as Standard Webhooks has it: its own vectors, and nothing that was touched gets through."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from console.webhooks import SKEW_S, Unverified, headers, key_of, signature, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW = 1_614_265_330
ID = "msg_01J9M7R2ABCDEFGHJKMNPQRSTV"
BODY = b'{"type":"run.succeeded","data":{"seq":9}}'
EXAMPLES = 10_000 if os.environ.get("CHAOS") else 1_000


def accepted(given: dict[str, str], body: bytes, now: float = NOW, secrets: tuple[str, ...] = (SECRET,), seen: Any = ()) -> bool:
    try:
        verify(given, body, secrets, now, seen)
    except Unverified:
        return False
    return True


@pytest.mark.mission("P1.4")
@pytest.mark.parametrize(
    ("secret", "message_id", "timestamp", "body", "expected"),
    [
        (SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", NOW, b'{"test": 2432232314}', "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        (
            OTHER, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1649367553, b'{"email":"test@example.com","username":"test_user"}',
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ],
)  # fmt: skip
def test_a_signature_is_the_published_one(secret: str, message_id: str, timestamp: int, body: bytes, expected: str) -> None:
    assert signature(secret, message_id, timestamp, body) == expected
    told = {"Webhook-Id": message_id, "WEBHOOK-TIMESTAMP": str(timestamp), "webhook-signature": f"v1,AAAA v2,x {expected}"}
    assert verify(told, body, [OTHER, SECRET], timestamp) == message_id


def test_a_plain_text_is_its_own_key() -> None:
    assert key_of("hook-secret") == b"hook-secret"
    assert verify(headers("hook-secret", ID, NOW, BODY), BODY, ["hook-secret"], NOW) == ID


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_***", "whsec_abc"])
def test_what_is_no_key_signs_nothing(secret: str) -> None:
    with pytest.raises(ValueError, match=r"base64|empty"):
        signature(secret, ID, NOW, BODY)


@pytest.mark.parametrize("skew", [-SKEW_S, -1, 0, SKEW_S])
def test_a_message_is_believed_for_five_minutes(skew: int) -> None:
    assert accepted(headers(SECRET, ID, NOW, BODY), BODY, NOW + skew)


@given(st.floats(min_value=SKEW_S + 0.001, max_value=1e9), st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_message_is_believed_before_or_after_that(skew: float, late: bool) -> None:
    assert not accepted(headers(SECRET, ID, NOW, BODY), BODY, NOW + (skew if late else -skew))


@given(st.integers(0, len(BODY) * 8 - 1))
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_body_with_a_turned_bit_is_accepted(bit: int) -> None:
    touched = bytearray(BODY)
    touched[bit // 8] ^= 1 << bit % 8
    assert not accepted(headers(SECRET, ID, NOW, BODY), bytes(touched))


@given(st.binary(max_size=60))
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_other_body_is_accepted(body: bytes) -> None:
    assume(body != BODY)
    assert not accepted(headers(SECRET, ID, NOW, BODY), body)


@given(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text(max_size=60))
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_other_header_is_accepted(name: str, value: str) -> None:
    given = headers(SECRET, ID, NOW, BODY)
    assume(given[name] not in value.split(" "))
    assert not accepted({**given, name: value}, BODY)
    assert not accepted({key: one for key, one in given.items() if key != name}, BODY)


@given(st.integers(0, len(f"{ID}.{NOW}.") + 12), st.integers(0, len(f"{ID}.{NOW}.") + 20))
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_parts_of_what_was_signed_cannot_be_cut_elsewhere(first: int, second: int) -> None:
    """`id.timestamp.body` is one text: another cut of it has the same signature, and is still refused."""
    body = b"1614265330.9.{}"
    given = headers(SECRET, ID, NOW, body)
    whole = f"{ID}.{NOW}.".encode() + body
    low, high = sorted((first, second))
    moved = {"webhook-id": whole[:low].decode(), "webhook-timestamp": whole[low + 1 : high].decode()}
    assume((moved["webhook-id"], moved["webhook-timestamp"]) != (ID, str(NOW)))
    assert not accepted({**given, **moved}, whole[high + 1 :])


@pytest.mark.parametrize("wrong", ["٣", "1614265330 ", "01614265330", "1e9", "-5", "", "1614265330.0", "9" * 400])
def test_a_timestamp_is_plain_digits(wrong: str) -> None:
    given = headers(SECRET, ID, NOW, BODY) | {"webhook-timestamp": wrong}
    assert not accepted(given, BODY)


def test_another_secret_is_not_enough_and_no_secret_accepts_nothing() -> None:
    given = headers(OTHER, ID, NOW, BODY)
    assert not accepted(given, BODY)
    assert not accepted(given, BODY, secrets=())


def test_a_message_that_was_dealt_with_is_not_dealt_with_again() -> None:
    given = headers(SECRET, ID, NOW, BODY)
    seen = {verify(given, BODY, [SECRET], NOW)}
    assert not accepted(given, BODY, NOW + 60, seen=seen)


def test_the_example_in_the_documentation_does_the_same() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
    found = re.search(r"```python\n(.*?def received.*?)```", text, re.DOTALL)
    assert found and len(found[1].strip().splitlines()) <= 15
    told: dict[str, Any] = {}
    exec(found[1], told)  # noqa: S102 - our own text
    received = told["received"]
    given = headers(SECRET, ID, NOW, BODY)
    assert received(given, BODY, SECRET, NOW)
    told["seen"].add(ID)
    assert not received(given, BODY, SECRET, NOW), "a repeated id"
    told["seen"].clear()
    for bad in (given | {"webhook-timestamp": str(NOW + 1)}, given | {"webhook-id": "msg_x"}, given | {"webhook-signature": "v1,é"}, {}):
        assert not received(bad, BODY, SECRET, NOW)
    other = headers(SECRET, "msg_2", NOW, BODY)
    assert not received(other, BODY + b" ", SECRET, NOW)
    assert not received(other, BODY, SECRET, NOW + 301) and not received(other, BODY, OTHER, NOW)
    assert received(other, BODY, SECRET, NOW)
