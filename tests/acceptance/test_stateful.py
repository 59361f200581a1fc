"""Random histories over the API, with faults and killed engines in between: whatever the order, nothing is lost or made twice.

`CHAOS=1` plays many long histories; otherwise a few short ones. Hypothesis prints the steps of a history that fails.
"""

import json
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from .stack import Stack

LONG = os.environ.get("CHAOS") == "1"
RESTING = ("succeeded", "failed", "cancelled", "needs_reconciliation", "quarantined")
TICKET = {"account_id": "acct_1004", "priority": "normal", "summary": "words"}
MAIL = {"to": "customer@example.com", "subject": "s", "body": "b"}
WRITES = {"support-triage": ("create_ticket", TICKET), "account-care": ("send_email", MAIL)}
FAULTS = st.sampled_from(["429", "500", "drop_before", "drop_after", "malformed"])


class Histories(RuleBasedStateMachine):
    """`stack` is set by the test. `runs`: what this history has started."""

    stack: Stack

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[str] = []

    def state(self, run: str) -> str:
        return str(self.stack.api("GET", f"/runs/{run}", key="admin_api_key").body["state"])

    def waiting(self) -> list[dict[str, Any]]:
        items = self.stack.api("GET", "/approvals?state=pending", key="admin_api_key").body["items"]
        return [item for item in items if item["run_id"] in self.runs]

    @initialize()
    def clean(self) -> None:
        self.stack.sandbox("POST", "/reset")

    @rule(agent=st.sampled_from(sorted(WRITES)), number=st.integers(0, 10**9))
    def submit(self, agent: str, number: int) -> None:
        tool, arguments = WRITES[agent]
        text = "summary" if tool == "create_ticket" else "body"
        call = {"calls": [{"name": tool, "arguments": {**arguments, text: f"number {number}"}}]}
        self.runs.append(self.stack.submit("go\n#sim " + json.dumps({"turns": [call, {"text": "Done."}]}), agent=agent))

    @precondition(lambda self: self.runs)
    @rule(verdict=st.sampled_from(["approve", "approve", "reject"]), times=st.integers(1, 2))
    def decide(self, verdict: str, times: int) -> None:
        for item in self.waiting():
            for _ in range(times):
                body = {"verdict": verdict, "digest": item["digest"], "reason": "a history"}
                answer = self.stack.api("POST", f"/approvals/{item['approval_id']}/decision", body, key="admin_api_key")
                assert answer.status in (200, 409), answer.body

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 100))
    def cancel(self, which: int) -> None:
        answer = self.stack.api("POST", f"/runs/{self.runs[which % len(self.runs)]}/cancel")
        assert answer.status in (200, 202), answer.body

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 100))
    def retry(self, which: int) -> None:
        answer = self.stack.api("POST", f"/runs/{self.runs[which % len(self.runs)]}/retry")
        assert answer.status in (202, 409), answer.body
        if answer.status == 202:
            self.runs.append(answer.body["run_id"])

    @rule(tool=st.sampled_from(["create_ticket", "send_email", "model"]), fault=FAULTS, times=st.integers(1, 3))
    def fault(self, tool: str, fault: str, times: int) -> None:
        self.stack.sandbox("PUT", "/faults", {"target": tool, "fault": fault, "times": times})

    @rule()
    def kill_the_engine(self) -> None:
        self.stack.restart(next(name for name in self.stack.processes if name.startswith("engine")))

    def teardown(self) -> None:
        """Let it come to rest, then compare what the rows say with what the other side received."""
        self.stack.sandbox("DELETE", "/faults")
        for run in self.runs:
            while self.state(run) not in RESTING:
                self.decide("approve", 1)
                if self.state(run) == "waiting_approval":
                    continue
                self.stack.until(run, *RESTING, "waiting_approval", seconds=60)
        effects = Counter(effect["args_sha256"] for effect in self.stack.sandbox("GET", "/ledger")["effects"])
        assert not effects or max(effects.values()) == 1, "an effect was made twice"
        self.stack.manage("doctor")  # ends with 1, and so raises, when the rows do not agree with each other


@pytest.mark.mission("X1")
def test_no_history_loses_a_run_or_makes_an_effect_twice(stack: Stack) -> None:
    Histories.stack = stack
    chosen = settings(
        max_examples=40 if LONG else 4, stateful_step_count=30 if LONG else 10, deadline=None, derandomize=not LONG,
        suppress_health_check=list(HealthCheck), database=None,
    )  # fmt: skip
    run_state_machine_as_test(Histories, settings=chosen)
