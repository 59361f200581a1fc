"""Python tools that misbehave. Loaded by the engines of the crash tests."""

import os
import signal

from tools.registry import signalbox_tool


@signalbox_tool
def spin(tag: str) -> str:
    """Never ends, and never lets go of the processor."""
    while True:
        pass


@signalbox_tool
def poison(tag: str) -> str:
    """Ends the engine that called it."""
    os.kill(os.getppid(), signal.SIGKILL)
    return tag
