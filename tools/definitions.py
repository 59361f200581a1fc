"""What a tool is, what one call of it carries, and what came of it. Values only: no Django, no network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from tools.redaction import Redactor


class Effect(StrEnum):
    """What a call does to the world outside."""

    READ = "read"
    WRITE = "write"
    IRREVERSIBLE = "irreversible"


class ErrorClass(StrEnum):
    """Why a send did not simply succeed; the table of the contract, section 5."""

    NOT_SENT = "not_sent"  # nothing left this process: safe to send again
    POLICY = "policy"  # we refused it ourselves
    RATE_LIMIT = "rate_limit"  # 429, not applied
    AUTHORIZATION = "authorization"  # 401, 403, not applied
    VALIDATION = "validation"  # wrong arguments, not applied
    CONFLICT = "conflict"  # 409, 412, not applied
    DUPLICATE_REQUEST = "duplicate_request"  # an earlier send was applied: counts as applied
    TIMEOUT = "timeout"  # sent, no answer in time
    TRANSIENT_UPSTREAM = "transient_upstream"  # sent, the other side or the line broke
    UNKNOWN = "unknown"  # sent without a key, or settled by nobody: never sent again by itself
    INVALID_OUTPUT = "invalid_output"  # answered 2xx with something unusable: a write was applied


# Sent, and nothing says whether it was applied. A write without a key must never repeat after one of these.
AMBIGUOUS: Final = frozenset({ErrorClass.TIMEOUT, ErrorClass.TRANSIENT_UPSTREAM, ErrorClass.UNKNOWN})
_APPLIED: Final = frozenset({ErrorClass.DUPLICATE_REQUEST, ErrorClass.INVALID_OUTPUT})
_NEVER_RETRIED: Final = frozenset({ErrorClass.UNKNOWN, ErrorClass.POLICY, ErrorClass.DUPLICATE_REQUEST})

_RETRY_ON: Final = frozenset({"not_sent", "timeout", "rate_limit", "transient_upstream", "conflict"})
_DO_NOT_RETRY_ON: Final = frozenset({"validation", "authorization", "duplicate_request"})
_RETRY_FIELDS: Final = frozenset({"max_attempts", "backoff_ms", "retry_on", "do_not_retry_on"})
MAX_ATTEMPTS: Final = 10
MAX_BACKOFF_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_attempts` counts sends; the wait before send n + 1 is at most `backoff_ms[min(n, last)]` milliseconds."""

    max_attempts: int = 2
    backoff_ms: tuple[int, ...] = (200, 800)
    retry_on: frozenset[str] = _RETRY_ON
    do_not_retry_on: frozenset[str] = _DO_NOT_RETRY_ON

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> "RetryPolicy":
        """Read the `retry` object of a configuration document; None gives the default.

        `not_sent` is always in `retry_on`. Raises ValueError, its text beginning with the field at fault.
        """
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            raise ValueError("retry: must be an object")
        if extra := sorted(str(key) for key in value if key not in _RETRY_FIELDS):
            raise ValueError(f"{extra[0]}: is not a field of a retry policy")
        retry_on = _classes(value, "retry_on", _RETRY_ON) | {ErrorClass.NOT_SENT.value}
        refused = _classes(value, "do_not_retry_on", _DO_NOT_RETRY_ON - retry_on)
        if both := sorted(retry_on & refused):
            raise ValueError(f"do_not_retry_on: {both[0]} is retried")
        if never := sorted(retry_on & _NEVER_RETRIED):
            raise ValueError(f"retry_on: {never[0]} is never retried")
        return cls(_max_attempts(value), _backoff(value), retry_on, refused)


def _classes(value: Mapping[str, Any], name: str, default: frozenset[str]) -> frozenset[str]:
    listed = value.get(name, default)
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        raise ValueError(f"{name}: must be a list of error classes")
    known = [item.value for item in ErrorClass]  # a list: what is asked for may not be hashable
    items = list(listed)
    for item in items:
        if item not in known:
            raise ValueError(f"{name}: {item!r} is not an error class")
    return frozenset(str(item) for item in items)


def _max_attempts(value: Mapping[str, Any]) -> int:
    attempts = value.get("max_attempts", 2)
    if type(attempts) is not int or not 1 <= attempts <= MAX_ATTEMPTS:
        raise ValueError(f"max_attempts: must be a whole number from 1 to {MAX_ATTEMPTS}")
    return attempts


