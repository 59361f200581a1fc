"""How decisions and labels look and read."""

from typing import Any

VERDICTS = {  # decision -> (icon, word, tone)
    "allow": ("check", "Allow", "ok"),
    "ask": ("hand", "Ask", "wait"),
    "draft": ("pen-line", "Draft only", "run"),
    "deny": ("minus", "Deny", "fail"),
}
LABELS = {  # label -> what it says about a tool
    "untrusted": "Its answers hold text that strangers may have written.",
    "private": "Its answers hold somebody's private data.",
    "egress": "What is sent with it leaves the building.",
    "money": "It moves money.",
    "destructive": "It destroys something.",
    "side_effects": "It is called a read and changes something all the same: the policy treats it as a write.",
}


def verdict(decision: str, approvers: int) -> dict[str, Any]:
    icon, word, tone = VERDICTS.get(decision, ("circle-dashed", decision, "idle"))
    if decision == "ask":
        word = f"Ask {approvers} {'person' if approvers == 1 else 'people'}"
    return {"decision_icon": icon, "decision": word, "tone": tone}


def labels(given: list[str]) -> list[tuple[str, str]]:
    """Each with what it says; a label of one's own says what rules make of it."""
    return [(name, LABELS.get(name, "A label of this installation: what follows from it is up to the rules.")) for name in given]
