"""The words beside the bars of the waterfall. Pure; `(text, tone)` where a tone is "", "w" (waits) or "f" (failed)."""

from __future__ import annotations

from .tracks import Call, Send, Track

STORED = {"earlier_answer": "An earlier answer", "what_was_found": "What was found"}
VERDICTS = {"pass": "pass", "fail": "fail", "unreadable": "no readable verdict", "unavailable": "not to be had"}


def step_kind(calls: list[Call]) -> str:
    kinds = {call.kind for call in calls}
    return "write" if "write" in kinds else "read" if "read" in kinds else "model"


def step_title(calls: list[Call], role: str) -> str:
    tools: dict[str, int] = {}
    for call in calls:
        if call.ord:
            tools[call.name] = tools.get(call.name, 0) + 1
    if tools:
        return ", ".join(name if n == 1 else f"{name} ×{n}" for name, n in tools.items())
    if role == "store":
        return STORED.get(calls[0].name, "From what is stored")
    if role == "critique":
        return "Critique"
    if calls[0].state != "done":
        return "Model call"
    return "Answer" if not calls[0].asked else (role or "Plan").capitalize()


def verdict_words(verdict: str) -> str:
    return VERDICTS.get(verdict, verdict)


def step_label(calls: list[Call], state: str) -> tuple[str, str]:
    words = {
        "waiting_approval": ("waiting for a person", "w"),
        "drafted": ("kept as a draft", "w"),
        "unknown": ("outcome unknown", "f"),
        "blocked": ("blocked", "f"),
    }
    if state in words:
        return words[state]
    if state == "failed_not_applied":
        return next((spoken(c.error) for c in calls if c.state == state and c.error), "failed"), "f"
    return (f"{calls[0].name} · {thousands(sum(c.tokens for c in calls))} tok" if calls[0].tokens else calls[0].name), ""


BLOCKED = {"loop": "stopped, it repeats an earlier call", "critique": "stopped by the critique"}


def call_label(call: Call, track: Track, state: str) -> tuple[str, str]:
    words = {
        "waiting_approval": ("waiting for a person", "w"),
        "unknown": ("outcome unknown", "f"),
        "drafted": ("not sent, kept as a draft", "w"),
        "blocked": (BLOCKED.get(call.error or "", spoken(call.error)) if call.error else "not sent", "f"),
        "failed_not_applied": (f"{spoken(call.error)} · not applied" if call.ord and call.kind == "write" else spoken(call.error), "f"),
        "retrying": (f"{spoken(call.error)} · will be tried again", "f"),
    }
    if state in words:
        return words[state]
    if len(track.sends) > 1 and track.sends[-1].ok:
        fallback = call.ord == 0 and len({send.name for send in track.sends}) > 1
        return (f"ok by fallback to {track.sends[-1].name}" if fallback else f"ok on attempt {track.sends[-1].n}"), ""
    return (f"{thousands(call.tokens)} tok" if call.tokens else ""), ""


def attempt_title(call: Call, send: Send, over: bool) -> str:
    """#2 HTTP 503, and for a model call the model that was asked."""
    who = f"{send.name}: " if call.ord == 0 and send.name else ""
    if send.error:
        came = f"HTTP {send.status}" if send.status and send.status >= 400 else spoken(send.error)
    else:
        came = "ok" if send.ok else "no answer" if over else "in progress"
    return f"#{send.n} {who}{came}"


def spoken(error: str | None) -> str:
    return (error or "failed").replace("_", " ")


def thousands(tokens: int) -> str:
    return str(tokens) if tokens < 1000 else f"{tokens / 1000:.1f}k"
