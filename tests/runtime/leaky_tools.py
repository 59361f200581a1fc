"""Python tools that give their secret away. Loaded by the engine of the tests about canaries."""

import base64
import os
import sys

from tools.registry import ToolContext, ToolError, signalbox_tool


@signalbox_tool
def leak_result(context: ToolContext, text: str = "") -> dict[str, object]:
    secret = str(context.credential)
    return {"plain": secret, secret: [base64.b64encode(b"z" + secret.encode()).decode()], "env": dict(os.environ)}


@signalbox_tool
def leak_error(context: ToolContext, text: str = "") -> None:
    raise ToolError("validation", "y" * 490 + str(context.credential))


@signalbox_tool
def leak_exception(context: ToolContext, text: str = "") -> None:
    local = context.credential
    raise RuntimeError(f"refused {local}")


@signalbox_tool
def leak_print(context: ToolContext, text: str = "") -> str:
    print("printed", context.credential, flush=True)
    print(str(context.credential).encode().hex(), file=sys.stderr, flush=True)
    return str(context.credential)
