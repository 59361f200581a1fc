"""What a definition from outside would become as one of our tools, or why it cannot. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tenants.errors import Refused
from tools import lint, schemas
from tools.spec import ToolSpec

from .words import MAX_TEXT, seen, seen_all


@dataclass(frozen=True, slots=True)
class Draft:
    """`remote`: its name on the other side. `hints`: what the other side claims, for a person to read and nothing else.
    `notes`: what was left out or is odd. Without `spec`, `problem` says why it cannot be imported."""

    name: str
    remote: str
    spec: ToolSpec | None = None
    hints: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problem: str = ""


def text_of(said: str, instead: str) -> tuple[str, list[str]]:
    """A description as the model may see it -> (text, notes)."""
    text, hidden = seen(said.strip())
    notes = [f"{hidden} invisible characters of the description are left out"] if hidden else []
    if len(text) > MAX_TEXT:
        text, notes = text[:MAX_TEXT], [*notes, f"the description is cut after {MAX_TEXT} characters"]
    return text or instead, notes


def input_of(schema: Any) -> tuple[dict[str, Any], list[str]]:
    """An input schema without invisible characters, and closed unless it says otherwise -> (schema, notes)."""
    made, hidden = seen_all(schema if isinstance(schema, dict) else {})
    notes = [f"{hidden} invisible characters of the schema are left out"] if hidden else []
    return {"type": "object", "additionalProperties": False, **made}, notes


def output_of(schema: Any) -> tuple[dict[str, Any] | None, list[str]]:
    """An output schema that compiles, or none -> (schema, notes)."""
    if not isinstance(schema, dict):
        return None, []
    made, _ = seen_all(schema)
    try:
        schemas.compile(made)
    except schemas.SchemaError as error:
        return None, [f"the output schema cannot be used: {error.message}"]
    return made, []


def spec_of(name: str, fields: Mapping[str, Any]) -> tuple[ToolSpec | None, str, list[str]]:
    """-> (the spec, or None and why there is none, what the lint says to the person who decides)."""
    try:
        spec = ToolSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("http", "mcp", "python"))
        return None, f"{where}: {first['msg']}" if where else first["msg"], []
    except Refused as refused:
        return None, refused.message, []
    found = lint.findings(name, spec)
    notes = [f"{finding.path}: {finding.message}" for finding in found if finding.severity != "info"]
    if keep_out := lint.refusing(found):
        return None, f"{keep_out[0].path}: {keep_out[0].message}", []
    return spec, "", notes
