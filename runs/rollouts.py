"""Which release a run gets while a canary runs, and what the canary shows so far. Pure.

The comparison may be looked at after every run. Each guard is a mixture sequential probability ratio test of "worse than its limit by
nothing" against "worse by a normally distributed amount": its evidence stays below 1 / alpha for ever with probability 1 - alpha when
the candidate is no worse, however often it is looked at. alpha is shared out over the guards, so that it holds for all of them together.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ALPHA = 0.05  # chance of rolling a canary back that is no worse, over all guards and all looks
FIRST_LOOK = 30  # runs of each release before anything is concluded: below, a variance says little
ENOUGH = 200  # runs of the candidate before it may go on

Verdict = Literal["wait", "hold", "go", "roll_back"]
Kind = Literal["share", "mean", "log", "per_success"]


def takes_candidate(rollout: str, key: str, share: float) -> bool:
    """Whether what belongs to this key (tenant, user, session) gets the candidate. The same key always gets the same one; a larger share
    keeps every key that a smaller one had. 0 is nobody, 1 everybody. Another rollout draws anew."""
    if not 0 <= share <= 1:  # also what is no number
        return False
    place = int.from_bytes(hashlib.sha256(f"{rollout}|{key}".encode("utf-8", "replace")).digest()[:6]) / (1 << 48)
    return place < share


@dataclass(frozen=True, slots=True)
class Guard:
    """`limit`: how much worse is tolerated; points of a share, an amount of a mean, a part of the baseline's for log and per_success.
    `scale`: the size of a change that the test is best at, in the same units as it compares. `better`: which way is good.
    """

    name: str
    title: str
    kind: Kind
    better: Literal["high", "low"]
    limit: float
    scale: float


GUARDS = (
    Guard("success", "Success rate", "share", "high", 0.02, 0.05),
    Guard("steps", "Steps per run", "log", "low", 0.15, 0.15),
    Guard("cost_per_success", "Cost per success", "per_success", "low", 0.20, 0.20),
    Guard("writes", "Writes per run", "mean", "low", 0.20, 0.20),
    Guard("fallback", "Fallback rate", "share", "low", 0.03, 0.05),
    Guard("policy_violations", "Runs with a policy violation", "share", "low", 0.01, 0.05),
    Guard("approvals_rejected", "Runs with a rejected approval", "share", "low", 0.02, 0.05),
    Guard("latency", "Duration", "log", "low", 0.20, 0.20),
)


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one value per run, with its squares, and with its products by success."""

    total: float = 0.0
    squares: float = 0.0
    with_success: float = 0.0

    def plus(self, value: float, *, success: bool) -> "Sums":
        return Sums(self.total + value, self.squares + value * value, self.with_success + value * success)


@dataclass(frozen=True, slots=True)
class Arm:
    """The ended runs of one release since the canary began. `values`: sums by guard; of `log` guards over the logarithms of values, of a
    share over 1 and 0, of `per_success` over the cost of each run.
    """

    runs: int = 0
    values: Mapping[str, Sums] = field(default_factory=dict)


def with_run(arm: Arm, values: Mapping[str, float]) -> Arm:
    """One run more. `values`: by guard as people name them: shares 1 or 0, steps and seconds as they are, cost of the run."""
    success = values["success"] > 0
    sums = {guard.name: arm.values.get(guard.name, Sums()).plus(measured(guard, values[guard.name]), success=success) for guard in GUARDS}
    return Arm(arm.runs + 1, sums)


def measured(guard: Guard, value: float) -> float:
    return math.log(max(value, 1e-3)) if guard.kind == "log" else value


@dataclass(frozen=True, slots=True)
class Found:
    """One guard. `baseline` and `candidate` as people read them; `worse`: by how much, in the unit of `limit`; `confidence`: that it is
    worse than its limit, valid at every look. `n`: runs of the candidate.
    """

    guard: Guard
    baseline: float | None
    candidate: float | None
    worse: float | None
    limit: float
    n: int
    confidence: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    verdict: Verdict
    why: str
    found: tuple[Found, ...]
    needs: int
    has: int


