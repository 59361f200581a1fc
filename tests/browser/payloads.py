"""Text that would like to run in somebody's browser: the corpus of T54, one JSON string a line in `payloads.jsonl`.

A payload calls `hit()` or asks OUT for something if it comes to life. Each of the corpus carries a mark of its own, in a place where
it can be read when the payload is shown as the text that it is: a page that shows it whole shows its mark.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path

OUT = "http://127.66.0.1:9"  # in the corpus; nobody listens there, and no name has to be looked up for it
PLACE = "§"  # where a payload wants its mark; else it stands before it
MARK = re.compile(r"q\d{3}q")


def mark(number: int) -> str:
    return f"q{number:03d}q"


def marked(number: int, payload: str) -> str:
    return payload.replace(PLACE, mark(number), 1) if PLACE in payload else mark(number) + payload


LINES = (Path(__file__).parent / "payloads.jsonl").read_text().splitlines()
CORPUS = tuple(marked(number, json.loads(line)) for number, line in enumerate(LINES))
FEW = CORPUS[::8]  # some of every kind


def fitting(payloads: Collection[str], start: int, most: int) -> str:
    """The first from `start` on, going round, that is no longer than `most`. None is shortened: the rest would be another one."""
    turned = [*payloads][start % len(payloads) :] + [*payloads][: start % len(payloads)]
    return next(payload for payload in turned if len(payload) <= most)
