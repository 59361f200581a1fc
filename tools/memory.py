"""The tools that the runtime itself answers: reading, writing and forgetting what an agent keeps between runs. Pure.

They are like every other tool: pinned by releases, decided by permissions and rules, approved, in the record of a run. What they do is in
`runs.memory`. A write asks a person unless an admin's permission loosens it.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from tenants.errors import Refused

from .spec import MemoryAdapter, ToolSpec

KIND: Final = "memory"  # of the adapter, and the label of each of these tools
READ, READ_SENSITIVE, WRITE, FORGET = "memory_read", "memory_read_sensitive", "memory_write", "memory_forget"
KEY_MAX, TEXT_MAX, ITEMS_MAX = 128, 8192, 50

_KINDS: Final = {
    "enum": ["session", "reference"],
    "description": "session: of this conversation. reference: where something is kept in another system.",
}
_KEY: Final = {"type": "string", "minLength": 1, "maxLength": KEY_MAX, "description": "The name that it is kept under."}
_ASKED: Final = {
    "kind": _KINDS,
    "key": _KEY,
    "query": {"type": "string", "minLength": 1, "maxLength": 200, "description": "A part of the key or the value; without it, all."},
    "limit": {"type": "integer", "minimum": 1, "maximum": ITEMS_MAX},
}
_VALUE: Final = {
    "type": ["string", "number", "boolean", "object", "array"],
    "maxLength": TEXT_MAX,
    "description": 'For a reference: {"system", "id"} of the thing, and "type" and "url" where there are any.',
}


def _spec(does: Literal["read", "read_sensitive", "write", "forget"], about: str, properties: dict[str, Any], *needed: str) -> ToolSpec:
    write = does in ("write", "forget")
    schema = {"type": "object", "properties": properties, "required": list(needed), "additionalProperties": False}
    return ToolSpec.model_validate({
        "adapter": {"kind": KIND, "does": does}, "description": about, "effect": "write" if write else "read",
        "idempotency": "key" if write else "none", "input_schema": schema, "timeout_s": 5,
        "labels": [KIND, "private"] if does == "read_sensitive" else [KIND],
    })  # fmt: skip


SPECS: Final[Mapping[str, ToolSpec]] = {
    READ: _spec("read", "What was kept in earlier runs, newest first. Values that are sensitive are left out.", _ASKED, "kind"),
    READ_SENSITIVE: _spec("read_sensitive", "As memory_read, with the values that are sensitive.", _ASKED, "kind"),
    WRITE: _spec(
        "write", "Keep a value under a key for later runs. What was there under that key is replaced.",
        {
            "kind": _KINDS, "key": _KEY, "value": _VALUE,
            "sensitivity": {"enum": ["normal", "sensitive"], "description": "sensitive: personal or confidential."},
            "ttl_days": {"type": "integer", "minimum": 1, "maximum": 3650, "description": "Forget it earlier than usual."},
        },
        "kind", "key", "value",
    ),
    FORGET: _spec("forget", "Delete what is kept under a key, for good.", {"kind": _KINDS, "key": _KEY}, "kind", "key"),
}  # fmt: skip


def listed(*, sensitive: bool) -> tuple[str, ...]:
    """The tools of a release that has memory."""
    return tuple(name for name in SPECS if sensitive or name != READ_SENSITIVE)


def check(name: str, spec: ToolSpec) -> None:
    """Refuses bad_name: these names are the runtime's own, and mean exactly this."""
    if (name in SPECS or isinstance(spec.adapter, MemoryAdapter)) and spec != SPECS.get(name):
        raise Refused("bad_name", f"{', '.join(SPECS)} are the runtime's own tools. Give {name} another name and adapter.", name=name)
