"""A bulk in words: what it does to how many, and what became of each run. Pure."""

from dataclasses import dataclass

TYPED_ABOVE = 20  # runs: more are confirmed by typing their number
VERBS = {"cancel": "Cancel", "retry": "Retry"}
KEEP = {"cancel": "Keep them running", "retry": "Leave them"}
DONE = {"cancel": ("circle-check", "Cancelled", "ok"), "retry": ("circle-check", "Started again", "ok")}
OUTCOMES = {
    "waiting": ("clock", "Not yet", "idle"),
    "already": ("ban", "Had ended", "idle"),
    "could_not": ("octagon-x", "Could not", "fail"),
    "untouched": ("minus", "Left alone", "idle"),
}

STATES = {
    "draft": ("circle-dashed", "Not started", "idle"),
    "running": ("loader-circle", "Going on", "run"),
    "held_up": ("timer", "Held up", "wait"),
    "done": ("circle-check", "Done", "ok"),
    "stopped": ("circle-pause", "Stopped", "idle"),
}


@dataclass(frozen=True, slots=True)
class Mark:
    icon: str
    word: str
    tone: str


def mark(act: str, outcome: str) -> Mark:
    return Mark(*(DONE[act] if outcome == "done" else OUTCOMES[outcome]))


def look_of(state: str, held_up: str) -> tuple[str, str, str]:
    """Icon, word, tone."""
    return STATES["held_up" if held_up and state == "running" else state]


def runs(number: int) -> str:
    return f"{number:,} run" if number == 1 else f"{number:,} runs"


def headline(act: str, number: int) -> str:
    """`Cancel 3 runs`."""
    return f"{VERBS[act]} {runs(number)}"
