"""An entry of the audit trail as a plain sentence: who, what, from what to what. Pure."""

from collections.abc import Mapping
from typing import Any

JSON = Mapping[str, Any]
KINDS = {  # kind -> (what people call it, icon)
    "permission": ("permission", "hand"),
    "rule": ("rule", "list-checks"),
    "policy": ("policy", "history"),
    "model": ("model", "sparkles"),
    "release": ("release", "rocket"),
    "agent": ("agent", "bot"),
    "tool": ("tool", "wrench"),
    "mcp_server": ("MCP server", "database"),
    "breaker": ("breaker", "zap-off"),
    "switch": ("kill switch", "power-off"),
    "ceiling": ("ceiling", "wallet"),
    "credential": ("credential", "key-round"),
    "egress": ("way out", "external-link"),
    "group": ("group", "users"),
    "grant": ("standing grant", "list-checks"),
    "delegation": ("delegation", "users"),
    "channel": ("channel", "bell"),
    "member": ("member", "users"),
    "tenant": ("tenant", "users"),
}
ALIASES = {"modeldefinition": "model", "egressallow": "egress", "mcpserver": "mcp_server"}  # kinds of the admin's pages
MOVES = "release."  # actions on an agent that are about its releases
VERBS = {
    "created": "added", "updated": "changed", "changed": "changed", "deleted": "removed", "enabled": "switched on",
    "disabled": "switched off",
    "promoted": "promoted", "rolled_back": "rolled back", "opened": "opened", "closed": "closed", "reset": "gave back to the machine",
    "forced_open": "forced open", "forced_closed": "forced closed", "engaged": "turned on", "lifted": "lifted", "given": "gave",
    "revoked": "took back", "allowed": "allowed", "refused": "refused", "rotated": "sealed anew",
    "definition_changed": "switched off after another definition of", "definition_accepted": "accepted the new definition of",
    "definition_rejected": "rejected the new definition of", "definition_restored": "saw the accepted definition again of",
}  # fmt: skip
UNSAID = {"sha256", "live", "host_port", "tenant", "tool", "agent"}  # hashes, and what the subject names already
NAMED = UNSAID | {"tenants", "scope", "name", "user", "on"}  # of a new one
FEW = 3
LONG = 60


def kind_of(object_kind: str, action: str) -> str:
    return "release" if action.startswith(MOVES) else ALIASES.get(object_kind, object_kind)


def told(kind: str, action: str, object_id: str, before: JSON | None, after: JSON | None, releases: Mapping[str, str]) -> str:
    """What was done, without who and why. `releases`: id -> what people call it."""
    verb = action.rpartition(".")[2]
    noun = KINDS.get(kind, (kind.replace("_", " "), ""))[0]
    done = f"{VERBS.get(verb, verb.replace('_', ' '))} the {noun} {subject(kind, object_id, before, after)}"
    said = differences(before, after, releases) if before and after else state(after or {}, releases)
    text = f"{done}: {said}" if said else done
    return text if text.endswith("…") else f"{text}."


def subject(kind: str, object_id: str, before: JSON | None, after: JSON | None) -> str:
    facts = {**(before or {}), **(after or {})}
    if kind == "permission":
        return f"of {facts.get('tool', object_id)} for {facts.get('agent') or 'every agent'}"
    if kind == "release":
        return f"of {facts.get('agent', object_id)}"
    if kind == "switch" and facts.get("scope"):
        return " ".join(str(part) for part in (facts["scope"], facts.get("agent"), facts.get("tool")) if part)
    if kind == "member" and facts.get("user"):
        return f"{facts['user']}"
    return object_id


def differences(before: JSON, after: JSON, releases: Mapping[str, str]) -> str:
    """`decision allow → ask; approvers 1 → 2`, the first few."""
    found = [name for name in {**after, **before} if before.get(name) != after.get(name) and name not in UNSAID]
    said = [changed(name, before.get(name), after.get(name), releases) for name in found]
    return "; ".join(said[:FEW]) + (f"; and {len(said) - FEW} more" if len(said) > FEW else "")


def changed(name: str, was: Any, now: Any, releases: Mapping[str, str]) -> str:
    if name == "tenants":
        return "who sees it"
    if isinstance(was, list) and isinstance(now, list):
        parts = [*(f"+ {word(each)}" for each in now if each not in was), *(f"- {word(each)}" for each in was if each not in now)]
        return f"{name} {', '.join(parts)}"
    return f"{name.replace('_', ' ')} {word(was, releases)} → {word(now, releases)}"


def state(facts: JSON, releases: Mapping[str, str]) -> str:
    """What a new one says, the first few."""
    shown = [
        (name, value)
        for name, value in facts.items()
        if name not in UNSAID | {"tenants", "scope"} and value not in (None, "", False, [], {})
    ]
    return ", ".join(f"{name.replace('_', ' ')} {word(value, releases)}" for name, value in shown[:FEW])


def word(value: Any, releases: Mapping[str, str] | None = None) -> str:
    if value in (None, ""):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = (releases or {}).get(str(value), str(value))
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def label(kind: str, action: str, object_id: str, before: JSON | None, after: JSON | None) -> str:
    """A few words for a mark on a chart."""
    verb = action.rpartition(".")[2]
    name = str((after or before or {}).get("tool") or object_id) if kind in ("permission", "switch") else object_id
    text = f"{KINDS.get(kind, (kind, ''))[0]} {VERBS.get(verb, verb.replace('_', ' '))}"
    return f"{text}: {name if len(name) <= 24 else name[:23] + '…'}"
