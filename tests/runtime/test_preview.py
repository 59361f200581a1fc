"""What a write would change: shown to whoever is asked, read again before it is sent, and never in the way of the question."""

from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from approvals.models import Approval
from runs import signoff, standing_grants
from runs.engine.previews import BYTES_MAX, UNREADABLE, drift, shown
from runs.models import Event, Run
from tools import catalog
from tools.spec import ToolSpec

from .world import TEXT, World, call, schema

CHARGE = "result.charges.filter(c, c.charge_id == args.charge_id)[0]"
NUMBER = {"type": "number"}


async def put_refund(world: World, **preview: Any) -> None:
    spec = {
        "adapter": {"kind": "http", "url": f"{world.url}/desk/refunds"}, "description": "Refund a charge", "effect": "write",
        "idempotency": "key", "input_schema": schema(account_id=TEXT, charge_id=TEXT, amount=NUMBER, currency=TEXT, reason=TEXT),
        "preview": {
            "adapter": {"kind": "http", "url": f"{world.url}/desk/charges/list"}, "args": {"account_id": "args.account_id"},
            "before": {"status": f"{CHARGE}.status", "amount": f"{CHARGE}.amount"}, "after": {"status": "'refunded'"}, **preview,
        },
    }  # fmt: skip
    await sync_to_async(catalog.put)(None, "issue_refund", ToolSpec.model_validate(spec))
    await world.agent(tools=("issue_refund",))


async def refund(world: World) -> dict[str, Any]:
    """Of the first charge of an account."""
    charge = (await world.http("POST", "/desk/charges/list", {"account_id": "acct_1002"}))["charges"][0]
    about = {"account_id": "acct_1002", "charge_id": charge["charge_id"]}
    return about | {"amount": charge["amount"], "currency": "USD", "reason": "goodwill"}


async def asked(world: World, arguments: dict[str, Any] | None = None) -> tuple[Run, Approval]:
    run = await world.script(call("issue_refund", **(arguments or await refund(world))), {"text": "Done."})
    await world.engine()
    await world.until(run, "waiting_approval")
    return run, await pending(run)


async def pending(run: Run) -> Approval:
    return await Approval.objects.aget(run_id=run.id, state="pending")


async def approve(world: World, approval: Approval, **more: Any) -> None:
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest, **more)


async def asked_again(world: World, run: Run, before: Approval) -> Approval:
    """The request that takes this one's place, once the run waits for it."""
    while not await Approval.objects.filter(run_id=run.id, state="pending").exclude(id=before.id).aexists():
        await world.until(run, "running", "queued", "waiting_approval")
    return await pending(run)


@pytest.mark.mission("X8")
async def test_a_request_shows_what_the_call_would_change(world: World) -> None:
    await put_refund(world)
    arguments = await refund(world)
    run, approval = await asked(world, arguments)
    assert set(approval.preview) == {"at", "before", "after"}
    assert approval.preview["before"] == {"status": "paid", "amount": arguments["amount"]}
    assert approval.preview["after"] == {"status": "refunded"}
    event = await Event.objects.aget(run_id=run.id, kind="approval_requested")
    assert len(event.payload["data"]["preview_sha256"]) == 64 and "paid" not in str(event.payload)
    await approve(world, approval)
    assert (await world.until(run)).outcome == "completed"
    assert [effect["tool"] for effect in await world.ledger()] == ["issue_refund"]
    assert [r["target"] for r in await world.received()].count("list_charges") == 3  # the test's own, when asked, before it was sent


@pytest.mark.mission("X8")
async def test_a_target_that_changed_voids_the_approval_and_people_are_asked_again(world: World) -> None:
    await put_refund(world)
    arguments = await refund(world)
    run, first = await asked(world, arguments)
    await world.http("POST", "/desk/refunds", arguments | {"amount": 1})
    await approve(world, first)
    second = await asked_again(world, run, first)
    await first.arefresh_from_db()
    assert (first.state, first.void_reason) == ("void", "The target changed: status paid -> partly_refunded.")
    assert second.preview["before"]["status"] == "partly_refunded"
    voided = await Event.objects.aget(run_id=run.id, kind="approval_voided")
    assert voided.payload["data"]["moved"] == "target (status)"
    assert len(await world.ledger()) == 1  # the one that the test made
    await approve(world, second)
    await world.until(run)
    assert "issue_refund" in [r["target"] for r in await world.received() if r["run"]]


