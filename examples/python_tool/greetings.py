"""A Python function as a tool. It runs in a pool of child processes, in whatever installation names this module:

SIGNALBOX_TOOL_MODULES=examples.python_tool.greetings make run
"""

from tools.registry import signalbox_tool


@signalbox_tool
def greet_person(name: str) -> dict[str, str]:
    """Write a greeting for a person."""
    return {"greeting": f"Good morning, {name}!"}
