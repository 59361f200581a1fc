"""The one door to an effect: check the arguments, send once through an adapter, give back a normalised result."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any, Final
from uuid import UUID

from tools import schemas
from tools.adapters.http import HttpAdapter
from tools.adapters.mcp import McpAdapter
from tools.adapters.python import PythonPool
from tools.canonical import clean, loads_limited
from tools.definitions import (
    NO_CONTENT,
    Adapter,
    CallContext,
    ErrorClass,
    Reply,
    ToolDefinition,
    ToolResult,
    settle,
)
from tools.egress import Egress
from tools.redaction import Redactor

_log = logging.getLogger(__name__)
_MAX_CACHED: Final = 2048
_WRAPPERS: Final = ("data", "result")
# Classes that only this side can know; in the mouth of the other side they mean nothing in particular.
_OURS: Final = frozenset({ErrorClass.NOT_SENT, ErrorClass.POLICY, ErrorClass.INVALID_OUTPUT})
Validators = tuple[schemas.Validator, schemas.Validator | None]


class Tools:
    """The adapters of one process. `egress` is shared with the model layer and closed here."""

    def __init__(self, egress: Egress | None = None, python: PythonPool | None = None) -> None:
        self.egress = egress or Egress()
        self.python = python or PythonPool()
        self._adapters: dict[str, Adapter] = {
            "http": HttpAdapter(self.egress),
            "mcp": McpAdapter(self.egress),
            "python": self.python,
        }
        self._validators: OrderedDict[UUID, Validators] = OrderedDict()

    async def invoke(self, definition: ToolDefinition, args: bytes, context: CallContext) -> ToolResult:
        """Send a call once. `args`: the JSON bytes that were decided on; an HTTP tool receives exactly these.

        Never raises for what a tool, a network or a configuration does; only cancellation passes through. After a
        cancellation nothing is known: a write counts as sent.
        """
        began = perf_counter()
        output: schemas.Validator | None = None
        try:
            reply, output = await self._reply(definition, args, context)
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("the adapter of %s failed", definition.name)
            reply = Reply(ErrorClass.TRANSIENT_UPSTREAM, message="the adapter failed")
        redactor = context.redactor or Redactor([context.credential] if context.credential else [])
        return _redacted(redactor, _result(definition, context, reply, output, redactor, round((perf_counter() - began) * 1000)))

    async def _reply(self, definition: ToolDefinition, args: bytes, context: CallContext) -> tuple[Reply, schemas.Validator | None]:
        adapter = self._adapters.get(str(definition.adapter.get("kind")))
        if adapter is None:
            return Reply(ErrorClass.POLICY, message="this kind of adapter is not supported"), None
        try:
            accepts, output = self._compiled(definition)
        except schemas.SchemaError as fault:
            return Reply(ErrorClass.POLICY, message=f"a schema of this tool is broken: {fault}"), None
        try:
            parsed = loads_limited(args)
        except ValueError as fault:
            return Reply(ErrorClass.VALIDATION, message=f"the arguments are not JSON: {fault}"), None
        if errors := _argument_errors(accepts, parsed):
            return Reply(ErrorClass.VALIDATION, message="; ".join(errors)), None
        if context.timeout_s <= 0:
            return Reply(ErrorClass.NOT_SENT, message="no time is left for this call"), None
        return await adapter.send(definition, args, parsed, context), output

    def _compiled(self, definition: ToolDefinition) -> Validators:
        known = self._validators.get(definition.version_id)
        if known is None:
            output = None if definition.output_schema is None else schemas.compile(definition.output_schema)
            known = self._validators[definition.version_id] = (schemas.compile(definition.input_schema), output)
            if len(self._validators) > _MAX_CACHED:
                self._validators.popitem(last=False)
        return known

    async def aclose(self) -> None:
        await self.python.aclose()
        await self.egress.aclose()


def _argument_errors(accepts: schemas.Validator, parsed: Any) -> list[str]:
    if not isinstance(parsed, dict):
        return ["/: must be an object"]
    if clean(parsed)[1]:
        return ["/: holds NUL, a lone surrogate, NaN or a number beyond 64 bits"]
    return accepts.errors(parsed)


def _redacted(redactor: Redactor, result: ToolResult) -> ToolResult:
    """Whatever the other side quoted, nothing behind this door holds a secret. Messages may have been cut before."""
    data, found = redactor.value(result.data)
    if not result.ok and isinstance(message := data.get("message"), str):
        said, more = redactor.said(message)
        data, found = {**data, "message": said}, found + more
    return replace(result, data=data, sanitized=result.sanitized + found) if found else result


def _result(
    definition: ToolDefinition,
    context: CallContext,
    reply: Reply,
    output: schemas.Validator | None,
    redactor: Redactor,
    latency_ms: int,
) -> ToolResult:
    value, sanitized = (NO_CONTENT, 0) if reply.value is NO_CONTENT else clean(reply.value)
    error, data = (reply.error, {}) if reply.error is not None else _normalise(value, output, redactor)
    if error is None:
        applied = True if definition.mutating else None
        return ToolResult(True, data, None, applied, latency_ms, reply.status, None, sanitized)
    error, applied = settle(definition, context, error)
    if error is ErrorClass.DUPLICATE_REQUEST:
        fields = value if isinstance(value, dict) else {}
        data = {**_without_ok(fields), "ok": True, "already_applied": True}
        return ToolResult(True, data, error, applied, latency_ms, reply.status, None, sanitized)
    if not data:
        message, sanitized = clean(reply.message)
        data = {"ok": False, "error_type": error.value, "message": message}
    return ToolResult(False, data, error, applied, latency_ms, reply.status, reply.retry_after_s, sanitized)


def _normalise(value: Any, output: schemas.Validator | None, redactor: Redactor) -> tuple[ErrorClass | None, dict[str, Any]]:
    """An answer that arrived -> (None, `{"ok": true, …}`), or the class and text of what is wrong with it."""
    if value is NO_CONTENT:
        return None, {"ok": True}
    if isinstance(value, dict) and value.get("ok") is False:
        return _own_error(value)
    errors: list[str] = []
    for candidate in _candidates(value, output is not None):
        found = output.errors(candidate) if output is not None else []
        if not found:
            fields = _without_ok(candidate) if isinstance(candidate, dict) else {"value": candidate}
            return None, {"ok": True, **fields}
        # said of the value without its secrets: these lines quote it, and cut it in the middle
        errors = errors or (output.errors(redactor.value(candidate)[0]) if output is not None else []) or ["/: does not fit"]
    message = "the answer does not fit the output schema: " + "; ".join(errors)
    return ErrorClass.INVALID_OUTPUT, {"ok": False, "error_type": ErrorClass.INVALID_OUTPUT.value, "message": message}


def _candidates(value: Any, has_schema: bool) -> list[Any]:
    """The answer itself first; then, where a schema can tell, what is inside an envelope."""
    if not has_schema or not isinstance(value, dict):
        return [value]
    found = [value]
    if "ok" in value:
        found.append(_without_ok(value))
    found.extend(value[name] for name in _WRAPPERS if name in value)
    return found


def _without_ok(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: field for name, field in fields.items() if name != "ok"}


def _own_error(value: dict[str, Any]) -> tuple[ErrorClass, dict[str, Any]]:
    """A failure in the other side's own words: its `error_type` is kept, and gives the class where it names one."""
    said = value.get("error_type")
    word = said if isinstance(said, str) and said else ErrorClass.VALIDATION.value
    try:
        error = ErrorClass(word)
    except ValueError:
        error = ErrorClass.VALIDATION
    if error in _OURS:
        error = ErrorClass.VALIDATION
    message = value.get("message")
    text = message[:500] if isinstance(message, str) else "the tool reported a failure"
    return error, {"ok": False, "error_type": word[:100], "message": text}
