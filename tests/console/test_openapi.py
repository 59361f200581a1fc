"""The OpenAPI document: valid, whole, and true to what the API answers."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import drf_spectacular
import jsonschema
import pytest
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from console.api import urls as api_urls
from tests.runtime.waiting import make_world, queued, waiting

from .callers import caller

NOT_CALLS = ("schema/", "docs/")  # the document itself, and its page


@cache
def meta() -> dict[str, Any]:
    path = Path(drf_spectacular.__file__).parent / "validation" / "openapi_3_1_schema.json"
    return dict(json.loads(path.read_text()))


def whole() -> dict[str, Any]:
    return dict(json.loads(json.dumps(SchemaGenerator().get_schema(request=None, public=True))))  # type: ignore[no-untyped-call]


def calls(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, call) for path, methods in document["paths"].items() for method, call in methods.items()]


def test_it_is_a_valid_document_of_version_3_1() -> None:
    document = whole()
    assert document["openapi"].startswith("3.1.")
    jsonschema.validate(document, meta())


def test_every_shape_in_it_is_a_schema() -> None:
    shapes = [m["schema"] for _, _, call in calls(whole()) for r in call["responses"].values() for m in r.get("content", {}).values()]
    shapes += [m["schema"] for _, _, call in calls(whole()) for m in call.get("requestBody", {}).get("content", {}).values()]
    assert len(shapes) > 30
    for shape in shapes:
        jsonschema.Draft202012Validator.check_schema(shape)
        assert "$ref" not in json.dumps(shape)  # each stands alone


def test_every_route_is_in_it_and_nothing_else() -> None:
    routes = {"/api/v1/" + re.sub(r"<str:(\w+)>", r"{\1}", str(p.pattern)) for p in api_urls.urlpatterns if str(p.pattern) not in NOT_CALLS}
    assert set(whole()["paths"]) == routes


def test_every_method_of_a_route_is_in_it() -> None:
    documented = {(path, method) for path, method, _ in calls(whole())}
    for pattern in api_urls.urlpatterns:
        if str(pattern.pattern) in NOT_CALLS:
            continue
        path = "/api/v1/" + re.sub(r"<str:(\w+)>", r"{\1}", str(pattern.pattern))
        for method in ("get", "post", "put", "patch", "delete"):
            view = getattr(pattern.callback, "cls", None)
            assert ((path, method) in documented) == hasattr(view, method), (path, method)


def test_every_call_has_a_name_of_its_own_and_says_who_may_make_it() -> None:
    found = [call for _, _, call in calls(whole())]
    names = [call["operationId"] for call in found]
    assert len(set(names)) == len(names)
    assert all({"apiKey": []} in call["security"] and {"session": []} in call["security"] for call in found)


def test_the_parameters_of_an_address_are_declared() -> None:
    for path, _, call in calls(whole()):
        declared = {p["name"] for p in call.get("parameters", []) if p["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), path


@pytest.mark.parametrize("accept", ["application/vnd.oai.openapi+json", "application/json", "application/vnd.oai.openapi", "*/*"])
def test_anyone_who_may_come_in_can_fetch_it(db: None, accept: str) -> None:
    answer = caller(make_world().operator).get("/schema/", Accept=accept)
    assert answer.status_code == 200 and b"submit_run" in answer.content


def test_the_page_lists_every_call(db: None) -> None:
    answer = Client().get("/api/v1/docs/")
    assert answer.status_code == 200
    text = answer.content.decode()
    assert all(path in text for path in whole()["paths"]) and "<script" not in text.split("<main")[1]


@pytest.mark.parametrize(
    "path", ["/runs", "/runs/{run_id}", "/runs/{run_id}/steps", "/runs/{run_id}/events", "/approvals", "/approvals/{approval_id}",
             "/agents", "/agents/{name}", "/tools"],
)  # fmt: skip
def test_what_the_api_answers_has_the_shape_and_the_fields_it_declares(db: None, path: str) -> None:
    world = make_world()
    queued(world)
    run, approval = waiting(world)
    address = path.format(run_id=run.run_id, approval_id=approval.approval_id, name="support-triage")
    answer = caller(world.approver).get(address).json()
    declared = whole()["paths"][f"/api/v1{path}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, declared)
    items, shape = (answer["items"], declared["properties"]["items"]["items"]) if "items" in answer else ([answer], declared)
    assert items or path == "/tools"
    for item in items:
        assert set(item) <= set(shape["properties"]), set(item) - set(shape["properties"])


def test_a_refusal_has_the_shape_it_declares(db: None) -> None:
    answer = caller(make_world().operator).get("/runs/agt_x")
    declared = whole()["paths"]["/api/v1/runs/{run_id}"]["get"]["responses"]["default"]["content"]["application/problem+json"]["schema"]
    jsonschema.validate(answer.json(), declared)
