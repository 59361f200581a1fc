"""OpenAPI documents as drafts: what goes where, what is left out, and what is refused."""

import json
from typing import Any

import pytest
import yaml

from tenants.errors import Refused
from tools import places
from tools.imports import documents, openapi
from tools.imports.drafts import Draft
from tools.spec import ToolSpec

BASE = "https://api.example.com/v2"
PET: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "nullable": True, "minimum": 0, "exclusiveMinimum": True},
        "id": {"type": "integer", "readOnly": True},
    },
}


def document(paths: Any, version: str = "3.0.3", **more: Any) -> dict[str, Any]:
    return {"openapi": version, "info": {"title": "Pets", "version": "1"}, "servers": [{"url": BASE}], "paths": paths, **more}


def operation(**fields: Any) -> dict[str, Any]:
    return {"operationId": "op", "responses": {"200": {"description": "ok"}}, **fields}


def body(schema: Any, required: bool = True, kind: str = "application/json") -> dict[str, Any]:
    return {"required": required, "content": {kind: {"schema": schema}}}


def param(name: str, where: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": {"type": "string"}, **more}


def drafted(paths: Any, **more: Any) -> list[Draft]:
    read = documents.read(json.dumps(document(paths, **more)).encode())
    return openapi.drafts(read, "pets", url=openapi.base_url(read))


def one(path: str, method: str, given: dict[str, Any], **more: Any) -> Draft:
    (draft,) = drafted({path: {method: given}}, **more)
    return draft


def spec(draft: Draft) -> ToolSpec:
    assert draft.spec is not None, draft.problem
    return draft.spec


@pytest.mark.mission("P2.1")
@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
@pytest.mark.parametrize("form", [json.dumps, yaml.safe_dump])
def test_an_operation_becomes_one_flat_tool_whose_arguments_go_back_to_their_places(version: str, form: Any) -> None:
    dry = param("dry", "query", schema={"type": "boolean"})
    paths = {"/pets/{id}": {
        "parameters": [param("id", "path"), param("X-Kind", "header")],
        "patch": operation(operationId="update/pet", summary="Change a pet.", parameters=[dry],
                           requestBody=body({"$ref": "#/components/schemas/Pet"})),
    }}  # fmt: skip
    pet = {**PET, "properties": {**PET["properties"], "id": {"type": "string", "readOnly": True}}}
    pet["properties"].pop("age")
    read = documents.read(form(document(paths, version, components={"schemas": {"Pet": pet}})).encode())
    (draft,) = openapi.drafts(read, "pets", url=openapi.base_url(read), credential="key", tenants=("acme",))
    made = spec(draft)
    assert (draft.name, made.effect, made.description, made.credential, made.tenants) == (
        "pets.update_pet", "write", "Change a pet.", "key", ("acme",)
    )  # fmt: skip
    assert set(made.input_schema["properties"]) == {"id", "X-Kind", "dry", "name"}
    assert made.input_schema["required"] == ["id", "name"] and made.input_schema["additionalProperties"] is False
    adapter = made.stored()["adapter"]
    placed = places.put(
        adapter["url"], adapter["method"], adapter["place"], b"", {"id": "a b", "X-Kind": "x", "dry": True, "name": "Rex"}
    )  # fmt: skip
    assert (placed.url, dict(placed.headers), placed.body) == (f"{BASE}/pets/a%20b?dry=true", {"X-Kind": "x"}, b'{"name":"Rex"}')


@pytest.mark.parametrize(
    ("method", "effect"), [("get", "read"), ("head", "read"), ("post", "write"), ("put", "write"), ("delete", "write")]
)
def test_only_get_and_head_are_reads(method: str, effect: str) -> None:
    assert spec(one("/pets", method, operation())).effect == effect


def test_words_of_version_3_0_become_json_schema() -> None:
    made = spec(one("/pets", "post", operation(requestBody=body(PET)))).input_schema["properties"]
    assert made == {"name": {"type": "string", "maxLength": 40}, "age": {"type": ["integer", "null"], "exclusiveMinimum": 0}}


def test_a_field_that_is_called_like_a_keyword_stays_a_field() -> None:
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in ("example", "nullable", "xml")}}
    assert set(spec(one("/pets", "post", operation(requestBody=body(schema)))).input_schema["properties"]) == {"example", "nullable", "xml"}


