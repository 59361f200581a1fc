"""Releases as pages: how far one got, what differs, what it wrote; forks and evaluations."""

import json
import re
from typing import Any

import pytest
from django.test import Client

from console.models import Incident
from runs import canaries, stages
from runs.models import Agent, Call, Case, Evaluation, Release, Rollout, Run, RunInput, Score, Step, Suite
from tests.runtime.waiting import make_world, person

from .past import browser, called
from .release_world import Desk, accepted, canary, ended, make_desk, with_a_write

pytestmark = pytest.mark.mission("P12.1", "P12.2")


@pytest.fixture
def desk(db: None) -> Desk:
    return make_desk()


@pytest.fixture
def client(desk: Desk) -> Client:
    return browser(desk.root)


def text(client: Client, address: str, status: int = 200) -> str:
    answer = client.get(address)
    assert answer.status_code == status, address
    return re.sub(r"\s+", " ", answer.content.decode())


def page(release: Release, rest: str = "") -> str:
    return f"/releases/{release.release_id}/{rest}"


def test_the_list_shows_what_is_live_and_what_is_under_way(desk: Desk, client: Client) -> None:
    rollout = canary(desk)
    found = text(client, "/releases/")
    assert f'href="{page(desk.live)}">r{desk.live.number}</a>' in found and "r4 canary at 50%" in found
    assert "Ended" not in found
    stages.end(desk.root, rollout, "ended")
    assert "Ended" in text(client, "/releases/")
    assert 'aria-current="page"' in found and ">Releases<" in found


def test_promote_is_disabled_with_the_reason_beside_it(desk: Desk, client: Client) -> None:
    canary(desk, enough=200)
    ended(desk, desk.live, 200)
    ended(desk, desk.candidate, 143)
    canaries.look()
    found = text(client, page(desk.candidate))
    assert 'disabled aria-describedby="objection"' in found and "needs 200 runs, has 143" in found and "do/promote/?override=1" in found
    assert "do/rollback/" in found and re.search(r"Steps per run</th><td[^>]*>3.00</td><td[^>]*>3.00</td><td[^>]*>the same", found)
    stages.end(desk.root, Rollout.objects.get(), "ended")
    assert 'href="' + page(desk.candidate, "do/promote/") + '"' in text(client, page(desk.candidate))


def test_a_second_person_overrides(desk: Desk, client: Client) -> None:
    canary(desk)
    there, said = page(desk.candidate, "do/promote/"), {"override": "1", "reason": "one word"}
    assert "Two people have to say so" in text(client, f"{there}?override=1")
    answer = client.post(there, said)
    assert answer.status_code == 422 and "needs a second person" in answer.content.decode()
    second = browser(desk.second)
    assert "root asks for it" in text(second, page(desk.candidate))
    assert second.post(there, said)["Location"] == page(desk.candidate)
    assert Agent.objects.get(pk="support-triage").live_id == desk.candidate.id


@pytest.mark.parametrize(("in_flight", "state"), [("finish", "queued"), ("stop", "cancelled")])
def test_rolling_back_asks_about_runs_in_flight_and_leads_to_what_was_written(
    desk: Desk, client: Client, in_flight: str, state: str
) -> None:
    run = with_a_write(desk, desk.live)
    [going] = accepted(desk, desk.live, 1)
    there = page(desk.live, "do/rollback/")
    assert re.search(r"Stop: \d runs? (is|are) cancelled", text(client, there))
    answer = client.post(there, {"in_flight": in_flight, "reason": "it loops"})
    assert answer["Location"] == page(desk.live, "writes/")
    assert Agent.objects.get(pk="support-triage").live_id == desk.first.id and Run.objects.get(pk=going.pk).state == state
    assert f'value="{run.run_id}.1.1"' in text(client, answer["Location"])


def test_chosen_writes_are_undone_and_what_came_of_each_is_shown(desk: Desk, client: Client) -> None:
    run, other = with_a_write(desk, desk.candidate), with_a_write(desk, desk.candidate)
    there = page(desk.candidate, "writes/")
    assert client.post(there, {"reason": "x"}).status_code == 422 and client.post(there, {"calls": ["a"]}).status_code == 422
    answer = client.post(there, {"calls": [f"{run.run_id}.1.1", f"{other.run_id}.7.7"], "reason": "it was wrong"})
    shown = answer.content.decode()
    assert "There is no such call." in shown and "A run undoes it" in shown and "Being undone" in shown
    assert client.post(there, {"calls": [f"{other.run_id}.1.1"], "reason": "it was wrong"})["Location"] == there
    assert browser(desk.world.operator).get(there).status_code == 200
    assert other.run_id not in browser(person(make_world("globex", "other").tenant, "gus", "admin")).get(there).content.decode()