def compare(
    candidate: Arm, baseline: Arm, guards: tuple[Guard, ...] = GUARDS, *, needs: int = ENOUGH, first_look: int = FIRST_LOOK
) -> Comparison:
    """wait: too few runs. roll_back: a guard is shown to be worse than its limit. hold: enough runs, and one lies beyond its limit without
    that being shown yet. go: enough runs, and all lie within. A roll_back is final: whoever acts on it looks no more."""
    least = min(candidate.runs, baseline.runs)
    found = tuple(examined(guard, candidate, baseline, ALPHA / len(guards), least >= first_look, least >= needs) for guard in guards)
    if bad := [one for one in found if one.verdict == "roll_back"]:
        return Comparison("roll_back", f"{bad[0].guard.title} is worse than its limit.", found, needs, candidate.runs)
    if least < needs:
        which = "" if candidate.runs < needs else " of the baseline"
        return Comparison("wait", f"needs {needs} runs{which}, has {least}", found, needs, candidate.runs)
    if over := [one for one in found if one.verdict == "hold"]:
        why = f"{over[0].guard.title} lies beyond its limit; {candidate.runs} runs do not show yet whether it is."
        return Comparison("hold", why, found, needs, candidate.runs)
    return Comparison("go", "Every guard lies within its limit.", found, needs, candidate.runs)


def examined(guard: Guard, candidate: Arm, baseline: Arm, alpha: float, looks: bool, enough: bool) -> Found:
    new, old = estimate(guard, candidate), estimate(guard, baseline)
    if new is None or old is None:
        return Found(guard, None, None, None, guard.limit, candidate.runs, 0.0, "hold" if enough else "wait")
    worse = (new.value - old.value) * (1 if guard.better == "low" else -1)
    limit = math.log1p(guard.limit) if relative(guard) else guard.limit
    evidence = mixture(worse - limit, new.variance + old.variance, guard.scale**2) if looks else 1.0
    verdict: Verdict = "wait" if not enough else "go" if worse <= limit else "hold"
    if evidence > 1 / alpha:
        verdict = "roll_back"
    told = math.expm1(worse) if relative(guard) else worse
    confidence = max(0.0, 1 - 1 / evidence)
    return Found(guard, shown(guard, old), shown(guard, new), told, guard.limit, candidate.runs, confidence, verdict)


@dataclass(frozen=True, slots=True)
class Estimate:
    """`variance` of the estimate itself, not of a run."""

    value: float
    variance: float


def estimate(guard: Guard, arm: Arm) -> Estimate | None:
    """None: nothing can be said yet."""
    sums = arm.values.get(guard.name)
    if sums is None or arm.runs < 2:
        return None
    if guard.kind == "share":  # half an event more of each kind: no variance of zero by luck
        of = (sums.total + 0.5) / (arm.runs + 1)
        return Estimate(sums.total / arm.runs, of * (1 - of) / arm.runs)
    if guard.kind == "per_success":
        return ratio(sums, arm)
    return Estimate(sums.total / arm.runs, spread(sums.total, sums.squares, arm.runs) / arm.runs)


def spread(total: float, squares: float, n: int) -> float:
    """The variance of a run, with one run more at a distance of a tenth: equal values are no proof that all will be."""
    return max(0.0, squares - total * total / n) / (n - 1) + 0.01 / n


def ratio(cost: Sums, arm: Arm) -> Estimate | None:
    """The logarithm of cost per success, by the delta method. None without a cost and a success."""
    n, won = arm.runs, arm.values["success"].total
    if not won or cost.total <= 0:
        return None
    mean, rate = cost.total / n, won / n
    of_cost = max(0.0, cost.squares / n - mean * mean) / (mean * mean)
    of_rate, both = (1 - rate) / rate, (cost.with_success / n - mean * rate) / (mean * rate)
    return Estimate(math.log(mean / rate), max(of_cost + of_rate - 2 * both, 1e-4) / n)


def mixture(over: float, variance: float, prior: float) -> float:
    """The likelihood ratio, for an estimate `over` zero with this variance, of a normal mixture with variance `prior` against zero.
    Below zero there is no evidence of being worse."""
    if over <= 0 or variance <= 0:
        return 1.0
    exponent = prior * over * over / (2 * variance * (variance + prior))
    return math.sqrt(variance / (variance + prior)) * math.exp(min(exponent, 500.0))


def relative(guard: Guard) -> bool:
    return guard.kind in ("log", "per_success")


def shown(guard: Guard, found: Estimate) -> float:
    """A geometric mean of logarithms, the figure itself else."""
    return math.exp(found.value) if relative(guard) else found.value
