"""A release with a worse planner, from its evaluation to its undone writes: what people click, and what the watch does by itself."""

import re
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from console.supervision import programs
from tests.acceptance.stack import Stack

from .conftest import SignedIn, violations

AGENT = "ticket-desk"
ENOUGH = 12  # runs of each release before the watch concludes anything
COMPLAINT = "URGENT: I was charged twice on acct_{}"
HANG_S = 240  # the story takes about a minute
# As the jobs cluster does it once a minute.
SWEEP = """
import time
from runs.evals import evaluations
from tenants.scope import ALL, tenant_scope
with tenant_scope(ALL):
    while evaluations.sweep():
        time.sleep(0.2)
"""
JSON = dict[str, Any]


@pytest.fixture
def watched(stack: Stack) -> Iterator[Stack]:
    """The installation with its `jobs` process, whose watchman makes its rounds."""
    (jobs,) = (program for program in programs(port=stack.port, engines=1, jobs=True, sandbox_port=None) if program.name == "jobs")
    stack.commands["jobs"] = list(jobs.command), dict(jobs.environment)
    stack.start("jobs")
    yield stack
    stack.kill("jobs", signal.SIGTERM)
    del stack.processes["jobs"]  # the others' installation is whole without it


def get(stack: Stack, path: str) -> Any:
    answer = stack.api("GET", path, key="admin_api_key")
    assert answer.status == 200, answer
    return answer.body


