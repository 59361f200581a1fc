"""What an approval is bound to: one hash over everything that decides what will be sent. Pure."""

import hashlib
import json
from collections.abc import Mapping

FIELDS = ("tenant", "run", "call", "tool_version", "credential", "args_sha256", "destination", "effect", "policy", "key")
LABELS = {"tool_version": "tool version", "args_sha256": "arguments", "credential": "credential", "policy": "policy", "key": "key"}

Sealed = dict[str, str | None]


def sealed(
    *,
    tenant: str,
    run: str,
    call: str,
    tool_version: str,
    credential: str,
    args_sha256: str,
    destination: str,
    effect: str,
    policy: str,
    key: str | None,
) -> Sealed:
    """The fields that are hashed, kept beside the digest so that drift can be named.

    `call` names the call inside its run ("3.1" for step 3, ord 1), `credential` its name and version, `destination` where it goes
    (method and URL, or the registered function), `policy` the hash of the permissions and rules over the tool, `key` the
    idempotency key (None for a read). Raises TypeError for anything but text: a number or a UUID has more than one
    spelling, and two spellings would be two digests.
    """
    values = (tenant, run, call, tool_version, credential, args_sha256, destination, effect, policy, key)
    fields = dict(zip(FIELDS, values, strict=True))
    for name, value in fields.items():
        if not isinstance(value, str) and not (name == "key" and value is None):
            raise TypeError(f"{name} must be text, not {type(value).__name__}")
    return fields


def digest(fields: Mapping[str, str | None]) -> str:
    """SHA-256 in hex over canonical JSON (RFC 8785; the object is flat, its names are ASCII) of FIELDS."""
    text = json.dumps({name: fields[name] for name in FIELDS}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def moved(before: Mapping[str, str | None], after: Mapping[str, str | None]) -> str:
    """Which fields differ, in words; empty when none does."""
    return ", ".join(LABELS.get(name, name) for name in FIELDS if before.get(name) != after.get(name))
