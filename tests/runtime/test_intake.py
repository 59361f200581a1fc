from datetime import timedelta

import pytest
from pydantic import ValidationError

from runs.intake import INPUT_MAX, Accepted, Order, submit
from runs.models import Agent, Event, Run, RunInput
from runs.states import RunState
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import IdempotencyRecord, Tenant

from .waiting import at_once, kinds, make_release, make_world, person


@pytest.fixture
def world(db):
    return make_world()


def order(**values):
    return Order.model_validate({"agent": "support-triage", "input": "Hello"} | values)


@pytest.mark.mission("P1.1")
def test_an_accepted_run_is_queued_with_its_input_limits_and_first_event(world):
    asked = order(
        input={"text": "Hello", "data": {"order": 7}}, user={"id": "u1", "attributes": {"accounts": ["a"]}}, session="s",
        metadata={"ticket": "T-1"},
    )  # fmt: skip
    accepted = submit(world.starter, asked, traceparent="00-aa-bb-01")
    run = Run.objects.get(pk=accepted.run.pk)
    assert not accepted.replayed and run.run_id.startswith("agt_")
    assert (run.state, run.mode, run.starter, run.release, run.owner) == (
        RunState.QUEUED, "normal", world.starter.user, world.agent.live, None,
    )  # fmt: skip
    assert run.deadline_at - run.created_at <= timedelta(seconds=20)
    assert (run.asked.text, run.asked.data, run.asked.session) == ("Hello", {"order": 7}, "s")
    assert run.asked.user == {"id": "u1", "attributes": {"accounts": ["a"]}}
    assert (run.asked.metadata, run.asked.traceparent) == ({"ticket": "T-1"}, "00-aa-bb-01")
    assert run.asked.limits["max_cost_micro"] == 80_000
    assert kinds(run) == ["run_accepted"]


def test_the_event_of_acceptance_holds_hashes_and_references_but_no_text(world):
    run = submit(world.starter, order(input="my secret story")).run
    payload = run.events.get().payload
    assert set(payload["data"]) == {"agent", "release", "input_sha256"} and payload["data"]["agent"] == "support-triage"
    assert "secret" not in str(payload)


def test_a_caller_may_tighten_the_budget_and_never_loosen_it(world):
    asked = order(budget={"max_steps": 2, "max_cost_usd": "5", "run_s": 9999})
    limits = submit(world.starter, asked).run.asked.limits
    assert (limits["max_steps"], limits["max_cost_micro"], limits["run_s"]) == (2, 80_000, 20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": {"max_steps": 0}}, {"budget": {"max_cost_usd": "-1"}}, {"budget": {"run_s": 0}}, {"surprise": 1},
        {"input": ""}, {"input": 3}, {"input": {"text": "x", "more": 1}}, {"mode": "wild"},
        {"session": "s" * 129}, {"user": {"id": ""}}, {"input": "a\0b"},
        {"metadata": {"k": "a\0b"}}, {"input": "\ud800"}, {"metadata": {"\ud800": 1}}, {"metadata": []},
        {"metadata": {"k": float("nan")}}, {"budget": {"allowed_models": [1]}},
    ],
)  # fmt: skip
def test_an_order_that_is_wrong_is_refused_before_anything_is_written(wrong):
    with pytest.raises(ValidationError):
        order(**wrong)