def test_shadow_and_canary_are_started_from_their_forms_and_moved(desk: Desk, client: Client) -> None:
    there = page(desk.candidate, "do/canary/")
    assert client.post(there, {"steps": "50 20", "key": "user", "enough": 10}).status_code == 422
    assert client.post(there, {"steps": "5 25", "key": "user", "enough": 10})["Location"] == page(desk.candidate)
    assert client.post(page(desk.candidate, "do/shadow/"), {"share": "10", "reads": "both", "max_cost_usd": "1.5"}).status_code == 302
    made = {one.kind: one for one in Rollout.objects.all()}
    assert made["canary"].steps == [0.05, 0.25] and (made["shadow"].share, made["shadow"].max_cost_micro) == (0.1, 1_500_000)
    at = f"/rollouts/{made['canary']}/"
    assert client.post(at, {"act": "share", "share": "200"}).status_code == 422
    for act, more in (("share", {"share": "25"}), ("hold", {}), ("resume", {}), ("end", {})):
        assert client.post(at, {"act": act, **more}).status_code == 302
    assert Rollout.objects.get(kind="canary").state == "ended" and Rollout.objects.get(kind="canary").share == 0.25
    assert "Promoted" not in text(client, at) and client.post(at, {"act": "burn"}).status_code == 404


def test_a_shadow_is_shown_beside_its_real_run_with_its_extra_writes(desk: Desk, client: Client) -> None:
    rollout = stages.shadow(desk.root, desk.candidate, share=1.0)
    [base], [shadow] = ended(desk, desk.live, 1), ended(desk, desk.candidate, 1, steps=5, mode="shadow")
    RunInput.objects.filter(pk=shadow.pk).update(rehearsal={"kind": "shadow", "of": str(base.id), "rollout": str(rollout.id)})
    called(base, 1, "search_docs", args=b"{}")
    kept = {"tenant_id": shadow.tenant_id, "fence": 1, "args": b"{}", "result": {}, "state": "blocked", "error_class": "rehearsed"}
    for number, name, effect in ((1, "search_docs", "read"), (2, "create_ticket", "write")):
        Call.objects.create(run=shadow, step=1, ord=number, name=name, effect=effect, **kept)
    found = text(client, f"/rollouts/{rollout}/shadows/")
    assert "0 changed, 0 less, 1 more" in found and re.search(r"create_ticket 1.2</span>", found)
    assert "1 of 1 took another path" in found and "means over 1 pair; 1 extra write" in found and "+66.7%" in found
    assert f"/compare/runs/?a={base.run_id}&amp;b={shadow.run_id}" in found
    assert "This run changes nothing." in text(client, f"/runs/{shadow.run_id}/") and "Shadow of" in text(client, f"/runs/{shadow.run_id}/")
    runs = text(client, "/runs/")
    assert base.run_id in runs and shadow.run_id not in runs
    assert shadow.run_id in text(client, "/runs/?mode=shadow") and base.run_id in text(client, "/runs/?mode=any")


def test_a_difference_is_shown_word_by_word(desk: Desk, client: Client) -> None:
    found = text(client, page(desk.candidate, f"diff/?with={desk.live.release_id}"))
    assert re.search(r"<del>.*Two\.</del><ins>.*Three\.</ins>", found)
    assert "They hold the same." in text(client, page(desk.candidate, f"diff/?with={desk.candidate.release_id}"))


# a new release ----------------------------------------------------------------------------------------------------------------


def fields(client: Client, release: Release) -> dict[str, Any]:
    form = client.get(page(release, "new/")).context["form"]
    return {name: form[name].value() or "" for name in form.fields} | {"tools": form["tools"].value()}


def test_a_release_is_drafted_shown_and_published_and_nothing_goes_live(desk: Desk, client: Client) -> None:
    there, said = page(desk.live, "new/"), fields(client, desk.live)
    said |= {"instructions": "Two, and briefly.", "max_steps": "3", "tools": ["search_docs"]}
    shown = client.post(there, said | {"act": "show"})
    body = shown.content.decode()
    assert shown.status_code == 200 and "instructions, 1 tool, 1 limit" in body and "tighter" in body
    assert not Release.objects.filter(number=desk.candidate.number + 1).exists(), "showing publishes nothing"
    made = client.post(there, said | {"act": "publish"})
    release = Release.objects.get(number=desk.candidate.number + 1)
    assert made["Location"] == page(release) and release.created_by == desk.root.user
    assert (release.spec["instructions"], release.spec["tools"]) == ("Two, and briefly.", ["search_docs"])
    expected = json.loads(json.dumps(desk.live.spec)) | {"instructions": "Two, and briefly.", "tools": ["search_docs"]}
    expected["budget"]["max_steps"] = 3
    assert release.spec == expected and Agent.objects.get(pk="support-triage").live_id == desk.live.id


