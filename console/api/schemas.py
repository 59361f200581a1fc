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


PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457, with a stable `code` and further members that depend on it.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {name: TEXT for name in ("type", "title", "detail", "code", "request_id")} | {"status": WHOLE},
    "additionalProperties": True,
}


def answers(given: dict[int, dict[str, Any]], media: str = "application/json") -> dict[Any, dict[str, Any]]:
    """The answers of a call, and the problem document that every other status carries."""
    return {(code, media): shape for code, shape in given.items()} | {("default", "application/problem+json"): PROBLEM}


def record(texts: str = "", maybe: str = "", wholes: str = "", objects: str = "", flags: str = "", **more: Any) -> dict[str, Any]:
    """A record from the names of its fields by type; `maybe`: a text or null."""
    types = ((texts, TEXT), (maybe, TEXT_OR_NULL), (wholes, WHOLE), (objects, ANY), (flags, {"type": "boolean"}))
    return {"type": "object", "properties": {name: kind for names, kind in types for name in names.split()} | more}


LIST = {"type": "array", "items": ANY}
TEXTS = {"type": "array", "items": TEXT}
WHOLE_OR_NULL = {"type": ["integer", "null"]}
LINT = {"type": "array", "items": record("code severity path message")}
TOOL = record(
    "name description effect idempotency sha256", objects="adapter input_schema output_schema retry", flags="enabled changed",
    tenants=TEXTS, labels=TEXTS, version=WHOLE_OR_NULL, timeout_s={"type": "number"}, lint=LINT, classified={"type": "boolean"},
    origin=ANY, pending=ANY,
)  # fmt: skip
DRAFTS = record(
    flags="dry_run", items={"type": "array", "items": record("name remote problem effect description", objects="hints", flags="imported",
                                                             notes=TEXTS)},
)  # fmt: skip
RELEASE = record("release_id agent sha256 created_at", wholes="number", objects="release tools", flags="live")
AGENT = record("name", tenants=TEXTS, releases=TEXTS, live=RELEASE | {"type": ["object", "null"]})
BREAKER = record("id tenant host_port state reason", "forced opened_at probe_at changed_by changed_at", "sends failures")
NUMBER_OR_NULL = {"type": ["number", "null"]}
MODEL = record(
    "name provider model tier host_port", "cost_usd cost_usd_today", "in_flight calls sends", "retry price_per_mtok_usd",
    timeout_s={"type": "number"}, max_concurrency=WHOLE_OR_NULL, error_rate=NUMBER_OR_NULL, p50_ms=NUMBER_OR_NULL, p95_ms=NUMBER_OR_NULL,
    breakers={"type": "array", "items": BREAKER},
)  # fmt: skip
CHANGES = record(
    flags="dry_run", changes={"type": "array", "items": record("kind name action", fields=TEXTS, lint=LINT)},
    lint=record(wholes="error warning info"),
)  # fmt: skip
EVENT = record(
    "run_id event at", "call_id model tool result error_type cost_usd", "seq v", "data", retryable={"type": ["boolean", "null"]},
    step_id=WHOLE_OR_NULL, latency_ms=WHOLE_OR_NULL, input_tokens=WHOLE_OR_NULL, output_tokens=WHOLE_OR_NULL,
)  # fmt: skip
STEP = record("", "role model", "step", calls=LIST)
RUN = record(
    "run_id tenant agent release state mode deadline_at cost_usd created_at", "outcome ended_at session paused_by rehearsal",
    "step max_steps seq release_number", "user last_error stop usage limits input output metadata action fork_of",
    "cost_partial degraded cancel_requested", tools_called=TEXTS, tool_results=LIST, rungs=LIST, drafts=TEXTS,
)  # fmt: skip
RUNS = listed(RUN)
SWITCH = record(
    "switch_id scope then state reason by at", "tenant agent tool lifted_by lifted_at lift_reason", flags="drill"
)  # fmt: skip
CEILING = record(
    "scope agent kind", "tenant spent_usd reserved_usd starts_at resets_at note", flags="over", live=WHOLE_OR_NULL,
    value={"type": ["string", "integer"]},
)  # fmt: skip
COUNTED = {"type": "object", "additionalProperties": WHOLE}
IMPACT = record(
    wholes="in_flight queued waiting paused calls_in_flight writes_in_flight", last_hour={"type": "object", "additionalProperties": COUNTED}
)
SWITCH_WITH_IMPACT = SWITCH | {"properties": SWITCH["properties"] | {"impact": IMPACT, "since_on": COUNTED}}
APPROVAL = record(
    "approval_id kind run_id agent effect args_text digest risk why state created_at expires_at", "void_reason call_id tool",
    "step_id needed reminders", "args asked sealed proposed preview", evidence=LIST, decisions=LIST, groups=TEXTS,
    group=TEXT_OR_NULL, grant=TEXT_OR_NULL,
    escalated_at=TEXT_OR_NULL, edited_by=TEXT_OR_NULL, replaces=TEXT_OR_NULL, replaced_by=TEXT_OR_NULL,
)  # fmt: skip
RULE = record("name on decision when updated_at", "tenant", "approvers", flags="enabled changed")
PERMISSION = record("tool agent user_role group decision when updated_at", "tenant", "id approvers", flags="loosen changed")
POLICY_VERSION = record("changed_by reason at", "tenant", "number permissions rules", changes=LIST)
DECIDED = record("decision why by", "", "approvers", "source", because=LIST)
FORETOLD = DECIDED | {
    "properties": DECIDED["properties"]
    | record("tenant tool", "", "tool_version", "proposed", "offered", schema_errors=TEXTS)["properties"]
}
BACKTEST = record("backtest_id state started_by at", "tenant note", "days done total", "proposal result")
UNKNOWN = record(
    "unknown_id run_id call_id tool state opened_at", "send_deadline next_probe_at result how settled_by evidence settled_at", "step_id",
    "call", probes=LIST,
)  # fmt: skip
DRAFT = record("draft_id run_id call_id tool effect args_text why", "created_at", "step_id", "args decided")
REASON = {
    "application/json": {"type": "object", "additionalProperties": False, "properties": {"reason": {"type": "string", "maxLength": 2000}}}
}
UNDO = {
    "application/json": {
        "type": "object",
        "required": ["reason"],
        "additionalProperties": False,
        "properties": {"reason": {"type": "string", "minLength": 1, "maxLength": 2000}},
    }
}
DECISION = {
    "application/json": {
        "type": "object",
        "required": ["verdict", "digest"],
        "additionalProperties": False,
        "properties": {
            "verdict": {"enum": ["approve", "reject"]},
            "digest": TEXT,
            "reason": TEXT,
            "args": ANY,
            "break_glass": {"type": "boolean"},
        },
    }
}