def eventually(look: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + HANG_S
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


def releases(stack: Stack) -> tuple[JSON, JSON]:
    """The live one and the worse one, as the demo has them."""
    worse, good = get(stack, f"/agents/{AGENT}/releases")["items"]
    assert (good["stage"], good["release"]["models"]["planner"]["model"]) == ("live", "primary")
    assert worse["release"]["models"]["planner"]["model"] == "looping"
    return good, worse


def asked(stack: Stack, number: int) -> str:
    """The id of a run that a customer of their own started."""
    text = COMPLAINT.format(1001 + number % 20)
    return stack.submit(f"{text} ({number})", AGENT, user={"id": f"customer-{number}"})


def effects(stack: Stack, tool: str) -> int:
    """How often the desk was made to do that."""
    return sum(effect["tool"] == tool for effect in stack.sandbox("GET", "/ledger")["effects"])


def fill(page: Page, address: str, button: str, **fields: str) -> None:
    """Open a page with a form, fill it by the names of its fields, and press its button."""
    page.goto(address)
    form = page.locator("main form").filter(has=page.get_by_role("button", name=button, exact=True))
    for name, value in fields.items():
        form.locator(f"[name={name}]").fill(value)
    form.get_by_role("button", name=button, exact=True).click()
    page.wait_for_load_state()
    expect(page.locator("main form [aria-invalid=true]")).to_have_count(0)


@pytest.mark.mission("P9.2", "P12.1", "P12.2")
@pytest.mark.timeout(600)
def test_a_worse_planner_is_caught_shadowed_rolled_back_named_and_undone(watched: Stack, signed_in: SignedIn) -> None:
    page = signed_in("admin")
    good, worse = releases(watched)
    for release in (good, worse):
        fill(page, f"/evals/evaluations/?release={release['release_id']}", "Start", max_cost_usd="5")
    shadow_begins(page, worse)
    tickets = effects(watched, "create_ticket")
    real = [asked(watched, number) for number in range(4)]
    evaluation_finds_the_loop(watched, page, good, worse)
    shadow_shows_the_extra_writes(watched, page, worse, real, tickets)
    served = canary_is_rolled_back(watched, page, good, worse)
    incident_names_it(watched, page, worse)
    writes_are_undone(watched, page, worse)
    again = asked(watched, served[worse["release_id"]][0])  # of a customer whom the canary had
    assert watched.until(again)["release"] == good["release_id"]


def evaluation_finds_the_loop(stack: Stack, page: Page, good: JSON, worse: JSON) -> None:
    stack.python(SWEEP)
    made = {each["release"]: each for each in get(stack, "/evaluations")["items"] if each["suite"] == AGENT}
    passed, failed = (made[release["release_id"]] for release in (good, worse))
    assert [each["state"] for each in (passed, failed)] == ["done", "done"]
    assert passed["result"]["passed"] == passed["result"]["runs"] == passed["total"] == 3
    assert failed["result"]["passed"] == 0
    assert failed["result"]["failing"] == {"steps_within": 3, "action_correctness": 2}
    loops = [each["result"]["measures"]["unnecessary_loop_rate"]["value"] for each in (passed, failed)]
    assert loops[0] == 0 < loops[1]
    page.goto(f"/evals/evaluations/{failed['evaluation_id']}/")
    expect(page.locator("main")).to_contain_text("3 of 3 failed")
    expect(page.get_by_role("row", name=re.compile("^Unnecessary-loop rate"))).to_be_visible()
    expect(page.get_by_text("steps_within").first).to_be_visible()


def shadow_begins(page: Page, worse: JSON) -> None:
    fill(page, f"/releases/{worse['release_id']}/do/shadow/", "Start shadow", share="100", reason="Does it write more?")
    expect(page.locator("main")).to_contain_text("100%")


def rollout_of(stack: Stack, release: JSON, kind: str) -> JSON:
    found: JSON = next(each for each in get(stack, f"/releases/{release['release_id']}")["rollouts"] if each["kind"] == kind)
    return found


def shadow_shows_the_extra_writes(stack: Stack, page: Page, worse: JSON, real: list[str], tickets: int) -> None:
    def shadows() -> list[JSON]:
        runs = get(stack, f"/runs?release={worse['release_id']}&mode=shadow")["items"]
        return runs if len(runs) == len(real) and all(run["state"] == "succeeded" for run in runs) else []

    found: list[JSON] = eventually(shadows, "every real run has a shadow")
    assert sum(run["usage"]["writes"] for run in found) == 2 * len(real)  # would have been
    assert effects(stack, "create_ticket") == tickets + len(real)  # what the real runs opened, and nothing of their shadows
    page.goto(f"/rollouts/{rollout_of(stack, worse, 'shadow')['rollout_id']}/shadows/")
    expect(page.get_by_role("row", name=re.compile("^Writes per run"))).to_contain_text(re.compile(r"1\.00\s*2\.00"))
    expect(page.locator("main")).to_contain_text(f"{len(real)} of {len(real)} took another path")


def canary_is_rolled_back(stack: Stack, page: Page, good: JSON, worse: JSON) -> dict[str, list[int]]:
    """-> release -> the numbers of the customers that it served."""
    fill(page, f"/releases/{worse['release_id']}/do/canary/", "Start canary", steps="50", enough=str(ENOUGH))
    served: dict[str, list[int]] = defaultdict(list)
    for number in range(1000, 1200):
        run_id = asked(stack, number)
        served[get(stack, f"/runs/{run_id}")["release"]].append(number)
        if min(len(served[release["release_id"]]) for release in (good, worse)) >= ENOUGH:
            break

    def over() -> JSON | None:
        found = rollout_of(stack, worse, "canary")
        return None if found["state"] == "running" else found

    found = eventually(over, "the watch acts on the canary")
    assert (found["state"], found["ended_by"]) == ("rolled_back", None)
    assert found["verdict"]["verdict"] == "roll_back"
    page.goto(f"/releases/{worse['release_id']}/")
    expect(page.locator("main")).to_contain_text("Rolled back")
    expect(page.get_by_role("row", name=re.compile("^Steps per run"))).to_contain_text("Worse")
    assert violations(page) == []
    return served


def incident_names_it(stack: Stack, page: Page, worse: JSON) -> None:
    def opened() -> JSON | None:
        items = get(stack, "/incidents?state=open")["items"]
        return next((each for each in items if each["subject"].get("release") == worse["release_id"]), None)

    found = eventually(opened, "an incident names the release")
    assert (found["detector"], found["opened_by"]) == ("release_guard", None)
    page.goto(f"/incidents/{found['incident_id']}/")
    expect(page.locator("main")).to_contain_text(f"The canary of {AGENT} r{worse['number']} was rolled back")
    expect(page.get_by_role("link", name=re.compile("^Undo their writes"))).to_be_visible()


def writes_are_undone(stack: Stack, page: Page, worse: JSON) -> None:
    address = f"/releases/{worse['release_id']}/writes/"
    page.goto(address)
    ticks = page.locator("main input[name=calls]")
    before, closed = ticks.count(), effects(stack, "close_ticket")
    chosen = [str(ticks.nth(place).get_attribute("value")) for place in range(2)]
    for place in range(2):
        ticks.nth(place).check()
    page.get_by_label("Reason").fill("It opened the same ticket twice.")
    page.get_by_role("button", name=re.compile("^Undo")).click()
    page.wait_for_load_state()

    def undone() -> bool:
        rows = get(stack, address.removesuffix("/") + "?limit=100")["items"]
        states = {row["call_id"]: (row["compensation"] or {}).get("why") for row in rows}
        return all(states[call] == "already_undone" for call in chosen)

    eventually(undone, "the chosen writes are undone")
    assert effects(stack, "close_ticket") == closed + 2
    page.goto(address)
    expect(page.locator("main").get_by_text("Undone", exact=True)).to_have_count(2)
    expect(ticks).to_have_count(before - 2)
