"""What goes to a model and what comes back, whatever wire the provider speaks. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from tools.definitions import Credential, ErrorClass, RetryPolicy

Finish = Literal["stop", "length", "content_filter", "refusal", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens, which is also micro-USD per token."""

    input: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class ModelEndpoint:
    """A model as the operator defined it. `model` is the provider's name for it; `price` None means unpriced, never free."""

    name: str
    provider: str
    base_url: str
    model: str
    credential: Credential | None
    price: Price | None
    timeout_s: float
    retry: RetryPolicy
    max_concurrency: int | None = None  # calls in flight at once, over all engines


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """A tool as the model sees it. `input_schema` is a JSON Schema object."""

    name: str
    description: str
    input_schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolAsk:
    """A call that a model asked for. `id` is unique in its conversation; `arguments` is raw text, maybe no JSON at all;
    `name` may be one that nobody offered."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One turn. `messages` are in the form of chat completions; `temperature` None leaves the provider's own."""

    messages: list[dict[str, Any]]
    tools: tuple[ToolOffer, ...]
    max_tokens: int
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class ModelReply:
    """A usable answer. `finish` `length`: cut off, so the last call's arguments may be too; `refusal` and
    `content_filter` carry no calls. `estimated`: a token count is ours. `sanitized`: places changed to be storable."""

    text: str
    calls: tuple[ToolAsk, ...]
    finish: Finish
    tokens_in: int
    tokens_out: int
    estimated: bool
    reported_model: str
    latency_ms: int
    sanitized: int = 0


@dataclass(frozen=True, slots=True)
class ModelFailure:
    """No usable answer. Tokens: the provider's count or our upper bound where it may have billed the call, else 0."""

    error_class: ErrorClass
    message: str
    status: int | None
    retry_after_s: float | None
    latency_ms: int
    tokens_in: int
    tokens_out: int
