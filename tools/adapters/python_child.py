"""The child process of a Python tool: one JSON line in, one JSON line out, until its input ends.

`python -m tools.adapters.python_child MEMORY_BYTES PARENT_PID`. It knows nothing of Django or of the database; its limits are its
own, its deadline is kept by the parent, which kills it.
"""

import ctypes
import json
import math
import os
import resource
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any, BinaryIO, Final

from tools import registry
from tools.canonical import check_depth
from tools.definitions import ErrorClass

MAX_ANSWER: Final = 1 << 20  # bytes of one answer, as of an HTTP tool
_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    requests, replies = _pipes()
    _limit(int(sys.argv[1]), int(sys.argv[2]))
    try:
        registry.load(registry.module_names(os.environ.get("SIGNALBOX_TOOL_MODULES", "")))
    except BaseException as fault:
        traceback.print_exc()
        _write(replies, {"ready": False, "message": str(fault) or type(fault).__name__})
        sys.exit(1)
    _write(replies, {"ready": True})
    for line in requests:
        request = json.loads(line)
        reply = answer(request)
        _write(replies, {"id": request["id"], **reply})
        if reply.get("last"):
            break


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes for ourselves: a tool that prints or reads must not disturb them."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _limit(memory: int, parent: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):  # Linux: end with the parent, even in the middle of a tool
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)


def _limit_cpu(seconds: float) -> None:
    """CPU time is counted over the whole life of a process, so the limit moves with each call."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _write(replies: BinaryIO, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """`{"id", "name", "args", "context"}` -> `{"value"}` or `{"error", "message", "retry_after_s"?, "last"?}`.

    Whatever a tool raises becomes an answer; its text is kept from the model unless it is a ToolError.
    """
    try:
        context = registry.ToolContext(**request["context"])
        _limit_cpu(context.timeout_s)
        return _sized(registry.find(request["name"]).call(request["args"], context))
    except registry.UnknownTool as fault:
        return _error(ErrorClass.POLICY, str(fault))
    except registry.InvalidArguments as fault:
        return _error(ErrorClass.VALIDATION, str(fault))
    except registry.InvalidResult as fault:
        return _error(ErrorClass.INVALID_OUTPUT, str(fault))
    except registry.ToolError as fault:
        return {**_error(fault.error_class, fault.message), "retry_after_s": fault.retry_after_s}
    except MemoryError:
        return {**_error(ErrorClass.TRANSIENT_UPSTREAM, "the tool ran out of memory"), "last": True}
    except BaseException as fault:
        traceback.print_exc()
        return _error(ErrorClass.TRANSIENT_UPSTREAM, f"the tool failed: {type(fault).__name__}")


def _sized(value: Any) -> dict[str, Any]:
    try:
        check_depth(value)
    except ValueError as fault:
        return _error(ErrorClass.INVALID_OUTPUT, f"the result is {fault}")
    if len(json.dumps(value)) > MAX_ANSWER:
        return _error(ErrorClass.INVALID_OUTPUT, f"the result is larger than {MAX_ANSWER} bytes")
    return {"value": value}


def _error(error: ErrorClass, message: str) -> dict[str, Any]:
    return {"error": error.value, "message": message[:500]}


if __name__ == "__main__":
    main()
