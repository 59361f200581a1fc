"""The desk's handbook: short invented articles, and a deterministic word search over their passages."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from console.sandbox.articles import ARTICLES

_STOP = frozenset(
    re.findall(
        r"\w+",
        "a about after all am an and any are as at be been by can could did do does for from get had has have how i if in"
        " into is it its long many me my no not of on or our please should so tell than that the their them then there they"
        " this to us was we what when where which who why will with would you your",
    )
)


@dataclass(frozen=True, slots=True)
class _Passage:
    doc_id: str
    title: str
    section: str
    text: str
    heading_words: frozenset[str]
    words: frozenset[str]


def _words(text: str) -> list[str]:
    found = re.findall(r"[a-z0-9]+", text.lower())
    return [_stem(word) for word in found if word not in _STOP]


def _stem(word: str) -> str:
    for ending in ("ions", "ing", "ion", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _build() -> tuple[_Passage, ...]:
    passages = []
    for doc_id, title, sections in ARTICLES:
        for number, (heading, text) in enumerate(sections, 1):
            label = f"{number}. {heading}"
            words = frozenset(_words(f"{title} {heading} {text}"))
            passages.append(_Passage(doc_id, title, label, text, frozenset(_words(f"{title} {heading}")), words))
    return tuple(passages)


_PASSAGES = _build()
_SPREAD = Counter(word for passage in _PASSAGES for word in passage.words)


def search(query: str, limit: int = 3) -> list[dict[str, Any]]:
    """The best passages, best first: {doc_id, title, section, text, score}; empty when no word of the query is known."""
    wanted = set(_words(query))
    scored = [(_score(passage, wanted), -place) for place, passage in enumerate(_PASSAGES)]
    best = sorted((entry for entry in scored if entry[0] > 0), reverse=True)[:limit]
    return [_as_json(_PASSAGES[-place], score) for score, place in best]


def _score(passage: _Passage, wanted: set[str]) -> float:
    total = 0.0
    for word in sorted(wanted & passage.words):  # sorted: the same sum in every process
        weight = math.log(1 + len(_PASSAGES) / _SPREAD[word])
        total += weight * (3 if word in passage.heading_words else 1)
    return round(total, 2)


def _as_json(passage: _Passage, score: float) -> dict[str, Any]:
    return {
        "doc_id": passage.doc_id,
        "title": passage.title,
        "section": passage.section,
        "text": passage.text,
        "score": score,
    }