@pytest.mark.parametrize("text", ["\\u0000", "back\\slash", 'a "quoted" word', "naïve 💡"])
def test_odd_but_storable_text_is_kept_as_it_is(world, text):
    assert RunInput.objects.get(pk=submit(world.starter, order(input=text)).run.pk).text == text


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"input": "x" * INPUT_MAX}, "input_too_large"),
        ({"input": "ä" * (INPUT_MAX // 2)}, "input_too_large"),
        ({"metadata": {"k": "x" * 17_000}}, "metadata_too_large"),
        ({"callback": {"url": "https://example.org/", "secret_name": "none"}}, "callback_secret_missing"),
        ({"agent": "nobody"}, "not_found"),
        ({"release": "rel_01ARZ3NDEKTSV4RRFFQ69G5FAV"}, "not_found"),
        ({"release": "nonsense"}, "not_found"),
    ],
)
def test_what_cannot_be_accepted_is_refused_with_a_stable_code(world, values, code):
    with pytest.raises(Refused) as refused:
        submit(world.starter, order(**values))
    assert refused.value.code == code and not Run.objects.exists()


def test_an_input_of_exactly_the_limit_is_accepted(world):
    submit(world.starter, order(input="x" * (INPUT_MAX - 2)))  # two quotes


def test_another_tenants_agent_does_not_exist(world):
    Agent.objects.filter(name="support-triage").update(tenants=["globex"])
    with pytest.raises(Refused) as refused:
        submit(world.starter, order())
    assert refused.value.status == 404
    Agent.objects.filter(name="support-triage").update(tenants=["globex", "acme"])
    submit(world.starter, order())


def test_without_a_live_release_nothing_is_accepted(world):
    Agent.objects.filter(name="support-triage").update(live=None)
    with pytest.raises(Refused) as refused:
        submit(world.starter, order())
    assert (refused.value.code, refused.value.status) == ("no_live_release", 409)


def test_an_order_may_pin_an_older_release_of_the_same_agent_only(world):
    older = make_release(world.agent, 7)
    assert submit(world.starter, order(release=older.release_id)).run.release == older
    foreign = make_release(Agent.objects.create(name="other"))
    with pytest.raises(Refused) as refused:
        submit(world.starter, order(release=foreign.release_id))
    assert refused.value.status == 404


def test_a_tenant_that_was_switched_off_since_starts_nothing(world):
    Tenant.objects.update(active=False)
    with pytest.raises(Refused) as refused:
        submit(world.starter, order())
    assert refused.value.code == "tenant_inactive"


def test_a_viewer_or_a_narrow_key_starts_nothing(world):
    viewer = person(world.tenant, "vic", "viewer")
    narrow = Actor(world.starter.user, world.tenant, "operator", frozenset({"runs:read"}))
    for actor in (viewer, narrow):
        with pytest.raises(Refused) as refused:
            submit(actor, order())
        assert refused.value.code == "scope_missing"


def test_the_same_key_and_body_give_the_same_run(world):
    first = submit(world.starter, order(), idempotency_key="k", body_sha256=b"1" * 32)
    again = submit(world.starter, order(), idempotency_key="k", body_sha256=b"1" * 32)
    assert again == Accepted(first.run, replayed=True)
    assert Run.objects.count() == 1 and Event.objects.count() == 1


def test_the_same_key_with_another_body_is_refused(world):
    submit(world.starter, order(), idempotency_key="k")
    with pytest.raises(Refused) as refused:
        submit(world.starter, order(input="Other"), idempotency_key="k")
    assert (refused.value.code, refused.value.status) == ("idempotency_key_reused", 422)


def test_two_tenants_may_use_the_same_key(world):
    other = person(Tenant.objects.create(slug="globex"), "gil", "operator")
    runs = {submit(actor, order(), idempotency_key="k").run.pk for actor in (world.starter, other)}
    assert len(runs) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0b", "a\nb"])
def test_a_key_that_cannot_be_kept_is_refused(world, key):
    with pytest.raises(Refused) as refused:
        submit(world.starter, order(), idempotency_key=key)
    assert refused.value.code == "idempotency_key_invalid"


def test_a_refused_order_leaves_its_key_free(world):
    with pytest.raises(Refused):
        submit(world.starter, order(agent="nobody"), idempotency_key="k")
    assert not IdempotencyRecord.objects.exists()
    assert not submit(world.starter, order(), idempotency_key="k").replayed


@pytest.mark.parametrize("_", range(5))
def test_ten_requests_with_one_key_at_once_make_one_run(committed_db, _):
    world = make_world()
    answers = at_once(*[lambda: submit(world.starter, order(), idempotency_key="k")] * 10)
    accepted = [one for one in answers if isinstance(one, Accepted)]
    refused = [one for one in answers if not isinstance(one, Accepted)]
    assert Run.objects.count() == Event.objects.count() == RunInput.objects.count() == 1
    assert {one.run.pk for one in accepted} == {Run.objects.get().pk}
    assert sum(not one.replayed for one in accepted) == 1
    assert all(isinstance(one, Refused) and (one.code, one.status) == ("idempotency_in_flight", 409) for one in refused)
