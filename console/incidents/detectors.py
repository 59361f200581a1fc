"""Decides what is wrong. Pure: the readings of a window and their past in, findings out.

A baseline is the median and the median absolute deviation (MAD) of earlier hours: one mad hour moves neither.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from .kinds import KINDS, Kind, spelled
from .parameters import Parameters

LEAST_HOURS = 6  # of a past that can be compared with
NORMAL = 1.4826  # a MAD of normal noise times this is its standard deviation
Subject = tuple[str, str]  # (tool, its name); ("", "") is the whole tenant or the installation


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure of one subject. `n`: how many things it is of. `past`: the same of earlier hours that had enough of them.

    `certain`: it is one however few things it is of, as an open breaker is. `note`: goes with the sentence.
    """

    subject: Subject
    value: float | None
    n: int
    past: tuple[float, ...] = ()
    certain: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A detector as it decides."""

    name: str
    kind: str
    severity: str
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Baseline:
    median: float
    mad: float
    hours: int


@dataclass(frozen=True, slots=True)
class Line:
    """Fires at `trigger` and above; is over below `clear`."""

    trigger: float
    clear: float
    baseline: Baseline | None


@dataclass(frozen=True, slots=True)
class Finding:
    fingerprint: str
    subject: Subject
    value: float
    threshold: float
    baseline: Baseline | None
    severity: str
    title: str
    sentence: str
    n: int


@dataclass(frozen=True, slots=True)
class Looked:
    """`holding`: fingerprints that are not over, whether they fire or not: between the two lines, or not to be told.

    `values`: fingerprint -> the figure of each subject that has one.
    """

    findings: tuple[Finding, ...]
    holding: frozenset[str]
    values: Mapping[str, float]


def judge(rule: Rule, readings: Iterable[Reading]) -> Looked:
    """A subject without a reading, or with one of nothing, is over."""
    kind = KINDS[rule.kind]
    findings: list[Finding] = []
    holding: set[str] = set()
    values: dict[str, float] = {}
    for reading in readings:
        value = reading.value
        if value is None or reading.n <= 0 or math.isnan(value):
            continue
        fingerprint = fingerprint_of(rule.name, reading.subject)
        values[fingerprint] = value
        line = line_of(kind, rule.parameters, baseline_of(reading.past))
        if line is None or value >= line.clear:
            holding.add(fingerprint)
        if line is not None and value >= line.trigger and (reading.certain or reading.n >= rule.parameters.minimum):
            findings.append(found(rule, kind, reading, value, line))
    return Looked(tuple(findings), frozenset(holding), values)


def baseline_of(past: Sequence[float]) -> Baseline | None:
    """None: too short to compare with."""
    whole = [value for value in past if math.isfinite(value)]
    if len(whole) < LEAST_HOURS:
        return None
    middle = median(whole)
    return Baseline(middle, median(abs(value - middle) for value in whole), len(whole))


def line_of(kind: Kind, parameters: Parameters, baseline: Baseline | None) -> Line | None:
    """None: the kind compares with a past, and there is none, or it is one of zeros."""
    if kind.by == "level":
        base = 0.0
        trigger = parameters.threshold
    elif baseline is None or (kind.by == "times" and baseline.median <= 0):
        return None
    else:
        base = baseline.median
        trigger = base * parameters.threshold if kind.by == "times" else base + parameters.threshold
    if parameters.k and baseline is not None:
        trigger = max(trigger, baseline.median + parameters.k * NORMAL * baseline.mad)
    return Line(trigger, base + (trigger - base) * parameters.clear_ratio, baseline)


def found(rule: Rule, kind: Kind, reading: Reading, value: float, line: Line) -> Finding:
    of = reading.subject[1] or "the tenant"
    return Finding(
        fingerprint=fingerprint_of(rule.name, reading.subject),
        subject=reading.subject,
        value=value,
        threshold=line.trigger,
        baseline=line.baseline if kind.by != "level" or rule.parameters.k else None,
        severity=rule.severity,
        title=kind.title.format(of=of)[:200],
        sentence=sentence(kind, rule.parameters, reading, value, line),
        n=reading.n,
    )


def sentence(kind: Kind, parameters: Parameters, reading: Reading, value: float, line: Line) -> str:
    of = f" of {reading.subject[1]}" if reading.subject[1] else ""
    usual = f", usually {spelled(line.baseline.median, kind.unit)}" if kind.by != "level" and line.baseline else ""
    note = f" {reading.note}" if reading.note else ""
    minutes = parameters.window_minutes
    window = "" if kind.standing else f" of {reading.n} in the last {f'{minutes} minutes' if minutes != 1 else 'minute'}"
    return f"{kind.metric}{of}: {spelled(value, kind.unit)}{window}{usual}; the line is {spelled(line.trigger, kind.unit)}.{note}"


def fingerprint_of(detector: str, subject: Subject) -> str:
    return f"{detector}:{subject[0]}={subject[1]}" if subject[0] else f"{detector}:*"
