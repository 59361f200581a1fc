"""Standard Webhooks, both sides: how what is sent gets signed, and how a receiver checks what it got. Pure."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Container, Iterable, Mapping

SKEW_S = 300  # a message is believed this long before and after its timestamp
PREFIX = "whsec_"
MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)  # no dot: it would blur where the id ends in what is signed
TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


class Unverified(ValueError):
    """Not from who has the secret, not whole, not recent, or known already: do not act on it."""


def key_of(secret: str) -> bytes:
    """`whsec_` and base64; any other text is the key itself, in UTF-8. Raises ValueError for what is no key."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True) if secret.startswith(PREFIX) else secret.encode()
    except (binascii.Error, UnicodeError):
        raise ValueError(f"after {PREFIX} comes base64") from None
    if not key:
        raise ValueError("an empty key signs nothing")
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,<base64>`, the HMAC-SHA256 of `id.timestamp.body`. Raises ValueError for what is no key."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()


def headers(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, message_id, timestamp, body),
    }


def verify(headers: Mapping[str, str], body: bytes, secrets: Iterable[str], now: float, seen: Container[str] = ()) -> str:
    """-> the message's id. Raises Unverified.

    `body`: the bytes as they came. `secrets`: several while one replaces another. `now`: seconds since 1970. `seen`: ids that
    were acted on (keep them for 2 x SKEW_S at least); put the id there once the message is dealt with, not before.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not MESSAGE_ID.fullmatch(message_id) or not TIMESTAMP.fullmatch(timestamp):
        raise Unverified("the headers of a webhook are missing or broken")
    if abs(now - int(timestamp)) > SKEW_S:
        raise Unverified("too old, or from the future")
    right = [signature(secret, message_id, int(timestamp), body).encode() for secret in secrets]
    told = [one.encode(errors="replace") for one in given.get("webhook-signature", "").split(" ")]
    if timestamp != str(int(timestamp)) or not any([hmac.compare_digest(one, other) for one in told for other in right]):
        raise Unverified("the signature does not match")
    if message_id in seen:
        raise Unverified("this message was dealt with before")
    return message_id
