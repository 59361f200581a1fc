"""Shapes for the OpenAPI document that are not REST framework serializers: pydantic models and records."""

from typing import Any

from runs.intake import Order

TEXT = {"type": "string"}
TEXT_OR_NULL = {"type": ["string", "null"]}
WHOLE = {"type": "integer"}
ANY = {"type": ["object", "null"], "additionalProperties": True}


def inline(schema: dict[str, Any]) -> dict[str, Any]:
    """A pydantic schema with its `$defs` put in place: it stands alone inside the OpenAPI document."""
    definitions = schema.pop("$defs", {})

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return walk(definitions.get(node["$ref"].rpartition("/")[2], {}))
            return {key: walk(value) for key, value in node.items()}
        return [walk(item) for item in node] if isinstance(node, list) else node

    return dict(walk(schema))


def order_schema() -> dict[str, Any]:
    return {"application/json": inline(Order.model_json_schema(ref_template="#/$defs/{model}"))}


def listed(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"items": {"type": "array", "items": item}, "next_cursor": TEXT_OR_NULL}}


RUN: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{
            name: TEXT
            for name in ("run_id", "tenant", "agent", "release", "state", "mode", "deadline_at", "cost_usd", "created_at")
        },
        **{name: TEXT_OR_NULL for name in ("outcome", "ended_at", "session")},
        **{name: WHOLE for name in ("step", "max_steps", "seq", "release_number")},
        **{name: ANY for name in ("user", "last_error", "stop", "usage", "limits", "input", "output", "metadata")},
        **{name: {"type": "boolean"} for name in ("cost_partial", "degraded", "cancel_requested")},
        "tools_called": {"type": "array", "items": TEXT},
    },
}
RUNS = listed(RUN)
APPROVAL: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{
            name: TEXT
            for name in ("approval_id", "run_id", "call_id", "agent", "tool", "effect", "args_text", "digest", "risk", "why")
        },
        **{name: TEXT for name in ("state", "created_at", "expires_at")},
        **{name: WHOLE for name in ("step_id", "needed")},
        "args": ANY,
        "evidence": {"type": "array", "items": ANY},
        "decisions": {"type": "array", "items": ANY},
        "void_reason": TEXT_OR_NULL,
    },
}
DECISION = {
    "application/json": {
        "type": "object",
        "required": ["verdict", "digest"],
        "additionalProperties": False,
        "properties": {"verdict": {"enum": ["approve", "reject"]}, "digest": TEXT, "reason": TEXT, "args": ANY},
    }
}
