"""The text format of Prometheus (0.0.4). Pure. Numbers and labels in, lines out."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

MEDIA = "text/plain; version=0.0.4; charset=utf-8"
LONGEST = 200  # characters of a label's value
SERIES = 200  # of one label: what is beyond is added up under OTHER
OTHER = "(other)"
Sample = tuple[str, Mapping[str, str], float]  # suffix of the name, labels, value


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `name` with its base unit, counters with `_total`."""

    name: str
    kind: Literal["counter", "gauge", "summary"]
    help: str
    samples: list[Sample] = field(default_factory=list)


def text(families: Iterable[Family]) -> str:
    return "".join(line for family in families for line in lines(family))


def lines(family: Family) -> Iterable[str]:
    yield f"# HELP {family.name} {escaped(family.help, quotes=False)}\n"
    yield f"# TYPE {family.name} {family.kind}\n"
    for suffix, labels, value in family.samples:
        told = ",".join(f'{name}="{escaped(cut(worth))}"' for name, worth in labels.items())
        yield f"{family.name}{suffix}{{{told}}} {number(value)}\n" if told else f"{family.name}{suffix} {number(value)}\n"


def escaped(worth: str, *, quotes: bool = True) -> str:
    worth = worth.replace("\\", "\\\\").replace("\n", "\\n")
    return worth.replace('"', '\\"') if quotes else worth


def cut(worth: str) -> str:
    """A long value keeps its beginning: a series per value is dear enough without a page of text in each."""
    sane = worth.encode("utf-8", "replace").decode()
    return sane if len(sane) <= LONGEST else f"{sane[: LONGEST - 1]}…"


def number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1 << 53 else repr(float(value))


def bounded(counts: Mapping[str, Mapping[str, float]], size: str, most: int = SERIES) -> dict[str, dict[str, float]]:
    """{label: {figure: number}} of the `most` with the largest `size`; the others, and those that look alike when cut, added up."""
    kept: dict[str, dict[str, float]] = {}
    for place, name in enumerate(sorted(counts, key=lambda name: (-counts[name].get(size, 0), name))):
        into = kept.setdefault(cut(name) if place < most else OTHER, {})
        for figure, value in counts[name].items():
            into[figure] = into.get(figure, 0) + value
    return kept
