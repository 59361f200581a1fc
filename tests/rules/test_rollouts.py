"""Which runs a canary gets, and whether its comparison keeps its word when it is looked at all the time."""

import math
import os
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runs.rollouts import GUARDS, Arm, Guard, Sums, compare, measured, takes_candidate, with_run

CHAOS = bool(os.environ.get("CHAOS"))
CANARIES = 1000 if CHAOS else 60
LOOK = 20  # runs between two looks
Run = dict[str, float]
STRICT = tuple(Guard(g.name, g.title, g.kind, g.better, 0.0, g.scale) for g in GUARDS)  # no tolerance: the harder promise


@pytest.mark.mission("P12.1")
@settings(max_examples=25, deadline=None)
@given(key=st.text(), small=st.floats(0, 1), large=st.floats(0, 1))
def test_a_larger_share_only_adds_keys(key: str, small: float, large: float) -> None:
    small, large = sorted((small, large))
    assert takes_candidate("r", key, small) <= takes_candidate("r", key, large)
    assert takes_candidate("r", key, large) == takes_candidate("r", key, large)


def test_no_share_is_nobody_and_the_whole_is_everybody() -> None:
    keys = [f"acme|user-{n}" for n in range(5000)]
    assert not any(takes_candidate("r", key, 0) for key in keys)
    assert all(takes_candidate("r", key, 1) for key in keys)
    assert not any(takes_candidate("r", key, share) for key in keys[:10] for share in (-1, 1.5, math.nan))


def test_a_share_is_about_as_large_as_it_says_and_each_rollout_draws_anew() -> None:
    keys = [f"acme|user-{n}" for n in range(20_000)]
    chosen = {key for key in keys if takes_candidate("one", key, 0.1)}
    assert abs(len(chosen) - 2000) < 4 * math.sqrt(20_000 * 0.09)
    assert len(chosen & {key for key in keys if takes_candidate("two", key, 0.1)}) < 0.2 * len(chosen)


def one_run(rng: random.Random, success: float) -> Run:
    """As runs are: skewed costs and durations, rare events, and cost that goes with steps."""
    steps = 1 + min(rng.expovariate(0.4), 20) // 1
    return {
        "success": float(rng.random() < success), "steps": steps, "writes": float(rng.random() < 0.4) + float(rng.random() < 0.1),
        "cost_per_success": 0.004 * steps * rng.lognormvariate(0, 0.6), "fallback": float(rng.random() < 0.03),
        "policy_violations": float(rng.random() < 0.01), "approvals_rejected": float(rng.random() < 0.02),
        "latency": rng.lognormvariate(2, 0.9),
    }  # fmt: skip


def pool(success: float) -> list[list[tuple[float, float, float]]]:
    """Runs to draw from; of each the three sums of every guard."""
    rng = random.Random(f"pool {success}")
    runs = [one_run(rng, success) for _ in range(20_000)]
    return [[(v := measured(g, run[g.name]), v * v, v * (run["success"] > 0)) for g in GUARDS] for run in runs]  # type: ignore[misc]


class Growing:
    """An arm that gets runs in batches, as `with_run` would give them one by one."""

    def __init__(self) -> None:
        self.runs, self.sums = 0, [[0.0, 0.0, 0.0] for _ in GUARDS]

    def take(self, rng: random.Random, runs: list[Any], k: int) -> Arm:
        for run in rng.choices(runs, k=k):
            for sums, (a, b, c) in zip(self.sums, run, strict=True):
                sums[0] += a
                sums[1] += b
                sums[2] += c
        self.runs += k
        return Arm(self.runs, {guard.name: Sums(*sums) for guard, sums in zip(GUARDS, self.sums, strict=True)})


