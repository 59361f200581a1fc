"""What changed from one release to another: instructions by words, tools, models, limits, ladder, memory. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from .alignment import align

JSON = Mapping[str, Any]
WORD = re.compile(r"\S+\s*|\s+")
LINE = re.compile(r"[^\n]*\n|[^\n]+")
MOST = 250_000  # pairs of words that are compared with each other; more are compared by lines, and many lines not at all
ROLES = ("planner", "reformulation", "critique", "synthesis")
NOTHING: tuple[Any, ...] = (None, [], ())
UNLIMITED = ("approval_s", "allowed_models")  # nothing said: no limit


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of text: the same, ins or del."""

    what: Literal["same", "ins", "del"]
    text: str


@dataclass(frozen=True, slots=True)
class Moved:
    """One thing that is not as it was; None: not there. `way`: of a limit, tighter or looser; of a tool, added, removed or version."""

    name: str
    before: Any
    after: Any
    way: str = "changed"


@dataclass(frozen=True, slots=True)
class Content:
    """`spec`: the release block; `tools`, `models`: name -> number of the version that is pinned (0: made before they had one)."""

    spec: JSON
    tools: Mapping[str, int]
    models: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rung:
    what: Literal["same", "added", "removed"]
    on: str
    do: str


@dataclass(frozen=True, slots=True)
class Difference:
    """`instructions` is empty where they are the same; `ladder` too."""

    instructions: tuple[Part, ...]
    tools: tuple[Moved, ...]
    models: tuple[Moved, ...]
    limits: tuple[Moved, ...]
    ladder: tuple[Rung, ...]
    memory: tuple[Moved, ...]

    @property
    def empty(self) -> bool:
        return not (self.instructions or self.tools or self.models or self.limits or self.ladder or self.memory)

    @property
    def words(self) -> str:
        """In a line: what changed, with numbers."""
        said = {"instructions": bool(self.instructions), "ladder": bool(self.ladder), "memory": bool(self.memory)}
        counted = {"tool": len(self.tools), "model setting": len(self.models), "limit": len(self.limits)}
        found = [f"{n} {name}{'s' if n > 1 else ''}" for name, n in counted.items() if n]
        return ", ".join([*(name for name, there in said.items() if there), *found]) or "nothing"


def difference(before: Content, after: Content) -> Difference:
    was, now = str(before.spec.get("instructions", "")), str(after.spec.get("instructions", ""))
    return Difference(
        instructions=tuple(text(was, now)) if was != now else (),
        tools=tuple(tools(before.tools, after.tools)),
        models=tuple(models(before, after)),
        limits=tuple(limits(before.spec, after.spec)),
        ladder=tuple(ladder(before.spec.get("ladder") or (), after.spec.get("ladder") or ())),
        memory=tuple(values(before.spec.get("memory") or {}, after.spec.get("memory") or {})),
    )


# text -------------------------------------------------------------------------------------------------------------------------


def text(was: str, now: str) -> Iterator[Part]:
    """Word by word; a text that changed in too many places line by line, and at last as a whole. Joined parts give both texts."""
    return joined(parts(was, now, (WORD, LINE)))


def parts(was: str, now: str, ways: Sequence[re.Pattern[str]]) -> Iterator[Part]:
    if not ways:
        yield from (Part("del", was), Part("ins", now))
        return
    left, right = ways[0].findall(was), ways[0].findall(now)
    head = same_ends(left, right)
    tail = same_ends(left[head:][::-1], right[head:][::-1])
    yield Part("same", "".join(left[:head]))
    here, there = left[head : len(left) - tail], right[head : len(right) - tail]
    if len(here) * len(there) > MOST:
        yield from parts("".join(here), "".join(there), ways[1:])
    else:
        yield from matched(here, there)
    yield Part("same", "".join(left[len(left) - tail :]))


def same_ends(left: Sequence[str], right: Sequence[str]) -> int:
    """How many both begin with."""
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def matched(left: list[str], right: list[str]) -> Iterator[Part]:
    for _, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if left[a:b] == right[c:d]:
            yield Part("same", "".join(left[a:b]))
        else:
            yield Part("del", "".join(left[a:b]))
            yield Part("ins", "".join(right[c:d]))


def joined(found: Iterator[Part]) -> Iterator[Part]:
    held: Part | None = None
    for part in found:
        if not part.text:
            continue
        if held is not None and held.what == part.what:
            held = Part(part.what, held.text + part.text)
            continue
        if held is not None:
            yield held
        held = part
    if held is not None:
        yield held


# the rest ---------------------------------------------------------------------------------------------------------------------


def tools(was: Mapping[str, int], now: Mapping[str, int]) -> Iterator[Moved]:
    for name in sorted({*was, *now}):
        before, after = was.get(name), now.get(name)
        if before != after:
            yield Moved(name, before, after, "added" if before is None else "removed" if after is None else "version")


def models(before: Content, after: Content) -> Iterator[Moved]:
    was, now = before.spec.get("models") or {}, after.spec.get("models") or {}
    for role in ROLES:
        yield from (Moved(f"{role}.{one.name}", one.before, one.after) for one in values(was.get(role) or {}, now.get(role) or {}))
    for name in sorted({*before.models} & {*after.models}):
        if before.models[name] != after.models[name]:
            yield Moved(name, before.models[name], after.models[name], "version")


def values(was: JSON, now: JSON) -> Iterator[Moved]:
    for name in dict.fromkeys([*was, *now]):
        before, after = was.get(name), now.get(name)
        if before != after and not (before in NOTHING and after in NOTHING):
            yield Moved(name, before, after)


def limits(was: JSON, now: JSON) -> Iterator[Moved]:
    for block in ("budget", "deadlines"):
        before, after = was.get(block) or {}, now.get(block) or {}
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield Moved(name, before.get(name), after.get(name), way(name, before.get(name), after.get(name)))


def way(name: str, before: Any, after: Any) -> str:
    """tighter or looser; changed where neither can be said."""
    if name in UNLIMITED and (before is None) != (after is None):
        return "tighter" if before is None else "looser"
    if isinstance(before, list | tuple) and isinstance(after, list | tuple):
        return "tighter" if set(after) < set(before) else "looser" if set(after) > set(before) else "changed"
    try:
        return "tighter" if float(after) < float(before) else "looser"
    except (TypeError, ValueError):
        return "changed"


def ladder(was: Sequence[JSON], now: Sequence[JSON]) -> Iterator[Rung]:
    """Every rung of both, in order, if one of them is another."""
    left, right = [key(rung) for rung in was], [key(rung) for rung in now]
    if left == right:
        return
    for row in align(left, right):
        if row.left is not None:
            yield Rung("same" if row.same else "removed", *spoken(was[row.left]))
        if row.right is not None and not row.same:
            yield Rung("added", *spoken(now[row.right]))


def key(rung: JSON) -> str:
    return json.dumps(rung, sort_keys=True)


def spoken(rung: JSON) -> tuple[str, str]:
    return told(rung.get("on")), told(rung.get("do"))


def told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
