"""Suites, cases made from runs, scores of what production did, and evaluations against a release."""

import json
import os
import time
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from console import apply as configuration
from console import document
from runs.evals import evaluations, scoring, suites
from runs.evals.cases import CaseSpec, read
from runs.evals.checks import VERSION
from runs.evals.from_runs import from_run
from runs.evals.summary import Scored, summed
from runs.models import Call, Case, Evaluation, Event, Run, Score, Step, Suite
from runs.states import RunState
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import AuditEntry, Tenant

from .waiting import World, make_world, person, running

pytestmark = pytest.mark.django_db
ONE = {"key": "charged", "input": "I was charged twice", "expect": {"required": ["create_ticket"], "max_steps": 4}}


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def root(world: World) -> Actor:
    return person(world.tenant, "root", "admin", platform=True)


def suite_of(root: Actor, n: int = 1, **more: Any) -> Suite:
    made, _ = suites.put_suite(root, "triage", **more)
    suites.put_cases(root, made, [read(ONE | {"key": f"case-{i:05}"}) for i in range(n)])
    return made


def refused(act: Any) -> Refused:
    with pytest.raises(Refused) as caught, transaction.atomic():
        act()
    return caught.value


def ended(world: World, state: str = "succeeded", **values: Any) -> Run:
    run = running(world)
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, outcome="completed", ended_at=Now(), **values)
    run.refresh_from_db()
    return run


def step(run: Run, number: int, *calls: dict[str, Any], **of_model: Any) -> None:
    """A turn as an engine leaves it."""
    Step.objects.create(run=run, step=number, tenant_id=run.tenant_id, role="planner", model="primary", calls=len(calls))
    rows = [{"name": "primary", "result": {"text": "Done."}, **of_model}, *calls]
    for ord_, row in enumerate(rows):
        state = row.pop("state", "done")
        given: dict[str, Any] = {"effect": "read", "attempt": 1} | row
        given["args"] = json.dumps(given["args"]).encode() if "args" in given else None
        first = state if state == "blocked" else "dispatched"
        call = Call.objects.create(run=run, step=number, ord=ord_, tenant_id=run.tenant_id, fence=1, state=first, **given)
        if first != state:
            Call.objects.filter(run_id=call.run_id, step=number, ord=ord_).update(state=state)


