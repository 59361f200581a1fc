"""The one door to models: the wire is the one that the endpoint's provider speaks."""

from typing import Final

from tools.definitions import ErrorClass
from tools.egress import Egress

from . import anthropic, openai
from .types import ModelEndpoint, ModelFailure, ModelReply, ModelRequest
from .wire import exchange

WIRES: Final = {"openai": openai.WIRE, "anthropic": anthropic.WIRE}


async def complete(
    endpoint: ModelEndpoint,
    request: ModelRequest,
    egress: Egress,
    *,
    allow: frozenset[str],
    timeout_s: float,
    traceparent: str | None = None,
) -> ModelReply | ModelFailure:
    """One request, one answer or one failure with a class. Raises nothing but CancelledError; nothing here sends twice."""
    wire = WIRES.get(endpoint.provider)
    if wire is None:
        message = f"{endpoint.name} names the provider {endpoint.provider[:40]}; known are {' and '.join(WIRES)}"
        return ModelFailure(ErrorClass.VALIDATION, message, None, None, 0, 0, 0)
    return await exchange(wire, endpoint, request, egress, allow=allow, timeout_s=timeout_s, traceparent=traceparent)
