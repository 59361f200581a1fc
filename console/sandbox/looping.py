"""The model `sim-looping`: a planner that got worse. It plans as the others do, but asks its first question three times, and repeats the
first change it makes in other words. Pure. A release with it is what evaluations, shadows and canaries are there to stop."""

from __future__ import annotations

from dataclasses import replace

from console.sandbox.conversation import Conversation, Outcome
from console.sandbox.stories import Turn, decide

MODEL = "sim-looping"
TIMES = 3
CHANGES = "create_ticket"
AGAIN = "Once more: "


def decide_worse(conversation: Conversation) -> Turn:
    """The next turn; where the conversation asks for nothing, the same as everybody's."""
    first = decide(replace(conversation, outcomes=()))
    if first.get("calls") and len(conversation.outcomes) < TIMES:
        return first
    known = replace(conversation, outcomes=without_repeats(conversation.outcomes))
    turn = decide(known)
    made = [outcome for outcome in known.outcomes if outcome.tool == CHANGES]
    if "text" not in turn or len(made) != 1:
        return turn
    before = replace(known, outcomes=tuple(outcome for outcome in known.outcomes if outcome.tool != CHANGES))
    return in_other_words(decide(before))


def without_repeats(outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    """With the first answer of the first question alone: a repetition may have been stopped."""
    return outcomes[:1] + outcomes[TIMES:]


def in_other_words(turn: Turn) -> Turn:
    """The same change with another summary, so that it is a second one to whoever compares arguments."""
    calls = [
        call | {"arguments": call["arguments"] | {"summary": AGAIN + call["arguments"]["summary"]}} if call["name"] == CHANGES else call
        for call in turn.get("calls", ())
    ]
    return turn | {"calls": calls} if calls else turn
