"""What a run did, step by step, as the checks see it. Pure."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

PASSING = frozenset({"timeout", "rate_limit", "transient_upstream", "not_sent", "conflict"})  # failures that may pass by themselves


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that a model asked for, sent or not. `key`: equal for calls that ask for the same; `answer`: equal for equal results,
    empty while there is none; `error`: its error type, empty for none. `sends`: 0 if it was never sent.
    """

    step: int
    ord: int
    tool: str
    key: str
    args: Mapping[str, Any] | None = None
    effect: str = "read"
    answer: str = ""
    error: str = ""
    applied: bool = False  # a write that was made, or had been made before
    denied: bool = False  # the policy refused it
    asked: bool = False  # people had to be asked
    approved: bool = False  # and said yes
    sends: int = 1

    @property
    def place(self) -> str:
        return f"{self.step}.{self.ord}"

    @property
    def writes(self) -> bool:
        return self.effect != "read"


@dataclass(frozen=True, slots=True)
class Turn:
    """One step: a model turn with the calls it asked for. `sends`: of its model call."""

    step: int
    role: str = "planner"
    sends: int = 1
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Path:
    """`withheld`: the step whose answer a rule kept back. `cost_micro`: millionths of a USD."""

    turns: tuple[Turn, ...]
    answer: str | None = None
    cost_micro: int = 0
    withheld: int | None = None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(call for turn in self.turns for call in turn.calls)


def short(text: str) -> str:
    """A hash that tells two texts apart."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


SAME_ANSWER = 2  # other wordings that were answered exactly so before the next one counts
TRIES = 2  # asking again after failures that may pass


@dataclass(slots=True)
class Seen:
    """What the path has brought so far. Reads are forgotten at each change: they may be answered otherwise from there on."""

    reads: dict[str, list[ToolCall]] = field(default_factory=dict)  # by key
    writes: dict[str, list[ToolCall]] = field(default_factory=dict)
    wordings: dict[tuple[str, str], set[str]] = field(default_factory=dict)  # (tool, answer) -> keys that brought it

    def same(self, call: ToolCall) -> list[ToolCall]:
        return (self.writes if call.writes else self.reads).get(call.key, [])

    def add(self, call: ToolCall) -> None:
        if call.applied and not repeats_a_write(call, self):
            self.reads.clear()
            self.wordings.clear()
        (self.writes if call.writes else self.reads).setdefault(call.key, []).append(call)
        if call.answer and not call.writes:
            self.wordings.setdefault((call.tool, call.answer), set()).add(call.key)


def unnecessary(path: Path) -> Iterator[ToolCall]:
    """Calls that could not bring anything new. See the check `unnecessary_loop_rate` for the words."""
    seen, last = Seen(), last_answers(path)
    for call in path.calls:
        in_vain = brings_nothing(call, seen) and not waited(call, last)
        if call.error == "loop" or repeats_a_write(call, seen) or in_vain:
            yield call
        seen.add(call)


def repeats_a_write(call: ToolCall, seen: Seen) -> bool:
    return call.writes and any(each.applied for each in seen.same(call))


def brings_nothing(call: ToolCall, seen: Seen) -> bool:
    """The same question with the same answer as the time before, or the same answer to a third wording of it."""
    if not call.answer:
        return False
    same = seen.same(call)
    if same and same[-1].answer == call.answer:
        return not may_try_again(call, same)
    if same or call.writes or call.error in PASSING:
        return False
    return len(seen.wordings.get((call.tool, call.answer), ())) >= SAME_ANSWER


def may_try_again(call: ToolCall, same: list[ToolCall]) -> bool:
    """What failed for a reason that may pass is worth asking again, twice."""
    return call.error in PASSING and len(same) <= TRIES and all(each.error in PASSING for each in same)


def last_answers(path: Path) -> dict[str, list[tuple[tuple[int, int], str]]]:
    """Of each key: where it was answered without an error, and how; only the last place of an answer matters."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for call in path.calls:
        if call.answer and not call.error and not call.writes:
            found.setdefault(call.key, {})[call.answer] = (call.step, call.ord)
    return {key: sorted(((at, answer) for answer, at in places.items()), reverse=True)[:2] for key, places in found.items()}


def waited(call: ToolCall, last: dict[str, list[tuple[tuple[int, int], str]]]) -> bool:
    """The same read was answered otherwise in the end: it waited for a change, and the change came."""
    return any(at > (call.step, call.ord) and answer != call.answer for at, answer in last.get(call.key, ()))