def search(answer: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": "search_docs", "args": {"query": "refunds"}, "result": {"ok": True, "found": answer}} | more


def ticket(**more: Any) -> dict[str, Any]:
    return {"name": "create_ticket", "effect": "write", "args": {"id": 1}, "result": {"ok": True, "ticket": 5}} | more


# suites -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P9.2")
def test_a_changed_case_gets_a_version_and_the_old_one_stays_for_those_who_had_it(root: Actor) -> None:
    suite = suite_of(root)
    before, was = suite.revision, suites.digest(suite)
    done = suites.put_cases(root, suite, [read(ONE | {"key": "case-00000", "input": "other"})])
    assert done.updated == ("case-00000",) and suite.revision == before + 1 and suites.digest(suite) != was
    assert [case.version for case in Case.objects.order_by("version")] == [1, 2]
    assert suites.digest(suite, before) == was and suites.as_of(suite, before).get().version == 1
    entry = AuditEntry.objects.filter(tenant=None).latest("id")
    assert (entry.action, entry.object_id) == ("case.updated", "triage/case-00000") and "other" not in json.dumps(entry.after)


def test_the_same_cases_again_change_nothing(root: Actor) -> None:
    suite = suite_of(root, 3)
    entries = AuditEntry.objects.count()
    done = suites.put_cases(root, suite, [read(case.spec) for case in suites.current(suite)])
    assert done.unchanged == 3 and suite.revision == 1 and AuditEntry.objects.count() == entries


def test_a_case_that_was_taken_out_may_come_back_with_the_next_version(root: Actor) -> None:
    suite = suite_of(root)
    suites.remove_case(root, suite, "case-00000", "not ours")
    suite.refresh_from_db()
    assert not suites.current(suite).exists()
    suites.put_cases(root, suite, [read(ONE | {"key": "case-00000"})])
    assert suites.current(suite).get().version == 2


def test_only_a_platform_admin_changes_what_belongs_to_the_installation(world: World, root: Actor) -> None:
    suite, admin = suite_of(root), person(world.tenant, "adam", "admin")
    spec = read(ONE)
    for act in (
        lambda: suites.put_suite(admin, "mine"), lambda: suites.put_cases(admin, suite, [spec]),
        lambda: suites.import_jsonl(admin, suite, b""), lambda: suites.remove_case(admin, suite, "case-00000"),
        lambda: from_run(admin, ended(world), suite), lambda: start(admin, suite, world),
    ):  # fmt: skip
        assert refused(act).code == "platform_admin_needed"


@pytest.mark.mission("P9.2")
def test_ten_thousand_cases_go_in_and_out_in_one_go(root: Actor) -> None:
    """A tenth of them, but for CHAOS=1."""
    many = suites.MOST if os.environ.get("CHAOS") else suites.MOST // 10
    suite, _ = suites.put_suite(root, "large")
    lines = "".join(json.dumps(ONE | {"key": f"c{i:05}"}) + "\n" for i in range(many)).encode()
    began = time.monotonic()
    assert suites.import_jsonl(root, suite, lines).as_json()["created"] == many
    exported = "".join(line for _, line in suites.export_jsonl(suite, suite.revision)).encode()
    assert suites.import_jsonl(root, suite, exported).unchanged == many
    print(f"\n{many} cases in, out and compared: {time.monotonic() - began:.1f} s")
    assert suites.current(suite).count() == many


def test_a_suite_has_a_most(root: Actor) -> None:
    suite = suite_of(root)
    with connection.cursor() as cursor:
        cursor.execute(
            """insert into runs_case (id, suite_id, key, version, since, spec, sha256)
            select gen_random_uuid(), %s, 'c' || n, 1, 1, '{}', '' from generate_series(2, %s) n""",
            [suite.pk, suites.MOST],
        )
    assert refused(lambda: suites.put_cases(root, suite, [read(ONE)])).code == "too_many_cases"


def test_an_import_with_wrong_lines_takes_nothing_and_names_each_of_them(root: Actor) -> None:
    suite = suite_of(root)
    lines = [
        json.dumps(ONE), "", "{", json.dumps({"key": "a", "input": "b", "expect": {"required": ["x"], "forbidden": ["x"]}}),
        json.dumps({"key": "b"}), json.dumps(ONE),
    ]  # fmt: skip
    error = refused(lambda: suites.import_jsonl(root, suite, "\n".join(lines).encode()))
    assert error.code == "bad_lines" and "Line 3" in error.message
    assert [(each["line"], each["code"]) for each in error.fields["errors"]] == [
        (3, "bad_json"), (4, "contradiction"), (5, "bad_case"), (6, "duplicate_key")]  # fmt: skip
    assert suites.current(suite).count() == 1


def test_a_document_brings_suites_and_says_what_it_changes(root: Actor) -> None:
    block = {"name": "triage", "description": "d", "cases": [ONE, ONE | {"key": "second"}]}

    def applied(value: dict[str, Any]) -> list[tuple[str, str, tuple[str, ...]]]:
        changes = configuration.apply(root, document.load({"suites": [value]}))
        return [(change.kind, change.action, change.fields) for change in changes]

    assert applied(block) == [("suite", "create", ())]
    assert applied(block) == [("suite", "unchanged", ())]
    assert applied({"name": "triage", "description": "d"}) == [("suite", "unchanged", ())]
    assert applied(block | {"cases": [ONE | {"input": "other"}]}) == [("suite", "update", ("1 cases changed", "1 cases gone"))]
    wrong = refused(lambda: applied(block | {"cases": [ONE, {"key": "x", "input": "y", "colour": 1}]}))
    assert (wrong.code, wrong.fields["path"]) == ("bad_case", "suites[0]") and "cases[1]" in wrong.message


# from a run ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P9.2")
def test_a_run_becomes_a_case_with_what_its_tools_answered(world: World, root: Actor) -> None:
    suite, _ = suites.put_suite(root, "ours", tenants=("acme",))
    run = ended(world, step=3)
    step(run, 1, search(), {"name": "delete_account", "effect": "irreversible", "state": "blocked", "attempt": 0, "args": {}, "result": {}})
    step(run, 2, ticket())
    key = from_run(root, run, suite)
    case = suites.find_case(suite, key)
    spec = CaseSpec.model_validate(case.spec)
    assert (case.tenant, case.run_id) == (world.tenant, run.pk) and key.startswith("please-refund-me-")
    assert [(each.tool, each.args) for each in spec.tools.given] == [("search_docs", {"query": "refunds"}), ("create_ticket", {"id": 1})]
    assert spec.expect.required == ("search_docs", "create_ticket") and spec.expect.max_steps == 3
    assert [(write.tool, write.args) for write in spec.expect.writes or ()] == [("create_ticket", {"id": 1})]
    assert scoring.checked(scoring.path_of(run), spec.expect)["action_correctness"].value == 1


def test_what_people_of_a_tenant_wrote_is_not_shown_to_another(world: World, root: Actor) -> None:
    run, shared = ended(world), suite_of(root)
    assert refused(lambda: from_run(root, run, shared)).code == "suite_is_shared"
    suite, _ = suites.put_suite(root, "ours", tenants=("acme",))
    from_run(root, run, suite, "theirs")
    suites.put_cases(root, suite, [read(ONE | {"key": "theirs"})])
    assert suites.find_case(suite, "theirs").tenant == world.tenant  # an edit does not wash it clean
    assert refused(lambda: suites.put_suite(root, "ours", tenants=())).code == "suite_holds_runs"
    assert refused(lambda: suites.put_suite(root, "ours", tenants=("acme", "bolt"))).code == "suite_holds_runs"


@pytest.mark.parametrize(("change", "code"), [({"state": RunState.QUEUED, "outcome": None}, "run_not_over"), ({}, "key_taken")])
def test_not_every_run_can_become_a_case(world: World, root: Actor, change: dict[str, Any], code: str) -> None:
    suite, _ = suites.put_suite(root, "ours", tenants=("acme",))
    run = ended(world)
    from_run(root, run, suite, "taken")
    Run.objects.filter(pk=run.pk).update(**change) if not change else None
    open_ = running(world) if change else run
    assert refused(lambda: from_run(root, open_, suite, "taken")).code == code


# scores -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P9.1")
def test_a_path_is_read_from_the_rows_of_its_run(world: World) -> None:
    run = ended(world, cost_micro=1500, answer_step=3)
    denied = {"name": "delete_account", "effect": "irreversible", "state": "blocked", "attempt": 0, "args": {"id": 1},
              "result": {"ok": False, "error_type": "denied"}, "error_class": "policy"}  # fmt: skip
    step(run, 1, search(attempt=2), denied)
    step(run, 2, search(), ticket(error_class="duplicate_request", decision={"decision": "allow"}), attempt=3)
    step(run, 3, result={"text": "It is done."})
    data = {"step_id": 1, "ord": 2, "tool": "delete_account"}
    Event.objects.create(run=run, seq=90, tenant_id=run.tenant_id, kind="policy_violated", payload=data)
    path = scoring.path_of(run)
    assert [len(turn.calls) for turn in path.turns] == [2, 2, 0] and path.answer == "It is done." and path.cost_micro == 1500
    found = scoring.score(run)
    assert (found["unnecessary_loop_rate"].value, found["unnecessary_loop_rate"].at) == (0.25, ("2.1",))
    assert (found["policy_violation_rate"].value, found["policy_violation_rate"].at) == (0.25, ("1.2",))
    assert (found["retries"].value, found["retries"].at) == (3, ("1.1", "2.0")) and found["cost_usd"].value == 0.0015
    assert [call.applied for call in path.calls] == [False, False, False, True]


def test_a_rehearsed_write_counts_as_made_and_nobody_was_to_be_asked(world: World) -> None:
    run = ended(world, mode="eval")
    told = {"state": "blocked", "attempt": 0, "error_class": "rehearsed", "decision": {"decision": "ask"}}
    step(run, 1, ticket(**told), ticket(**told | {"args": {"id": 2}, "result": {"ok": False, "error_type": "validation"}}))
    first, second = scoring.path_of(run).calls
    assert (first.applied, first.asked, first.error) == (True, False, "") and (second.applied, second.error) == (False, "validation")


@pytest.mark.mission("P9.2")
def test_a_share_of_production_is_scored_once_with_the_version_of_the_checks(world: World) -> None:
    runs = [ended(world) for _ in range(30)]
    for run in runs:
        step(run, 1, search(), search())
    running(world)
    rehearsed = ended(world, mode="eval")
    some = scoring.sweep(share=0.5)
    chosen = set(Score.objects.values_list("run_id", flat=True))
    assert 0 < some < 30 and scoring.sweep(share=0.5) == 0
    assert scoring.sweep(share=1) == 30 - some and chosen <= set(Score.objects.values_list("run_id", flat=True))
    assert not Score.objects.filter(run_id=rehearsed.pk).exists()
    one = Score.objects.filter(evaluation=None)[0]
    assert one.checks_version == VERSION and one.measures is not None
    assert one.measures["unnecessary_loop_rate"] == {"value": 0.5, "n": 2, "at": ["1.2"], "names": []}
    assert "tool_selection_precision" not in one.measures
    Score.objects.update(checks_version=VERSION + 1)
    assert scoring.sweep(share=1, most=7) == 7  # other checks make other scores


def test_a_sweep_costs_the_same_queries_for_one_run_as_for_many(world: World, django_assert_num_queries: Any) -> None:
    for _ in range(12):
        step(ended(world), 1, search())
    with django_assert_num_queries(7):  # the sample, the runs, their calls, steps, approvals and events; the insert
        assert scoring.sweep(share=1) == 12


def test_many_scores_are_summed_with_the_runs_to_look_at() -> None:
    scores = [
        Scored(
            f"agt_{i}", {"steps": {"value": i, "n": 1}, "retries": {"value": 0, "n": 2}}, ("steps_within",) if i > 8 else (), f"c{i % 2}"
        )
        for i in range(1, 11)
    ]
    found = summed(scores)
    assert (found["runs"], found["passed"], found["failing"]) == (10, 8, {"steps_within": 2})
    assert found["measures"]["steps"] == {
        "value": 5.5, "n": 10, "p50": 5, "p95": 10, "min": 1, "max": 10,
        "worst": ["agt_10", "agt_9", "agt_8", "agt_7", "agt_6"]}  # fmt: skip
    assert found["steps"]["3"] == 1 and found["cases"] == {"c1": {"runs": 5, "passed": 4}, "c0": {"runs": 5, "passed": 4}}
    assert found["measures"]["retries"]["worst"] == [] and summed([])["measures"] == {}


# evaluations --------------------------------------------------------------------------------------------------------------------


def start(root: Actor, suite: Suite, world: World, **more: Any) -> Evaluation:
    assert world.agent.live is not None
    return evaluations.start(root, suite, world.agent.live, world.tenant, **{"ceiling_micro": 10_000_000} | more)


def finish(evaluation: Evaluation, **values: Any) -> int:
    """Its runs end, as engines would end them."""
    open_ = Run.objects.filter(pk__in=evaluations.unscored(evaluation).values("run_id"), state="queued")
    runs = list(open_)
    for run in runs:
        Run.objects.filter(pk=run.pk).update(state="cancelled", ended_at=Now(), **values)
        step(run, 1, ticket(state="blocked", attempt=0, error_class="rehearsed"))
    return len(runs)


@pytest.mark.mission("P9.2")
def test_an_evaluation_runs_every_case_as_often_as_asked_and_sums_it_up(world: World, root: Actor) -> None:
    suite = suite_of(root, 3)
    made = start(root, suite, world, repetitions=2)
    suites.put_cases(root, suite, [read(ONE | {"key": "later"})])  # it goes on with the cases it began with
    assert evaluations.advance(made, in_flight=4) and Score.objects.count() == 4
    rounds = 0
    while evaluations.advance(made, in_flight=4):
        finish(made, cost_micro=100)
        rounds += 1
        assert rounds < 10
    made.refresh_from_db()
    assert (made.state, made.done, made.total) == ("done", 6, 6) and made.result is not None
    assert made.result["runs"] == 6 and made.result["passed"] == 6 and made.result["cost_micro"] == 600
    assert made.result["measures"]["tool_selection_recall"]["value"] == 1
    counted = sorted(Score.objects.values_list("case__key", "repetition"))
    assert counted == [(f"case-{i:05}", n) for i in range(3) for n in (1, 2)]
    run = Run.objects.filter(mode="eval").select_related("asked")[0]
    assert run.asked.rehearsal == {"kind": "eval", "reads": "recorded", "results": []} and run.tenant == world.tenant
    assert scoring.sweep(share=1) == 0  # no run of it is taken for production


def test_a_ceiling_is_never_passed_even_if_every_run_costs_all_that_it_may(world: World, root: Actor) -> None:
    made = start(root, suite_of(root, 5), world, ceiling_micro=200_000)  # a run may cost 80,000
    assert evaluations.advance(made) and Score.objects.count() == 2
    finish(made, cost_micro=60_000)
    assert evaluations.advance(made) and Score.objects.count() == 3
    finish(made, cost_micro=80_000)
    assert not evaluations.advance(made)
    made.refresh_from_db()
    assert made.state == "failed" and made.result is not None and "no room" in made.result["message"] and made.result["runs"] == 3


def test_cancelling_ends_its_runs_and_happens_once(world: World, root: Actor) -> None:
    made = start(root, suite_of(root, 2), world)
    evaluations.advance(made)
    assert evaluations.cancel(root, made, "enough") and not evaluations.cancel(root, made)
    assert set(Run.objects.filter(mode="eval").values_list("state", flat=True)) == {"cancelled"}
    assert not evaluations.advance(made) and Score.objects.count() == 2
    assert AuditEntry.objects.filter(action="evaluation.cancelled").count() == 1


def test_what_cannot_start_now_starts_later_and_what_never_can_ends_it(world: World, root: Actor) -> None:
    made = start(root, suite_of(root, 2), world)

    def busy(*_: Any) -> Run:
        raise Refused("quota_concurrent_runs", "Later.", 429)

    def gone(*_: Any) -> Run:
        raise Refused("tenant_inactive", "The tenant is switched off.", 403)

    assert evaluations.advance(made, busy) and not Score.objects.exists()
    assert not evaluations.advance(made, gone)
    made.refresh_from_db()
    assert (made.state, made.result) == ("failed", {"message": "The tenant is switched off."})


@pytest.mark.parametrize(
    ("more", "code"),
    [({"repetitions": 0}, "bad_repetitions"), ({"repetitions": 21}, "bad_repetitions"), ({"ceiling_micro": 0}, "bad_ceiling")],
)
def test_an_evaluation_has_bounds(world: World, root: Actor, more: dict[str, Any], code: str) -> None:
    assert refused(lambda: start(root, suite_of(root), world, **more)).code == code


def test_an_empty_suite_and_a_foreign_one_are_not_evaluated(world: World, root: Actor) -> None:
    empty, _ = suites.put_suite(root, "empty")
    assert refused(lambda: start(root, empty, world)).code == "empty_suite"
    Tenant.objects.create(slug="bolt")
    theirs = suite_of(root, tenants=("bolt",))
    assert refused(lambda: start(root, theirs, world)).code == "not_for_tenant"
