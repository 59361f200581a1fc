"""Limits from outside, through the real processes: what a caller gets, what the operator sees, and what was written."""

from typing import Any

import pytest

from .stack import Stack
from .test_spine import COMPLAINT, accounted_for, decide, effects, kinds


def approve(stack: Stack, run_id: str) -> None:
    stack.until(run_id, "waiting_approval")
    assert decide(stack, stack.approval_of(run_id)).status == 200


@pytest.mark.mission("P6.2", "P6.1")
def test_ticketing_is_down_so_the_ticket_is_kept_the_caller_is_answered_and_an_operator_carries_it_out_later(stack: Stack) -> None:
    stack.sandbox("PUT", "/faults", {"target": "create_ticket", "fault": "500", "times": -1})
    run_id = stack.submit(COMPLAINT)
    approve(stack, run_id)
    done = stack.until(run_id)
    assert (done["state"], done["outcome"], done["degraded"]) == ("succeeded", "completed_degraded", True)
    assert done["rungs"][0]["on"] == "tool_unavailable" and done["rungs"][0]["do"] == "draft"
    assert done["output"]["text"] and effects(stack, run_id) == []
    assert "rung_entered" in kinds(stack, run_id) and "call_drafted" in kinds(stack, run_id)
    accounted_for(stack, done)

    stack.sandbox("DELETE", "/faults")
    waiting = stack.api("GET", "/drafts").body["items"]
    draft = next(d for d in waiting if d["run_id"] == run_id)
    assert draft["tool"] == "create_ticket" and draft["args"]["account_id"] == "acct_1001"
    carried = carried_out(stack, draft["draft_id"])
    approve(stack, carried["run_id"])
    action = stack.until(carried["run_id"])
    assert (action["outcome"], len(effects(stack, carried["run_id"]))) == ("completed", 1)
    again = stack.api("POST", f"/drafts/{draft['draft_id']}/carry-out", {})
    assert (again.status, again.body["code"]) == (409, "draft_decided")


def carried_out(stack: Stack, draft_id: str) -> Any:
    """The breaker of the desk may still be open for a moment: the run waits for it, so carrying out is never refused by it."""
    answer = stack.api("POST", f"/drafts/{draft_id}/carry-out", {"reason": "the desk is back"})
    assert answer.status == 202, answer.body
    return answer.body


@pytest.mark.mission("X10")
def test_a_switch_refuses_new_runs_and_lets_them_in_again(stack: Stack) -> None:
    thrown = stack.api("POST", "/switches", {"scope": "agent", "agent": "support-triage", "then": "pause", "reason": "drill for the test"},
                       key="admin_api_key")  # fmt: skip
    assert thrown.status == 201, thrown.body
    refused = stack.api("POST", "/runs", {"agent": "support-triage", "input": "What is the refund policy?"})
    assert (refused.status, refused.body["code"]) == (423, "stopped_by_switch")
    lifted = stack.api("POST", f"/switches/{thrown.body['switch_id']}/lift", {"reason": "over"}, key="admin_api_key")
    assert lifted.status == 200, lifted.body
    assert stack.until(stack.submit("What is the refund policy?"))["outcome"] == "completed"


@pytest.mark.mission("P5.1", "P5.2")
def test_a_ceiling_refuses_with_the_amounts_and_the_time_it_opens_again(stack: Stack) -> None:
    put = stack.api("PUT", "/ceilings", {"agent": "support-triage", "kind": "cost_usd_per_day", "value": "0.000001", "reason": "test"},
                    key="admin_api_key")  # fmt: skip
    assert put.status == 200, put.body
    refused = stack.api("POST", "/runs", {"agent": "support-triage", "input": "What is the refund policy?"})
    assert (refused.status, refused.body["code"]) == (402, "ceiling_reached") and refused.body["resets_at"]
    gone = {"agent": "support-triage", "kind": "cost_usd_per_day", "value": None, "reason": "test over"}
    assert stack.api("PUT", "/ceilings", gone, key="admin_api_key").status == 204
    assert stack.until(stack.submit("What is the refund policy?"))["outcome"] == "completed"
