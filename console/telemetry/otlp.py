"""Spans as OTLP says them: the JSON form, and the same in protobuf's binary form. Pure.

The binary form is written by hand from `FIELDS`: what a message of the trace service needs is five kinds of values, and that takes fewer
lines than a dependency would.
"""

import json
import struct
from collections.abc import Callable, Iterable
from typing import Any

from . import names
from .spans import Attributes, Mark, Span, Value

JSON = dict[str, Any]

# message -> {field in the JSON form: (number, kind)}; a kind that begins with a capital is a message, `*`: any number of them
FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "Request": {"resourceSpans": (1, "*ResourceSpans")},
    "ResourceSpans": {"resource": (1, "Resource"), "scopeSpans": (2, "*ScopeSpans"), "schemaUrl": (3, "text")},
    "Resource": {"attributes": (1, "*KeyValue")},
    "ScopeSpans": {"scope": (1, "Scope"), "spans": (2, "*Span"), "schemaUrl": (3, "text")},
    "Scope": {"name": (1, "text")},
    "Span": {
        "traceId": (1, "hex"), "spanId": (2, "hex"), "parentSpanId": (4, "hex"), "name": (5, "text"), "kind": (6, "varint"),
        "startTimeUnixNano": (7, "fixed64"), "endTimeUnixNano": (8, "fixed64"), "attributes": (9, "*KeyValue"),
        "events": (11, "*Event"), "droppedEventsCount": (12, "varint"), "status": (15, "Status"),
    },
    "Event": {"timeUnixNano": (1, "fixed64"), "name": (2, "text"), "attributes": (3, "*KeyValue")},
    "Status": {"code": (3, "varint")},
    "KeyValue": {"key": (1, "text"), "value": (2, "AnyValue")},
    "AnyValue": {
        "stringValue": (1, "text"), "boolValue": (2, "varint"), "intValue": (3, "varint"), "doubleValue": (4, "double"),
        "arrayValue": (5, "ArrayValue"),
    },
    "ArrayValue": {"values": (1, "*AnyValue")},
}  # fmt: skip
FAILED = 2  # of status codes
ENCODED: dict[str, Callable[[str], bytes]] = {"text": lambda said: said.encode(errors="replace"), "hex": bytes.fromhex}


def document(spans: Iterable[Span], service: str) -> JSON:
    """An ExportTraceServiceRequest in the JSON form: ids in hexadecimal, 64-bit numbers as text."""
    scope = {"scope": {"name": "signalbox"}, "spans": [span(one) for one in spans], "schemaUrl": names.SCHEMA_URL}
    resource = {"attributes": attributes({names.SERVICE_NAME: service})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope], "schemaUrl": names.SCHEMA_URL}]}


def as_json(what: JSON) -> bytes:
    return json.dumps(what, separators=(",", ":")).encode()


def as_protobuf(what: JSON) -> bytes:
    return packed("Request", what)


def span(one: Span) -> JSON:
    told: JSON = {
        "traceId": one.trace_id, "spanId": one.id, "name": one.name, "kind": one.kind, "startTimeUnixNano": str(one.start),
        "endTimeUnixNano": str(one.end), "attributes": attributes(one.attributes), "events": [event(mark) for mark in one.marks],
    }  # fmt: skip
    if one.parent_id:
        told["parentSpanId"] = one.parent_id
    if one.dropped:
        told["droppedEventsCount"] = one.dropped
    return told | ({"status": {"code": FAILED}} if one.failed else {})


def event(mark: Mark) -> JSON:
    return {"timeUnixNano": str(mark.at), "name": mark.name, "attributes": attributes(mark.attributes)}


def attributes(values: Attributes) -> list[JSON]:
    return [{"key": key, "value": any_value(value)} for key, value in values.items()]


def any_value(value: Value) -> JSON:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(one) for one in value]}}
    return {"stringValue": value}


# protobuf ---------------------------------------------------------------------------------------------------------------------


def packed(message: str, value: JSON) -> bytes:
    parts = []
    for name, (number, kind) in FIELDS[message].items():
        if name in value:
            for one in value[name] if kind[0] == "*" else [value[name]]:
                parts.append(member(number, kind.lstrip("*"), one))
    return b"".join(parts)


def member(number: int, kind: str, value: Any) -> bytes:
    """Tag and value. Wire types: 0 varint, 1 eight bytes, 2 a length and so many bytes."""
    if kind == "varint":
        return varint(number << 3) + varint(int(value) & (1 << 64) - 1)
    if kind in ("fixed64", "double"):
        return varint(number << 3 | 1) + (struct.pack("<d", value) if kind == "double" else struct.pack("<Q", int(value)))
    raw = ENCODED[kind](value) if kind in ENCODED else packed(kind, value)
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def varint(number: int) -> bytes:
    """Seven bits a byte, the low ones first; the eighth says that more follow."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
