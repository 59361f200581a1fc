"""The logs of every process, without the secrets it has opened. Django calls `configure` when it is set up (LOGGING_CONFIG)."""

import logging
import logging.config
from typing import Any

from tenants import live_secrets
from tools.redaction import NOTHING, Redactor

_newest: str | None = None
_redactor = NOTHING
_formatter = logging.Formatter()


def configure(config: dict[str, Any]) -> None:
    logging.config.dictConfig(config)
    logging.setLogRecordFactory(record)


def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """What every logger of this process makes: handlers, filters and formatters see nothing of the original.

    An exception becomes its text, which names no local variables; the exception itself is kept out when it quotes a secret.
    """
    made = logging.LogRecord(*args, **kwargs)
    redactor = _known()
    text, found = redactor.text(_message(made))
    if found:
        made.msg, made.args = text, ()
    if made.exc_info and made.exc_info[0] is not None:
        made.exc_text, found = redactor.text(_formatter.formatException(made.exc_info))
        made.exc_info = None if found else made.exc_info
    if made.stack_info:
        made.stack_info = redactor.text(made.stack_info)[0]
    return made


def _message(made: logging.LogRecord) -> str:
    try:
        return made.getMessage()
    except Exception:  # logging would print the arguments themselves
        made.args = ()
        made.msg = f"{made.msg!s} (with arguments that do not fit)"
        return made.msg


def _known() -> Redactor:
    global _newest, _redactor
    newest = live_secrets.newest()
    if newest != _newest:
        _redactor, _newest = Redactor(live_secrets.everything()), newest
    return _redactor
