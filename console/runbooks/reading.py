"""A runbook from its Markdown. Pure.

`# Title`, a few words, then `##` sections. In a section the items of a list are steps, numbered through the whole runbook; anything
else is read along. A step that something can be done from says so in a line of its own, which is shown as a button:

    1. **Stop the damage.** No run gets further than its next call.

       `action: disable_tool tool={tool}`

`{tool}` is what the incident is about (console.runbooks.words.FACTS); a value without braces is meant as it stands.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from django.utils.html import escape
from django.utils.safestring import SafeString
from markdown_it.token import Token

from console.templatetags.signalbox import is_hidden

from . import markup
from .words import ACTIONS, FACTS

NAME = r"[a-z0-9][a-z0-9-]{0,63}"
MARK = "action:"
VALUE = re.compile(r"\{([a-z_]{1,20})\}\Z|[A-Za-z0-9_.:-]{1,64}\Z")
MAX_STEPS = 60
MAX_TITLE = 200
SENTENCE = re.compile(r"(.+?[.?!])(?:\s|\Z)", re.DOTALL)


class Unreadable(ValueError):
    """Says the line (from 1) where there is one, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a step offers to do. `given`: parameter -> value, `{fact}` for one that the incident knows."""

    name: str
    given: tuple[tuple[str, str], ...]

    def filled(self, facts: dict[str, str]) -> dict[str, str] | None:
        """The parameters for an incident; None when it does not know one of them."""
        values = {name: facts.get(value[1:-1], "") if value.startswith("{") else value for name, value in self.given}
        return values if all(values.values()) else None


@dataclass(frozen=True, slots=True)
class Step:
    """`words`: what to do, as text. `more`: the rest of it as safe HTML, empty where there is none."""

    number: int
    words: str
    more: SafeString
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    parts: tuple["Step | SafeString", ...]  # in the order of the text; what is no step is safe HTML

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(part for part in self.parts if isinstance(part, Step))


@dataclass(frozen=True, slots=True)
class Book:
    title: str
    lead: SafeString
    sections: tuple[Section, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for section in self.sections for step in section.steps)


def read(source: str) -> Book:
    """Raises Unreadable for what is too long, has hidden characters, no title, no steps, or offers what nobody can do."""
    check(source)
    tokens = markup.parse(source)
    blocks = list(split(tokens))
    if not blocks or blocks[0][0].tag != "h1":
        raise Unreadable("A runbook begins with its title: # What is wrong.")
    title = text_of(blocks[0][1])[:MAX_TITLE].strip()
    if not title:
        raise Unreadable("The title is empty.")
    at = next((i for i, block in enumerate(blocks) if block[0].tag == "h2"), len(blocks))
    book = Book(title, prose(blocks[1:at]), tuple(sections(blocks[at:])))
    if not 0 < len(book.steps) <= MAX_STEPS:
        raise Unreadable(f"A runbook has 1 to {MAX_STEPS} steps: items of lists under ## sections. This one has {len(book.steps)}.")
    return book


def check(source: str) -> None:
    if len(source) > markup.MAX_CHARS:
        raise Unreadable(f"A runbook has at most {markup.MAX_CHARS} characters.")
    for number, line in enumerate(source.split("\n"), start=1):
        hidden = next((char for char in line.removesuffix("\r") if is_hidden(char)), None)
        if hidden is not None:
            raise Unreadable(f"Line {number} has the hidden character U+{ord(hidden):04X}. Take it out.")


def split(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The blocks of the outermost level."""
    block: list[Token] = []
    for token in tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            yield block
            block = []


def sections(blocks: list[list[Token]]) -> Iterator[Section]:
    starts = [i for i, block in enumerate(blocks) if block[0].tag == "h2"]
    number = 0
    for start, end in pairwise([*starts, len(blocks)]):
        parts: list[Step | SafeString] = []
        for block in blocks[start + 1 : end]:
            if block[0].type in ("ordered_list_open", "bullet_list_open"):
                made = [step(item, number + i) for i, item in enumerate(items(block), start=1)]
                number += len(made)
                parts += made
            else:
                parts.append(prose([block]))
        yield Section(text_of(blocks[start][1]), tuple(parts))


def items(block: list[Token]) -> Iterator[list[Token]]:
    """What stands in each item of a list, without the item's own tokens."""
    inside: list[Token] = []
    for token in block[1:-1]:
        if token.level == 1:
            if token.nesting < 0:
                yield inside
            inside = []
        else:
            inside.append(token)


def step(tokens: list[Token], number: int) -> Step:
    kept: list[Token] = []
    offers: list[Offer] = []
    for token in tokens:
        if token.type == "inline" and (said := offered(token)) is not None:
            offers.append(said)
            kept.pop()  # the paragraph that it stands in; its end is dropped with the next token
        elif not (token.type == "paragraph_close" and (not kept or kept[-1].type != "inline")):
            kept.append(token)
    first = next((token for token in kept if token.type == "inline"), None)
    if first is None or not (words := text_of(first).strip()):
        raise Unreadable(f"Step {number} says nothing. Write what to do in it.")
    headline, rest = parted(first, words)
    return Step(number, headline, markup.cleaned(rest + markup.html(kept[kept.index(first) + 2 :])), tuple(offers))


def parted(first: Token, words: str) -> tuple[str, str]:
    """The first bold words or sentence of a step, and the rest of its paragraph as HTML."""
    children = [child for child in first.children or [] if child.type != "text" or child.content]
    if children and children[0].type == "strong_open":
        end = next(i for i, child in enumerate(children) if child.type == "strong_close")
        return text_of_all(children[:end]).strip(), paragraph(markup.inline(children[end + 1 :]).lstrip(".: \n"))
    if any(child.type == "link_open" for child in children):
        return words, paragraph(markup.inline(children))
    found = SENTENCE.match(words) if all(child.type in ("text", "softbreak") for child in children) else None
    return (found[1], paragraph(escape(words[found.end() :]))) if found else (words, "")


def paragraph(inside: str) -> str:
    return f"<p>{inside.strip()}</p>" if inside.strip() else ""


def offered(token: Token) -> Offer | None:
    """Of a paragraph that is nothing but one line of code which begins with `action:`. Raises Unreadable for one nobody can do."""
    children = token.children or []
    if len(children) != 1 or children[0].type != "code_inline" or not children[0].content.startswith(MARK):
        return None
    where = f"Line {token.map[0] + 1}" if token.map else "A step"
    name, *pairs = children[0].content.removeprefix(MARK).split() or [""]
    if name not in ACTIONS:
        raise Unreadable(f"{where} offers {name or 'nothing'}, which nobody can do. Use one of {', '.join(sorted(ACTIONS))}.")
    given = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    if set(given) != ACTIONS[name] or len(given) != len(pairs):
        wanted = " ".join(f"{each}=…" for each in sorted(ACTIONS[name])) or "nothing"
        raise Unreadable(f"{where}: {name} takes {wanted}.")
    for key, value in given.items():
        found = VALUE.match(value)
        if found is None or (found[1] and found[1] not in FACTS):
            facts = ", ".join(f"{{{fact}}}" for fact in sorted(FACTS))
            raise Unreadable(f"{where}: {key} is a name, or one of {facts}.")
    return Offer(name, tuple(given.items()))


def prose(blocks: Sequence[Sequence[Token]]) -> SafeString:
    return markup.html([token for block in blocks for token in block])


def text_of(token: Token) -> str:
    return text_of_all(token.children or [])


def text_of_all(tokens: Sequence[Token]) -> str:
    return "".join(" " if token.type in ("softbreak", "hardbreak") else token.content for token in tokens)