@pytest.mark.parametrize(
    ("change", "part"),
    [({"max_steps": "0"}, "max_steps"), ({"instructions": ""}, "instructions"), ({"max_steps": "many"}, "max_steps")],
)
def test_what_no_release_can_hold_is_told_at_its_field(desk: Desk, client: Client, change: dict[str, str], part: str) -> None:
    answer = client.post(page(desk.live, "new/"), fields(client, desk.live) | change | {"act": "publish"})
    assert answer.status_code == 422 and part in answer.context["form"].errors
    assert f'id="id_{part}_error"' in answer.content.decode()
    assert Release.objects.count() == desk.candidate.number


def test_the_whole_block_is_edited_as_json(desk: Desk, client: Client) -> None:
    there = page(desk.live, "new/")
    assert "Two." in text(client, f"{there}?as=json")
    for block, word in (("{", "not JSON"), ("[]", "JSON object"), ('{"instructions": "x"}', "models"), ("{}", "instructions")):
        answer = client.post(there, {"as": "json", "act": "publish", "block": block})
        assert answer.status_code == 422 and word in str(answer.context["form"].errors["block"])
    block = json.dumps(desk.live.spec | {"tools": ["launch_rocket"]})
    assert "launch_rocket" in client.post(there, {"as": "json", "act": "show", "block": block}).content.decode()


@pytest.mark.parametrize("rest", ["new/", "do/promote/", "do/rollback/", "do/canary/"])
def test_only_a_platform_admin_gets_the_forms(desk: Desk, rest: str) -> None:
    for actor in (desk.admin, desk.world.operator):
        assert browser(actor).get(page(desk.candidate, rest)).status_code == 403
        assert "do/promote/" not in text(browser(actor), page(desk.candidate))


# forks ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X9")
def test_a_run_is_forked_from_its_page_with_a_changed_result(desk: Desk, client: Client) -> None:
    run = with_a_write(desk, desk.live)
    Step.objects.create(run=run, step=1, tenant_id=run.tenant_id, role="planner", model="primary", calls=1)
    Step.objects.create(run=run, step=2, tenant_id=run.tenant_id, role="planner", model="primary", calls=1)
    assert f"/runs/{run.run_id}/fork/" in text(client, f"/runs/{run.run_id}/")
    there = f"/runs/{run.run_id}/fork/?step=2"
    assert "1.1 create_ticket" in text(client, there) and "{}" in text(client, f"{there}&call=1.1")
    said = {"step": "2", "input": "And now?", "call": "1.1", "result": '{"ok": false}', "reads": "both", "writes": "recorded"}
    answer = client.post(there, said)
    made = Run.objects.get(mode="fork")
    assert answer["Location"] == f"/runs/{made.run_id}/" and Call.objects.get(run_id=made.id).result == {"ok": False}
    shown = text(client, answer["Location"])
    assert "at step 2" in shown and "This run changes nothing." in shown and f"a={run.run_id}&amp;b={made.run_id}" in shown


@pytest.mark.mission("X9")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"step": "9"}, "step"), ({"result": "{"}, "result"), ({"call": "1.1", "result": ""}, "result"), ({"result": "{}"}, "call"),
        ({"call": "9.9"}, "call"), ({"writes": "some"}, "writes"), ({"call": "1.1", "result": "{}", "step": "1"}, "call"),
    ],
)  # fmt: skip
def test_a_fork_that_cannot_be_is_refused_at_its_field(desk: Desk, client: Client, change: dict[str, str], field: str) -> None:
    run = with_a_write(desk, desk.live)
    Step.objects.create(run=run, step=1, tenant_id=run.tenant_id, role="planner", model="primary", calls=1)
    said = {"step": "2", "input": run.asked.text, "reads": "both", "writes": "recorded"} | change
    answer = client.post(f"/runs/{run.run_id}/fork/", said)
    assert answer.status_code == 422 and field in answer.context["form"].errors and not Run.objects.filter(mode="fork").exists()


