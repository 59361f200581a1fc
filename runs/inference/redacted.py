"""A model's answer without the secrets of its tenant: a model may repeat what a tool or a person once showed it."""

from dataclasses import replace

from tools.canonical import clean, dumps, loads_limited
from tools.redaction import Redactor

from .reply import CUT
from .types import ModelFailure, ModelReply, ToolAsk


def redacted(answer: ModelReply | ModelFailure, redactor: Redactor) -> ModelReply | ModelFailure:
    """The answer itself when it holds none. What was replaced counts as sanitized."""
    if isinstance(answer, ModelFailure):
        message, found = redactor.said(answer.message)
        return replace(answer, message=message) if found else answer
    text, found = redactor.said(answer.text.removesuffix(CUT))
    text += CUT if answer.text.endswith(CUT) else ""
    model, more = redactor.text(answer.reported_model)
    calls = []
    for call in answer.calls:
        call, places = _asked(call, redactor)
        calls.append(call)
        more += places
    if not found + more:
        return answer
    return replace(answer, text=text, reported_model=model, calls=tuple(calls), sanitized=answer.sanitized + found + more)


def _asked(call: ToolAsk, redactor: Redactor) -> tuple[ToolAsk, int]:
    (id_, name), found = redactor.value([call.id, call.name])
    arguments, more = _arguments(call.arguments, redactor)
    return (ToolAsk(id_[:128], name[:128], arguments), found + more) if found + more else (call, 0)


def _arguments(text: str, redactor: Redactor) -> tuple[str, int]:
    """As a tool would read them, where escapes hide nothing; the raw text too, where a repeated name hides a value."""
    try:
        value, found = redactor.value(loads_limited(text.encode()))
        if found:
            return dumps(clean(value)[0]).decode(), found
    except ValueError:
        pass
    return redactor.text(text)