def rolled_back_after(seed: int, new: list[Any], old: list[Any], guards: tuple[Guard, ...], most: int, each: tuple[int, int]) -> int | None:
    """Runs of the candidate until it was rolled back; None: it never was. Looked at after every batch."""
    rng, candidate, baseline = random.Random(seed), Growing(), Growing()
    for _ in range(most // each[0]):
        if compare(candidate.take(rng, new, each[0]), baseline.take(rng, old, each[1]), guards).verdict == "roll_back":
            return candidate.runs
    return None


def most_by_chance(n: int, share: float) -> int:
    """So many of n and more have a chance under 1 in 1000 when each has this one."""
    left, k = 1.0, 0
    while left > 0.001:
        left -= math.comb(n, k) * share**k * (1 - share) ** (n - k)
        k += 1
    return k


@pytest.mark.mission("P12.2")
@pytest.mark.parametrize("guards", [STRICT, GUARDS], ids=["no tolerance", "as set"])
@pytest.mark.parametrize("each", [(LOOK, LOOK), (LOOK, 9 * LOOK)], ids=["half", "a tenth"])
def test_a_canary_that_is_no_worse_is_hardly_ever_rolled_back(guards: tuple[Guard, ...], each: tuple[int, int]) -> None:
    """Over all guards and all looks at most 5 %: the most that a fair count of so many canaries may show."""
    same = pool(0.95)
    most = 1000 if CHAOS else 300
    wrong = sum(rolled_back_after(seed, same, same, guards, most, each) is not None for seed in range(CANARIES))
    print(f"\n{CANARIES} canaries of {most} runs with no difference, {most // LOOK} looks: {wrong} rolled back")
    assert wrong <= (0.05 * CANARIES if CHAOS else most_by_chance(CANARIES, 0.05))


@pytest.mark.mission("P12.2")
def test_ten_points_of_success_are_missed() -> None:
    took = [rolled_back_after(seed, pool85, pool95, GUARDS, 1500, (LOOK, LOOK)) for pool85, pool95 in [(pool(0.85), pool(0.95))]
            for seed in range(CANARIES)]  # fmt: skip
    found = sorted(runs for runs in took if runs is not None)
    share, median = len(found) / CANARIES, found[len(found) // 2]
    print(f"\n{CANARIES} canaries with success 0.85 for 0.95: {share:.1%} found, after {median} runs in the median")
    assert share >= 0.95


def test_a_run_is_added_as_its_sums_are() -> None:
    rng = random.Random(7)
    arm = Arm()
    for _ in range(50):
        arm = with_run(arm, one_run(rng, 0.9))
    assert arm.runs == 50 and set(arm.values) == {guard.name for guard in GUARDS}
    assert 0 < arm.values["success"].total <= 50 and arm.values["success"].with_success == arm.values["success"].total


def arm(n: int, seed: int = 1, **changed: Any) -> Arm:
    """Runs that all went alike; `changed`: a value, or a function of the run's number."""
    made = Arm()
    for number in range(n):
        run = {"success": 1.0, "steps": 3.0, "writes": 1.0, "cost_per_success": 0.01, "fallback": 0.0, "policy_violations": 0.0,
               "approvals_rejected": 0.0, "latency": 9.0}  # fmt: skip
        made = with_run(made, run | {name: float(value(number) if callable(value) else value) for name, value in changed.items()})
    return made


def test_too_few_runs_wait_and_the_sentence_says_how_many_are_missing() -> None:
    found = compare(arm(143), arm(400))
    assert (found.verdict, found.why) == ("wait", "needs 200 runs, has 143")
    assert compare(arm(250), arm(143)).why == "needs 200 runs of the baseline, has 143"


def test_enough_runs_within_every_limit_may_go_on() -> None:
    found = compare(arm(200), arm(200))
    assert found.verdict == "go" and all(one.verdict == "go" and one.n == 200 for one in found.found)


def test_beyond_a_limit_and_not_shown_is_held() -> None:
    found = compare(arm(200, fallback=lambda n: n % 20 == 0), arm(200, fallback=lambda n: n % 100 == 0))
    assert found.verdict == "hold" and "Fallback rate" in found.why
    assert [one.guard.name for one in found.found if one.verdict == "hold"] == ["fallback"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("success", lambda n: n % 2), ("steps", 6), ("cost_per_success", 0.03), ("writes", 3), ("fallback", lambda n: n % 2),
     ("policy_violations", lambda n: n % 3 == 0), ("approvals_rejected", lambda n: n % 3 == 0), ("latency", 30)],
)  # fmt: skip
def test_each_guard_can_roll_back_and_says_by_how_much(name: str, value: Any) -> None:
    found = compare(arm(150, **{name: value}), arm(150))
    assert found.verdict == "roll_back"
    one = next(each for each in found.found if each.guard.name == name)
    assert one.verdict == "roll_back" and one.worse is not None and one.worse > one.limit and one.confidence > 1 - 0.05 / len(GUARDS)


@pytest.mark.parametrize("name", [guard.name for guard in GUARDS])
def test_better_is_never_a_reason_to_go_back(name: str) -> None:
    bad = {"success": lambda n: n % 2, "steps": 9, "cost_per_success": 0.09, "writes": 3, "latency": 90}
    found = compare(arm(250), arm(250, **{name: bad.get(name, lambda n: n % 2)}))
    assert found.verdict == "go"


def test_nothing_is_concluded_from_a_handful() -> None:
    assert compare(arm(20, success=0), arm(20)).verdict == "wait"


def test_without_a_success_its_cost_is_not_known_and_nothing_fails() -> None:
    found = compare(arm(10, success=0), arm(10))
    assert next(one for one in found.found if one.guard.name == "cost_per_success").candidate is None
    assert compare(Arm(), Arm()).why == "needs 200 runs, has 0"