@pytest.mark.mission("X8")
@pytest.mark.parametrize(
    ("preview", "error"),
    [
        ({"before": {"status": "result.nope"}, "after": {}}, "its answer does not say what is asked of it"),
        ({"args": {"account_id": "args.nope"}}, "its arguments could not be made"),
        ({"args": {"account_id": "'acct_9999'"}}, "validation: "),
    ],
)
async def test_a_preview_that_fails_does_not_hold_up_the_question(world: World, preview: dict[str, Any], error: str) -> None:
    await put_refund(world, **preview)
    run, approval = await asked(world)
    assert set(approval.preview) == {"at", "error"} and approval.preview["error"].startswith(error)
    await approve(world, approval)
    assert (await world.until(run)).outcome == "completed"
    assert len(await world.ledger()) == 1


async def test_a_preview_that_hangs_is_given_up_and_the_question_is_asked(world: World) -> None:
    await put_refund(world, timeout_s=0.2)
    arguments = await refund(world)
    await world.fault("list_charges", "hang", ms=60_000)
    _, approval = await asked(world, arguments)
    assert approval.preview["error"].startswith("timeout")
    await world.http("DELETE", "/faults")


@pytest.mark.mission("X8")
async def test_what_cannot_be_read_again_is_asked_once_more_and_then_denied(world: World) -> None:
    await put_refund(world)
    arguments = await refund(world)
    run, first = await asked(world, arguments)
    await world.fault("list_charges", "500", times=1)
    await approve(world, first)
    second = await asked_again(world, run, first)
    await first.arefresh_from_db()
    assert (first.state, first.void_reason) == ("void", UNREADABLE) and "before" in second.preview
    await world.fault("list_charges", "500", times=1)
    await approve(world, second)
    await world.until(run)
    assert await world.ledger() == []
    denied = (await world.calls(run))[1]
    assert denied.state == "blocked" and UNREADABLE in denied.result["message"]
    await second.arefresh_from_db()
    assert second.state == "void" and UNREADABLE in second.void_reason


async def test_arguments_that_a_person_edits_are_not_shown_with_what_the_others_would_have_changed(world: World) -> None:
    await put_refund(world)
    arguments = await refund(world)
    run, first = await asked(world, arguments)
    await approve(world, first, args=arguments | {"amount": 1})
    edited = await pending(run)
    assert edited.preview["before"] == first.preview["before"] and "after" not in edited.preview
    await sync_to_async(signoff.decide)(world.people["second"], edited.id, verdict="approve", digest=edited.digest)
    assert (await world.until(run)).outcome == "completed"
    assert len(await world.ledger()) == 1


async def test_under_a_standing_grant_nobody_saw_it_and_nothing_is_compared(world: World) -> None:
    await put_refund(world)
    arguments = await refund(world)
    given = {
        "agent": "helper",
        "tool": "issue_refund",
        "most": 1,
        "expires_at": timezone.now() + timedelta(hours=1),
        "reason": "a busy day",
    }
    await sync_to_async(standing_grants.give)(world.people["admin"], tenant=world.tenant, **given)
    run = await world.script(call("issue_refund", **arguments), {"text": "Done."})
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    assert len(await world.ledger()) == 1
    assert (await Approval.objects.aget(run_id=run.id)).preview["before"]["status"] == "paid"
    assert [r["target"] for r in await world.received()].count("list_charges") == 2  # the test's own, and when it was asked for


def test_what_moved_is_named_with_its_values_and_without_them() -> None:
    moved = drift({"balance": 40, "note": "x" * 60}, {"balance": 10, "note": "x" * 60})
    assert moved and moved.reason == "The target changed: balance 40 -> 10." and moved.fields == "target (balance)"
    assert drift({"balance": 40}, {"balance": 40.0}) is None
    long = drift({"note": "x" * 500}, {"note": "y" * 500})
    assert long and len(long.reason) <= 200 and long.reason.endswith("\N{HORIZONTAL ELLIPSIS}.")


@pytest.mark.parametrize("before", ["result.many", "result.when"])
def test_what_is_too_large_or_no_json_is_not_shown(before: str) -> None:
    spec = {"before": {"a": before}, "after": {}}
    told = shown(spec, {}, {"many": ["x" * 100] * (BYTES_MAX // 100), "other": 1})
    assert set(told) == {"error"}