def _backoff(value: Mapping[str, Any]) -> tuple[int, ...]:
    waits = value.get("backoff_ms", (200, 800))
    if not isinstance(waits, list | tuple) or not 1 <= len(waits) <= MAX_ATTEMPTS:
        raise ValueError(f"backoff_ms: must be a list of 1 to {MAX_ATTEMPTS} waits in milliseconds")
    if any(type(wait) is not int or not 0 <= wait <= MAX_BACKOFF_MS for wait in waits):
        raise ValueError(f"backoff_ms: each wait must be a whole number from 0 to {MAX_BACKOFF_MS}")
    return tuple(waits)


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """One immutable version of a tool. `adapter` is the object of the configuration document: `{"kind": …}`."""

    version_id: UUID
    name: str
    description: str
    effect: Effect
    idempotency: Literal["key", "none"]
    adapter: Mapping[str, Any]
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None
    timeout_s: float
    retry: RetryPolicy
    labels: frozenset[str]
    duplicate_when: str | None = None  # CEL over {status, body}: this refusal means "already applied"
    verify: Mapping[str, Any] | None = None  # how to find out whether a write was applied; see `tools.spec.Verify`
    preview: Mapping[str, Any] | None = None  # how to find out what a write would change; see `tools.spec.Preview`
    effect_key: str = ""  # template over the arguments; the same key twice in the window is one effect
    effect_window_s: float = 86400
    idempotency_window_s: float = 23 * 3600  # how long the other side remembers a key

    @property
    def mutating(self) -> bool:
        return self.effect is not Effect.READ


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret in the clear, for one call. `basic`: the secret is `user:password`; `header`: sent in `header`."""

    name: str
    kind: Literal["bearer", "header", "basic"]
    secret: str = field(repr=False)
    header: str | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class CallContext:
    """One send of one call. `timeout_s`: wall seconds it may take, already the least of tool, step and run."""

    run_id: str
    step: int
    idem_key: str | None
    timeout_s: float
    allow: frozenset[str]  # host:port that may be reached although the address is not public
    credential: Credential | None = None
    traceparent: str | None = None
    attempt: int = 1  # which send this is, over retries and takeovers; 1 is the first
    redactor: Redactor | None = None  # of all the tenant's secrets; None: this call's credential is the only one


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What one send came to. `data` is `{"ok": true, …}` or `{"ok": false, "error_type", "message"}`.

    `applied` speaks of a write, of this send alone (except after a 409 or 412, where an earlier send may be the
    reason): True applied, False certainly not, None unknown. Reads: None. `duplicate_request` is `ok` and applied,
    with `"already_applied": true` in `data`. `sanitized` counts values that had to be changed to be storable. `kept` is what the
    call's row holds instead of `data`, where that says more than may be kept.
    """

    ok: bool
    data: dict[str, Any]
    error_class: ErrorClass | None
    applied: bool | None
    latency_ms: int
    status: int | None = None
    retry_after_s: float | None = None
    sanitized: int = 0
    kept: dict[str, Any] | None = None

    @property
    def stored(self) -> dict[str, Any]:
        return self.data if self.kept is None else self.kept


NO_CONTENT: Final = object()  # the other side answered "done" and nothing else


@dataclass(frozen=True, slots=True)
class Reply:
    """An adapter's word on one send, before it is normalised. `error` None: `value` is the decoded answer."""

    error: ErrorClass | None = None
    value: Any = None
    message: str = ""
    status: int | None = None
    retry_after_s: float | None = None


class Adapter(Protocol):
    """A way to reach tools. `args` are the exact bytes that were approved, `parsed` the same decoded."""

    async def send(self, definition: ToolDefinition, args: bytes, parsed: Mapping[str, Any], context: CallContext) -> Reply: ...


def keyed(definition: ToolDefinition, context: CallContext) -> bool:
    """Whether a second send of this call is recognised by the other side."""
    return definition.idempotency == "key" and context.idem_key is not None


def settle(definition: ToolDefinition, context: CallContext, error: ErrorClass) -> tuple[ErrorClass, bool | None]:
    """-> (the class as this tool must see it, applied). A write without a key turns every ambiguity into unknown;
    a read is never unknown, since reading again harms nobody."""
    if not definition.mutating:
        return (ErrorClass.TRANSIENT_UPSTREAM if error is ErrorClass.UNKNOWN else error), None
    if error in AMBIGUOUS:
        return (error if keyed(definition, context) else ErrorClass.UNKNOWN), None
    return error, error in _APPLIED
