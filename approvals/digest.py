"""What an approval is bound to: one hash over everything that decides what will be sent. Pure."""

import hashlib
import json

FIELDS = ("tenant", "run", "call", "tool_version", "args_sha256", "destination", "effect", "key")


def digest(
    *,
    tenant: str,
    run: str,
    call: str,
    tool_version: str,
    args_sha256: str,
    destination: str,
    effect: str,
    key: str | None,
) -> str:
    """SHA-256 in hex over canonical JSON (RFC 8785; the object is flat, its names are ASCII) of FIELDS.

    `call` names the call inside its run ("3.1" for step 3, ord 1), `destination` where it goes (method and URL, or the registered
    function), `key` the idempotency key (None for a read). Raises TypeError for anything but text: a number or a
    UUID has more than one spelling, and two spellings would be two digests.
    """
    values = (tenant, run, call, tool_version, args_sha256, destination, effect, key)
    fields = dict(zip(FIELDS, values, strict=True))
    for name, value in fields.items():
        if not isinstance(value, str) and not (name == "key" and value is None):
            raise TypeError(f"{name} must be text, not {type(value).__name__}")
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