@pytest.mark.mission("X9")
def test_a_viewer_does_not_fork(desk: Desk) -> None:
    run = with_a_write(desk, desk.live)
    viewer = browser(person(desk.world.tenant, "vera", "viewer"))
    assert viewer.get(f"/runs/{run.run_id}/fork/").status_code == 403
    assert "/fork/" not in text(viewer, f"/runs/{run.run_id}/")


# evaluations ------------------------------------------------------------------------------------------------------------------


def suite_of(desk: Desk) -> Suite:
    suite = Suite.objects.create(name="refunds", revision=1)
    expect = {"required": ["search_docs", "create_ticket"], "forbidden": ["delete_account"], "order": [["search_docs", "create_ticket"]]}
    spec = {"key": "one", "input": {"text": "x"}, "tools": {"how": "simulated", "given": []}, "expect": expect}
    Case.objects.create(suite=suite, key="one", version=1, spec=spec, sha256="0" * 64, since=1, tenant=desk.world.tenant)
    return suite


@pytest.mark.mission("P9.2")
def test_an_evaluation_is_started_from_a_release_and_cancelled(desk: Desk, client: Client) -> None:
    suite_of(desk)
    there = f"/evals/evaluations/?release={desk.candidate.release_id}"
    assert "Run a suite against" in text(client, there) and "Run a suite against" not in text(client, "/evals/evaluations/")
    said = {"suite": "refunds", "tenant": desk.world.tenant.slug, "repetitions": "2", "max_cost_usd": "1"}
    assert client.post(there, said | {"max_cost_usd": "0"}).status_code == 422
    at = client.post(there, said)["Location"]
    made = Evaluation.objects.get()
    assert (made.total, made.ceiling_micro, made.release) == (2, 1_000_000, desk.candidate)
    assert "0 of 2" in text(client, at) and "refunds: 0 of 2 runs" in text(client, page(desk.candidate))
    assert client.post(at).status_code == 302 and Evaluation.objects.get().state == "cancelled"
    assert browser(desk.admin).post(there, said).status_code in (403, 404)


@pytest.mark.mission("P9.2")
def test_results_have_intervals_and_paths_beside_what_was_expected(desk: Desk, client: Client) -> None:
    suite = suite_of(desk)
    made = Evaluation.objects.create(
        suite=suite, revision=1, suite_sha256="0" * 64, release=desk.candidate, tenant=desk.world.tenant, ceiling_micro=1_000_000, total=4,
        done=4, repetitions=4, state="done", started_by=desk.root.user, result={"runs": 4, "passed": 3},
    )  # fmt: skip
    runs = ended(desk, desk.candidate, 4, mode="eval")
    for number, run in enumerate(runs, 1):
        failing = ["required"] if number == 1 else []
        Score.objects.create(
            tenant=desk.world.tenant, run_id=run.id, evaluation=made, case=suite.cases.get(), repetition=number, checks_version=1,
            measures={"steps": {"value": 2 + number, "at": []}}, failing=failing,
        )  # fmt: skip
    called(runs[0], 1, "search_docs")
    called(runs[0], 2, "delete_account")
    found = text(client, f"/evals/evaluations/{made}/")
    assert "75" in found and "30.1% to 95.4%" in found and "1 of 4 failed" in found
    assert "not called" in found and "forbidden" in found and found.index("forbidden") < found.index("passed<")
    shown = text(client, f"/runs/{runs[0].run_id}/")
    assert "Case one of suite refunds" not in shown, "it was no rehearsal"
    RunInput.objects.filter(pk=runs[0].pk).update(rehearsal={"kind": "eval"})
    assert "Case one of suite refunds" in text(client, f"/runs/{runs[0].run_id}/")


def test_every_page_is_there_for_who_sees_the_agent_and_for_nobody_else(desk: Desk) -> None:
    rollout = canary(desk)
    addresses = [page(desk.candidate), page(desk.candidate, "diff/"), page(desk.candidate, "writes/"), f"/rollouts/{rollout}/",
                 "/agents/support-triage/releases/"]  # fmt: skip
    viewer = browser(person(desk.world.tenant, "vera", "viewer"))
    stranger = browser(person(make_world("globex", "other").tenant, "gus", "admin"))
    Agent.objects.filter(pk="support-triage").update(tenants=[desk.world.tenant.slug])
    for address in addresses:
        assert viewer.get(address).status_code == 200 and stranger.get(address).status_code == 404, address
    assert not Incident.objects.filter(detector="release_guard").exists()