def test_the_first_good_answer_is_the_output_schema() -> None:
    answers = {"404": {"description": "no"}, "201": {"description": "ok", "content": {"application/json": {"schema": PET}}}}
    output = spec(one("/pets", "get", operation(responses=answers))).output_schema
    assert output is not None and output["required"] == ["name"]


def test_a_schema_that_holds_itself_is_cut_and_says_so() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}, "v": {"type": "integer"}}}
    draft = one("/n", "post", operation(requestBody=body({"$ref": "#/components/schemas/Node"})), components={"schemas": {"Node": node}})
    assert spec(draft).input_schema["properties"]["next"] == {} and "Node holds itself and is cut there" in draft.notes


@pytest.mark.parametrize(
    ("given", "path", "why"),
    [
        (operation(requestBody=body({"$ref": "https://evil.example.com/x.json"})), "/p", "none is fetched"),
        (operation(requestBody=body({"$ref": "other.yaml#/X"})), "/p", "none is fetched"),
        (operation(requestBody=body({"$ref": "#/components/schemas/None"})), "/p", "leads nowhere"),
        (operation(requestBody={"$ref": "#/components/requestBodies/A"}), "/p", "circle"),
        (operation(requestBody=body({"type": "array", "items": {}})), "/p", "not an object"),
        (operation(requestBody=body(PET, kind="text/xml")), "/p", "not JSON"),
        (operation(parameters=[param("name", "query")], requestBody=body(PET)), "/p", "called name"),
        (operation(parameters=[param("s", "cookie", required=True)]), "/p", "cookies are never sent"),
        (operation(parameters=[param("f", "query", style="deepObject")]), "/p", "style"),
        (operation(parameters=[]), "/p/{id}", "path"),
        (operation(operationId="p\u0435t"), "/p", "name"),
        (operation(operationId="x" * 80), "/p", "longer than"),
    ],
)
def test_what_cannot_be_a_tool_says_why(given: dict[str, Any], path: str, why: str) -> None:
    circle = {"requestBodies": {"A": {"$ref": "#/components/requestBodies/A"}}}
    draft = one(path, "post", given, components=circle)
    assert draft.spec is None and why in draft.problem


def test_a_credential_is_no_argument() -> None:
    draft = one("/p", "get", operation(parameters=[param("Authorization", "header"), param("Cookie", "header"), param("q", "query")]))
    assert set(spec(draft).input_schema["properties"]) == {"q"}
    assert "Authorization is left out: this header is not a model's to fill" in draft.notes


def test_references_that_multiply_are_bounded() -> None:
    schemas = {
        f"S{n}": {"type": "object", "properties": {c: {"$ref": f"#/components/schemas/S{n + 1}"} for c in "abcdefgh"}} for n in range(9)
    }
    schemas["S9"] = {"type": "object"}
    draft = one("/p", "post", operation(requestBody=body({"$ref": "#/components/schemas/S0"})), components={"schemas": schemas})
    assert draft.spec is None and "more than" in draft.problem


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{" + b'"a":{' * 100 + b"}" * 101, "bad_openapi"),
        (b"- " * 100, "bad_openapi"),
        (b"a: &x [1]\nb: *x\n", "bad_openapi"),
        (b"\xff\xfe", "bad_openapi"),
        (b"[]", "bad_openapi"),
        (b'{"swagger": "2.0"}', "not_supported"),
        (b'{"openapi": "3.2.0"}', "not_supported"),
        (b'{"openapi": "3.1.0", "paths": {}}', "bad_openapi"),
        (b" " * (documents.MAX_BYTES + 1), "document_too_large"),
        (b"!!python/object/apply:os.system ['true']", "bad_openapi"),
    ],
)
def test_what_is_no_document_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        documents.read(raw)
    assert caught.value.code == code


@pytest.mark.parametrize("url", ["", "/v1", "ftp://a/", "https://user:pass@a/", "https://{host}/", "https://a/?x=1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Refused) as caught:
        openapi.base_url({"servers": [{"url": url}]})
    assert caught.value.code == "bad_url"
    assert openapi.base_url({"servers": [{"url": url}]}, "https://api.example.com/") == "https://api.example.com"
