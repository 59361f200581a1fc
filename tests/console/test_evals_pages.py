"""Suites, cases and scores as pages and over the API."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from runs.evals import scoring, suites
from runs.evals.cases import read
from runs.models import Case, Evaluation, Run, Score, Suite
from tenants.actors import Actor
from tests.runtime.waiting import World, make_world, person, running

from .callers import caller, refusal
from .past import browser, called, ended

pytestmark = pytest.mark.django_db
ONE: dict[str, Any] = {"input": {"text": "I was charged twice"}, "expect": {"required": ["create_ticket"]}}
WRONG = {"input": {"text": "t"}, "expect": {"required": ["a"], "forbidden": ["a"]}}


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def root(world: World) -> Actor:
    return person(world.tenant, "root", "admin", platform=True)


def suite_of(root: Actor, name: str = "triage", n: int = 1, **more: Any) -> Suite:
    made, _ = suites.put_suite(root, name, **more)
    suites.put_cases(root, made, [read(ONE | {"key": f"case-{i}"}) for i in range(n)])
    return made


def text(answer: Any) -> str:
    return str(answer.content.decode())


def scored(world: World) -> Run:
    run = ended(world, timedelta(minutes=5), cost_micro=2000)
    for ord_ in (1, 2):
        called(run, ord=ord_, args=b'{"query": "x"}', result={"ok": True, "found": 1})
    assert scoring.sweep(share=1) == 1
    return run


# pages --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P9.2")
def test_a_suite_is_made_filled_and_read_in_the_console(root: Actor) -> None:
    web = browser(root)
    made = web.post("/evals/", {"name": "triage", "description": "what it is for", "tenants": ["acme"]})
    assert made.headers["Location"] == "/evals/suites/triage/"
    saved = web.post("/evals/suites/triage/new/", {"act": "save", "key": "charged", "case": json.dumps(ONE)})
    assert saved.headers["Location"] == "/evals/suites/triage/cases/charged/"
    page = text(web.get("/evals/suites/triage/"))
    assert "charged" in page and "I was charged twice" in page and "create_ticket" in page and "seen by acme" in page
    web.post("/evals/suites/triage/cases/charged/", {"act": "save", "case": json.dumps(ONE | {"note": "n"})})
    case = text(web.get("/evals/suites/triage/cases/charged/"))
    assert "version 2" in case and "?version=1" in case
    old = text(web.get("/evals/suites/triage/cases/charged/?version=1"))
    assert "version 1, replaced" in old and 'value="save"' not in old
    web.post("/evals/suites/triage/cases/charged/", {"act": "remove"})
    assert "No case yet" in text(web.get("/evals/suites/triage/"))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (json.dumps(WRONG), "expect.required and expect.forbidden: a is in both"),
        ("{", "This is not JSON"),
        ("[]", "Write a JSON object"),
        (json.dumps({"input": {"text": ""}}), "input.text:"),
        (json.dumps(ONE | {"expect": {"answer": [{"judge": "m"}]}}), "A judge model is not supported yet"),
    ],
)
def test_a_case_that_cannot_be_taken_comes_back_with_what_was_written_and_the_error_on_its_field(root: Actor, said: str, told: str) -> None:
    suite_of(root)
    answer = browser(root).post("/evals/suites/triage/new/", {"act": "save", "key": "new", "case": said})
    page = text(answer)
    assert answer.status_code == 422 and told in page and 'aria-invalid="true"' in page and "id_case_error" in page
    assert Case.objects.count() == 1
    taken = browser(root).post("/evals/suites/triage/new/", {"act": "save", "key": "case-0", "case": json.dumps(ONE)})
    assert taken.status_code == 422 and "There is one already." in text(taken)


def test_an_import_names_its_wrong_lines_and_takes_nothing(root: Actor) -> None:
    suite_of(root)
    lines = json.dumps(ONE | {"key": "a"}) + "\n" + json.dumps(WRONG | {"key": "b"})
    answer = browser(root).post("/evals/suites/triage/", {"lines": lines})
    assert answer.status_code == 422 and "Line 2" in text(answer) and Case.objects.count() == 1
    browser(root).post("/evals/suites/triage/", {"lines": json.dumps(ONE | {"key": "a"}), "prune": "1"})
    assert list(suites.current(Suite.objects.get()).values_list("key", flat=True)) == ["a"]


def test_ten_thousand_cases_are_read_a_page_at_a_time(root: Actor, django_assert_max_num_queries: Any) -> None:
    suite = suite_of(root)
    with connection.cursor() as cursor:
        cursor.execute(
            """insert into runs_case (id, suite_id, key, version, since, spec, sha256)
            select gen_random_uuid(), %s, 'c' || n, 1, 1, '{"key": "k", "input": {"text": "t"}}', '' from generate_series(2, 10000) n""",
            [suite.pk],
        )
    web = browser(root)
    with django_assert_max_num_queries(20):
        page = text(web.get("/evals/suites/triage/"))
    assert page.count('scope="col"') and page.count("/evals/suites/triage/cases/") == 50 and "cursor=cas_" in page
    older = page.partition('rel="next" href="')[2].partition('"')[0]
    assert text(web.get(f"/evals/suites/triage/{older}")).count("/evals/suites/triage/cases/") == 50
    assert "I was charged twice" in text(web.get("/evals/suites/triage/?q=charged"))


def test_those_who_are_no_platform_admin_read_and_change_nothing(world: World, root: Actor) -> None:
    suite_of(root)
    admin = browser(person(world.tenant, "adam", "admin"))
    assert "New suite" not in text(admin.get("/evals/"))
    page = text(admin.get("/evals/suites/triage/"))
    assert "case-0" in page and "Import" not in page and "New case" not in page
    assert 'value="save"' not in text(admin.get("/evals/suites/triage/cases/case-0/"))
    for path, said in (
        ("/evals/", {"name": "mine"}), ("/evals/suites/triage/", {"lines": json.dumps(ONE | {"key": "a"})}),
        ("/evals/suites/triage/new/", {"key": "a", "case": json.dumps(ONE)}),
        ("/evals/suites/triage/cases/case-0/", {"act": "remove"}),
    ):  # fmt: skip
        assert admin.post(path, said).status_code == 403
    assert suites.current(Suite.objects.get()).count() == 1


def test_a_suite_of_others_is_a_page_that_does_not_exist(world: World, root: Actor) -> None:
    other = make_world("bolt", "other-agent")
    suite_of(root, "theirs", tenants=("bolt",))
    mine = browser(world.operator)
    for path in ("", "export/", "cases/case-0/"):
        assert mine.get(f"/evals/suites/theirs/{path}").status_code == 404
    assert "theirs" not in text(mine.get("/evals/")) and "theirs" in text(browser(other.operator).get("/evals/"))


@pytest.mark.mission("P9.2")
def test_the_page_of_a_run_that_ended_leads_to_a_case(world: World, root: Actor) -> None:
    run = ended(world, timedelta(minutes=5))
    web = browser(root)
    assert f"/evals/from-run/{run.run_id}/" in text(web.get(f"/runs/{run.run_id}/"))
    assert "Make a case" not in text(browser(world.operator).get(f"/runs/{run.run_id}/"))
    assert "Make a case" not in text(web.get(f"/runs/{running(world).run_id}/"))
    assert "There is no suite" in text(web.get(f"/evals/from-run/{run.run_id}/"))
    suites.put_suite(root, "ours", tenants=("acme",))
    made = web.post(f"/evals/from-run/{run.run_id}/", {"suite": "ours", "key": "from-it"})
    assert made.headers["Location"] == "/evals/suites/ours/cases/from-it/"
    assert run.run_id[-6:] in text(web.get(made.headers["Location"]))
    again = web.post(f"/evals/from-run/{run.run_id}/", {"suite": "ours", "key": "from-it"})
    assert again.status_code == 409 and "has a case from-it already" in text(again)


@pytest.mark.mission("P9.1")
def test_a_score_leads_to_the_step_it_points_at(world: World, root: Actor) -> None:
    run = scored(world)
    web = browser(world.operator)
    front = text(web.get("/evals/"))
    assert "the last 1 scored run" in front and "?check=unnecessary_loop_rate" in front and "50%" in front and "$0.0020" in front
    for query in ("", "?check=unnecessary_loop_rate", f"?run_id={run.run_id}"):
        assert f"/runs/{run.run_id}/?sel=1.2" in text(web.get(f"/evals/scores/{query}"))
    foreign = browser(make_world("bolt", "other-agent").operator)
    for query in ("", f"?run_id={run.run_id}"):
        assert f"/runs/{run.run_id}/" not in text(foreign.get(f"/evals/scores/{query}"))


def test_the_definition_of_every_check_is_a_page(world: World) -> None:
    from runs.evals.checks import CHECKS

    page = text(browser(world.operator).get("/evals/checks/"))
    assert all(f'id="{check.name}"' in page and check.title in page for check in CHECKS)


# API ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P9.2")
def test_suites_and_cases_over_the_api(root: Actor) -> None:
    api = caller(root)
    made = api.put("/suites/triage", {"description": "d"})
    assert made.status_code == 201 and api.put("/suites/triage", {"description": "e"}).status_code == 200
    case = api.put("/suites/triage/cases/a", ONE)
    assert case.status_code == 201 and case.json()["version"] == 1 and case.json()["case"] == ONE | {"key": "a"}
    assert api.put("/suites/triage/cases/a", ONE | {"note": "n"}).json()["version"] == 2
    lines = "".join(json.dumps(ONE | {"key": f"k{i}"}) + "\n" for i in range(3))
    done = api("POST", "/suites/triage/import", raw=lines, content_type="application/x-ndjson")
    assert done.json() == {"created": 3, "updated": 0, "unchanged": 0, "removed": 0}
    page = api.get("/suites/triage/cases?limit=3").json()
    rest = api.get(f"/suites/triage/cases?limit=3&cursor={page['next_cursor']}").json()
    assert [each["key"] for each in [*page["items"], *rest["items"]]] == ["k2", "k1", "k0", "a"] and rest["next_cursor"] is None
    assert api("DELETE", "/suites/triage/cases/k1").status_code == 204 and api.get("/suites/triage").json()["cases"] == 3
    contradiction = api.put("/suites/triage/cases/b", WRONG)
    assert refusal(contradiction) == (422, "contradiction") and contradiction.json()["between"] == ["expect.required", "expect.forbidden"]
    wrong = api("POST", "/suites/triage/import?prune=maybe", raw=lines)
    assert refusal(wrong) == (400, "bad_prune")


def test_an_export_is_what_an_import_takes(root: Actor) -> None:
    from console.eval_records import lines

    suite = suite_of(root, n=450)
    suites.put_suite(root, "copy")
    exported = "".join(lines(root, suite))
    api = caller(root)
    assert api("POST", "/suites/copy/import", raw=exported).json()["created"] == 450
    assert api.get("/suites/copy").json()["sha256"] == api.get("/suites/triage").json()["sha256"]
    answer = api.get("/suites/triage/export")
    assert answer.status_code == 200 and answer["Content-Type"] == "application/x-ndjson"


@pytest.mark.mission("P9.2")
def test_a_release_is_evaluated_over_the_api_and_stopped(world: World, root: Actor) -> None:
    suite_of(root, n=2)
    assert world.agent.live is not None
    api, path = caller(root), f"/releases/{world.agent.live.release_id}/evaluate"
    made = api.post(path, {"suite": "triage", "max_cost_usd": "5", "repetitions": 2})
    assert made.status_code == 202 and (made.json()["total"], made.json()["state"], made.json()["max_cost_usd"]) == (4, "queued", "5")
    assert api.get("/evaluations").json()["items"] == [made.json()]
    one = f"/evaluations/{made.json()['evaluation_id']}"
    assert api.post(f"{one}/cancel", {"reason": "enough"}).json()["state"] == "cancelled"
    assert refusal(api.post(f"{one}/cancel")) == (409, "already_over") and Evaluation.objects.get().state == "cancelled"
    other = person(make_world("bolt", "other-agent").tenant, "bea", "admin")
    assert refusal(caller(other).get(one)) == (404, "not_found") and caller(other).get("/evaluations").json()["items"] == []
    assert refusal(caller(person(world.tenant, "adam", "admin")).post(path, {"suite": "triage", "max_cost_usd": "5"})) == (
        403, "platform_admin_needed")  # fmt: skip
    assert refusal(api.post(path, {"suite": "nobody", "max_cost_usd": "5"})) == (404, "not_found")


def test_scores_over_the_api_are_those_of_the_tenant(world: World, root: Actor) -> None:
    run = scored(world)
    found = caller(world.approver).get("/scores").json()["items"]
    assert [each["run_id"] for each in found] == [run.run_id] and found[0]["measures"]["unnecessary_loop_rate"]["at"] == ["1.2"]
    other = caller(make_world("bolt", "other-agent").approver)
    assert other.get("/scores").json()["items"] == [] and other.get(f"/scores?run_id={run.run_id}").json()["items"] == []
    assert Score.objects.count() == 1 and refusal(caller(root).get("/scores?run_id=x")) == (400, "bad_run_id")


def test_a_case_from_a_run_over_the_api(world: World, root: Actor) -> None:
    suites.put_suite(root, "ours", tenants=("acme",))
    run = ended(world, timedelta(minutes=5))
    made = caller(root).post("/suites/ours/from-run", {"run_id": run.run_id})
    assert made.status_code == 201 and (made.json()["tenant"], made.json()["run_id"]) == ("acme", run.run_id)
