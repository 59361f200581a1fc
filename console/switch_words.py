"""A kill switch in words, the same in the bar, the list, its page and the pages of the runs it holds."""

from typing import Any

from runs.models import Switch


def subject(scope: str, tenant: str, agent: str, tool: str) -> str:
    where = f" in {tenant}" if tenant else ""
    words = {
        "all": "Everything",
        "tenant": f"All work in {tenant}",
        "agent": f"The agent {agent}{where}",
        "tool": f"The tool {tool}{where}",
    }
    return words.get(scope, f"All writes{where}")


def sentence(switch: Switch) -> str:
    """Such as "All writes in acme are paused"."""
    what = subject(switch.scope, switch.tenant.slug if switch.tenant else "", switch.agent, switch.tool)
    done = {"pause": "paused", "stop": "stopped"}[switch.then]
    if switch.drill:
        return f"Drill: {what[0].lower()}{what[1:]} would be {done}"
    return f"{what} {'are' if switch.scope == 'writes' else 'is'} {done}"


def shown(switch: Switch) -> dict[str, Any]:
    return {"switch": switch, "id": str(switch), "sentence": sentence(switch)}
