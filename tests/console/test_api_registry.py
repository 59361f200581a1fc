"""Tools, agents, releases and whole documents over the API: who sees them, who changes them, and what is refused."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from console import document
from runs.models import Agent, ModelDefinition, Release
from tenants.models import AuditEntry, EgressAllow, Tenant
from tests.runtime.waiting import make_world, person
from tools.models import Tool, ToolVersion

from .callers import Caller, caller, refusal

TOOL: dict[str, Any] = {
    "adapter": {"kind": "http", "url": "https://desk.example.com/tickets"},
    "description": "Open a ticket.",
    "effect": "write",
    "idempotency": "key",
    "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False},
}
RELEASE: dict[str, Any] = {"instructions": "Help.", "tools": ["create_ticket"], "models": {"planner": {"model": "primary"}}}
DOCUMENT: dict[str, Any] = {
    "tenants": [{"slug": "initech"}],
    "models": [{"name": "primary", "provider": "openai", "base_url": "https://models.example.com/v1", "model": "m"}],
    "tools": [{"name": "create_ticket", **TOOL}],
    "permissions": [{"tool": "create_ticket", "decision": "ask"}],
    "agents": [{"name": "clerk", "release": RELEASE}],
}


@dataclass
class Desk:
    platform: Caller
    admin: Caller
    viewer: Caller
    stranger: Caller


@pytest.fixture
def desk(db: None) -> Desk:
    acme = make_world().tenant
    globex = Tenant.objects.create(slug="globex")
    return Desk(
        platform=caller(person(acme, "root", "admin", platform=True)),
        admin=caller(person(acme, "ada", "admin")),
        viewer=caller(person(acme, "vera", "viewer")),
        stranger=caller(person(globex, "grace", "admin")),
    )


@pytest.fixture
def applied(desk: Desk) -> Desk:
    assert desk.platform.post("/config/apply", DOCUMENT).status_code == 200
    return desk


# -- tools ------------------------------------------------------------------------------------------------------------------


def test_a_tool_is_made_changed_and_read(desk: Desk) -> None:
    made = desk.platform.put("/tools/create_ticket", TOOL)
    same = desk.platform.put("/tools/create_ticket", TOOL)
    changed = desk.platform.put("/tools/create_ticket", TOOL | {"timeout_s": 3})
    assert [(a.status_code, a.json()["changed"], a.json()["version"]) for a in (made, same, changed)] == [
        (201, True, 1), (200, False, 1), (200, True, 2),
    ]  # fmt: skip
    got = desk.viewer.get("/tools/create_ticket").json()
    assert (got["name"], got["effect"], got["timeout_s"], got["enabled"]) == ("create_ticket", "write", 3, True)
    assert desk.viewer.get("/tools").json() == {"items": [got], "next_cursor": None}


@pytest.mark.parametrize(
    ("change", "status", "code", "part"),
    [
        ({"input_schema": {"type": "strong"}}, 422, "bad_schema", "input_schema"),
        ({"input_schema": {"type": "object", "properties": {"a": {"pattern": "("}}}}, 422, "bad_schema", "input_schema"),
        ({"output_schema": {"$ref": "https://example.com/x.json"}}, 422, "bad_schema", "output"),
        ({"input_schema": [1]}, 422, "validation", "input_schema"),
        ({"adapter": {"kind": "http", "url": "http://10.0.0.7/x"}}, 422, "egress_refused", "10.0.0.7:80"),
        ({"adapter": {"kind": "http", "url": "http://169.254.169.254/latest"}}, 422, "egress_refused", "169.254"),
        ({"adapter": {"kind": "http", "url": "http://[::1]:8080/x"}}, 422, "egress_refused", "[::1]:8080"),
        ({"adapter": {"kind": "http", "url": "http://0x7f000001/x"}}, 422, "egress_refused", "127.0.0.1:80"),
        ({"adapter": {"kind": "http", "url": "http://host:99999999/x"}}, 422, "validation", "adapter"),
        ({"adapter": {"kind": "http", "url": "file:///etc/passwd"}}, 422, "validation", "http"),
        ({"adapter": {"kind": "python", "name": "os.system"}}, 422, "validation", "adapter"),
        ({"adapter": {"kind": "mcp", "server": "s", "tool": "t"}}, 422, "unknown_server", "mcp_servers"),
        ({"preview": {"a": 1}}, 422, "validation", "preview"),
        (
            {"preview": {"adapter": {"kind": "http", "url": "http://10.0.0.7/x"}, "before": {"a": "1"}}},
            422,
            "egress_refused",
            "10.0.0.7:80",
        ),
        ({"compensate": {"tool": "create_ticket"}}, 422, "bad_compensation", "itself"),
        ({"retry": {"max_attempts": "many"}}, 422, "validation", "retry"),
        ({"retry": {"backoff_ms": {}}}, 422, "validation", "retry"),
        ({"speed": 1}, 422, "validation", "speed"),
        ({"effect": "erase"}, 422, "validation", "effect"),
        ({"tenants": [1]}, 422, "validation", "tenants"),
    ],
)
def test_a_tool_that_cannot_be_used_is_refused_with_the_reason(
    desk: Desk, change: dict[str, Any], status: int, code: str, part: str
) -> None:
    answer = desk.platform.put("/tools/create_ticket", TOOL | change)
    assert refusal(answer) == (status, code) and part in answer.json()["detail"]
    assert Tool.objects.count() == ToolVersion.objects.count() == 0


@pytest.mark.mission("P2.2")
def test_what_the_lint_says_is_part_of_a_tools_record(desk: Desk) -> None:
    loose = TOOL | {"input_schema": {"type": "object", "properties": {"note": {"type": "string"}}, "required": ["note"]}}
    made = desk.platform.put("/tools/create_ticket", loose).json()
    assert [(f["severity"], f["code"], f["path"]) for f in made["lint"]] == [
        ("warning", "open_object", "/input_schema/additionalProperties"),
        ("warning", "unbounded_text", "/input_schema/properties/note"),
        ("warning", "no_output_schema", "/output_schema"),
    ]
    assert all(set(f) == {"code", "severity", "path", "message"} and f["message"] for f in made["lint"])
    assert desk.viewer.get("/tools/create_ticket").json()["lint"] == made["lint"]


@pytest.mark.mission("P2.2")
def test_applying_a_document_answers_what_the_lint_says_of_each_tool(desk: Desk) -> None:
    for dry_run in ("?dry_run=true", "", ""):  # the third time nothing changes, and the tools are as loose as before
        body = desk.platform.post(f"/config/apply{dry_run}", DOCUMENT).json()
        (told,) = [change for change in body["changes"] if change["kind"] == "tool"]
        assert {f["code"] for f in told["lint"]} == {"nothing_required", "no_output_schema", "unbounded_number"}
        assert body["lint"] == {"error": 0, "warning": 3, "info": 0}
        assert all("lint" not in change for change in body["changes"] if change["kind"] != "tool")


def test_a_private_address_is_fine_once_it_is_listed(desk: Desk) -> None:
    EgressAllow.objects.create(host_port="10.0.0.7:80")
    assert desk.platform.put("/tools/x", TOOL | {"adapter": {"kind": "http", "url": "http://10.0.0.7/x"}}).status_code == 201


@pytest.mark.parametrize("name", ["a b", "é", "x" * 65, "-", "%2e%2e", "7up"])
def test_a_tool_has_a_name_that_models_can_say(desk: Desk, name: str) -> None:
    assert refusal(desk.platform.put(f"/tools/{name}", TOOL)) == (422, "validation")


@pytest.mark.parametrize("path", ["/tools/create_ticket", "/agents/clerk"])
def test_what_a_tenant_may_not_see_does_not_exist_for_it(applied: Desk, path: str) -> None:
    assert applied.stranger.get(path).status_code == 200
    body = {"tenants": ["acme"]} | (TOOL if "tools" in path else {})
    assert applied.platform.put(path, body).status_code == 200
    assert refusal(applied.stranger.get(path)) == (404, "not_found")
    listed = applied.stranger.get(path.rpartition("/")[0]).json()["items"]
    assert path.rpartition("/")[2] not in [item["name"] for item in listed]
    assert applied.viewer.get(path).json()["tenants"] == ["acme"]


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/tools/create_ticket", TOOL | {"timeout_s": 1}),
        ("PUT", "/agents/clerk", {"tenants": ["acme"]}),
        ("POST", "/agents/clerk/releases", RELEASE | {"instructions": "Other."}),
        ("POST", "/releases/{live}/rollback", None),
        ("POST", "/config/apply", DOCUMENT | {"tenants": [{"slug": "hooli"}]}),
    ],
)
def test_installation_objects_are_changed_by_platform_admins_only(applied: Desk, method: str, path: str, body: Any) -> None:
    before = AuditEntry.objects.count()
    path = path.format(live=Release.objects.get(agent="clerk").release_id)
    assert refusal(applied.admin(method, path, body)) == (403, "platform_admin_needed")
    assert refusal(applied.viewer(method, path, body)) == (403, "scope_missing")
    assert AuditEntry.objects.count() == before


# -- agents and releases ----------------------------------------------------------------------------------------------------


def test_an_agent_is_made_and_read(desk: Desk) -> None:
    made, same = desk.platform.put("/agents/clerk"), desk.platform.put("/agents/clerk", {})
    assert (made.status_code, same.status_code) == (201, 200)
    assert made.json() == {"name": "clerk", "tenants": [], "live": None, "releases": []}
    assert "clerk" in [a["name"] for a in desk.viewer.get("/agents").json()["items"]]
    assert refusal(desk.viewer.get("/agents/nobody")) == (404, "not_found")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("clerk", {"tenants": "acme"}), ("clerk", {"tenants": [{}]}), ("clerk", {"tenants": [None, 1]}), ("clerk", {"release": RELEASE}),
        ("clerk", [1]), ("clerk", "x"), ("Clerk", {}), ("x" * 65, {}), ("a b", {}),
    ],
)  # fmt: skip
def test_an_agent_of_another_form_is_refused(desk: Desk, name: str, body: Any) -> None:
    assert refusal(desk.platform.put(f"/agents/{name}", body)) == (422, "validation")
    assert not Agent.objects.filter(name=name).exists()


@pytest.mark.mission("P12.1")
def test_releases_are_made_promoted_and_rolled_back(applied: Desk) -> None:
    api = applied.platform
    first = api.get("/agents/clerk").json()["live"]
    made = api.post("/agents/clerk/releases", RELEASE | {"instructions": "Help better."})
    wrapped = api.post("/agents/clerk/releases", {"release": RELEASE | {"instructions": "Help better."}})
    second = made.json()
    assert (made.status_code, second["number"], second["live"]) == (201, 2, False)
    assert wrapped.status_code == 200 and wrapped.json()["release_id"] == second["release_id"]
    promoted = api.post(f"/releases/{second['release_id']}/promote").json()
    assert promoted["live"]["release_id"] == second["release_id"] and promoted["live"]["live"] is True
    assert promoted["releases"] == [second["release_id"], first["release_id"]]
    assert api.post(f"/releases/{second['release_id']}/promote").status_code == 200
    back = api.post(f"/releases/{second['release_id']}/rollback").json()
    assert back["live"]["release_id"] == first["release_id"]
    assert refusal(api.post(f"/releases/{second['release_id']}/rollback")) == (409, "not_live")
    assert refusal(api.post(f"/releases/{first['release_id']}/rollback")) == (409, "no_previous_release")


def test_a_release_or_verb_that_is_none_is_absent(applied: Desk) -> None:
    live = Release.objects.get(agent="clerk").release_id
    for path in ("/releases/rel_x/promote", f"/releases/{live.replace('rel_', 'agt_')}/promote", f"/releases/{live}/explode"):
        assert refusal(applied.platform.post(path)) == (404, "not_found")
    assert refusal(applied.platform.post("/agents/nobody/releases", RELEASE)) == (404, "not_found")


@pytest.mark.parametrize(
    ("change", "code", "part"),
    [
        ({"tools": ["create_ticket", "launch_rocket"]}, "unknown_tool", "launch_rocket"),
        ({"tools": ["create_ticket", "create_ticket"]}, "validation", "twice"),
        ({"models": {"planner": {"model": "oracle"}}}, "unknown_model", "oracle"),
        ({"models": {"planner": {"model": "primary"}, "critique": {"model": "oracle"}}}, "unknown_model", "oracle"),
        ({"models": {"planner": {"model": "primary"}, "synthesis": {"model": "primary", "when": "run.nothing("}}}, "bad_condition", ""),
        ({"ladder": [{"on": "budget", "do": "fewer_steps"}]}, "validation", "needs max"),
        ({"memory": {"session": False}}, "validation", "memory"),
        ({"tools": ["memory_read"]}, "validation", "comes with memory"),
        ({"budget": {"max_steps": 0}}, "validation", "max_steps"),
        ({"budget": {"max_cost_usd": "a lot"}}, "validation", "max_cost_usd"),
        ({"deadlines": {"run_s": -1}}, "validation", "run_s"),
        ({"temperature": 1}, "validation", "temperature"),
        ({"instructions": ""}, "validation", "instructions"),
    ],
)
def test_a_release_that_cannot_run_is_refused_with_the_reason(applied: Desk, change: dict[str, Any], code: str, part: str) -> None:
    answer = applied.platform.post("/agents/clerk/releases", RELEASE | change)
    assert refusal(answer) == (422, code) and part in answer.json()["detail"]
    assert Release.objects.filter(agent="clerk").count() == 1


# -- documents --------------------------------------------------------------------------------------------------------------


def actions(answer: Any) -> dict[str, str]:
    assert answer.status_code == 200, answer.content
    return {f"{c['kind']} {c['name']}": c["action"] for c in answer.json()["changes"]}


@pytest.mark.parametrize("kind", ["application/json", "application/yaml", "text/plain"])
def test_json_and_yaml_say_the_same(desk: Desk, kind: str) -> None:
    text = json.dumps(DOCUMENT) if kind == "application/json" else yaml.safe_dump(DOCUMENT)
    answer = desk.platform("POST", "/config/apply", raw=text, content_type=kind)
    assert actions(answer) == {
        "tenant initech": "create", "model primary": "create", "tool create_ticket": "create", "agent clerk": "create",
        "release clerk r1": "create", "permission create_ticket x every tenant x every agent": "create",
    }  # fmt: skip
    again = desk.platform.post("/config/apply", DOCUMENT)
    assert set(actions(again).values()) == {"unchanged"}


def test_a_dry_run_tells_and_changes_nothing(desk: Desk) -> None:
    before = AuditEntry.objects.count()
    answer = desk.platform.post("/config/apply?dry_run=true", DOCUMENT)
    assert answer.json()["dry_run"] is True and "create" in actions(answer).values()
    assert (ModelDefinition.objects.count(), Tool.objects.count(), AuditEntry.objects.count()) == (0, 0, before)


@pytest.mark.parametrize("query", ["dry_run=yes", "dry_run=", "dry_run=True", "prune=1"])
def test_a_flag_that_is_neither_true_nor_false_applies_nothing(desk: Desk, query: str) -> None:
    assert refusal(desk.platform.post(f"/config/apply?{query}", DOCUMENT))[0] == 400
    assert Tool.objects.count() == 0


def test_an_unknown_key_is_refused_by_its_path(desk: Desk) -> None:
    answer = desk.platform.post("/config/apply", {"tools": [{"name": "x", "colour": "red", **TOOL}], "toolz": []})
    assert refusal(answer) == (422, "bad_document")
    assert {e["path"] for e in answer.json()["errors"]} >= {"tools[0].colour", "toolz"}


def at(pattern: str) -> dict[str, Any]:
    """The applied document with this known, unbuilt key in its place."""
    wanted = json.loads(json.dumps(DOCUMENT))
    holder, keys = wanted, pattern.split(".")
    for key in keys[:-1]:
        holder = holder.setdefault(key[:-2], [{}])[0] if key.endswith("[]") else holder.setdefault(key, {})
    holder[keys[-1]] = {"something": 1}
    return dict(wanted)


@pytest.mark.parametrize("pattern", document.NOT_BUILT)
def test_what_is_known_and_not_built_is_refused_by_name(desk: Desk, pattern: str) -> None:
    answer = desk.platform.post("/config/apply", at(pattern))
    assert refusal(answer) == (422, "not_supported")
    assert answer.json()["key"] == pattern.replace("[]", "[0]")
    assert Tool.objects.count() == 0


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"tenants: [{slug: 2026-01-01}]", 422, "bad_document"),
        (b"tenants: [{slug: .nan}]", 400, "malformed_json"),
        (b'tenants: [{slug: "\\ud800"}]', 422, "bad_document"),
        (b'tenants: [{slug: acme2, name: "a\\0b"}]', 400, "unstorable_text"),
        (b"tenants: [{slug: !!binary aGk=}]", 422, "bad_document"),
        (b"tenants: !!set {a, b}", 422, "bad_document"),
        (b"tenants: [{slug: 99999999999999999999999}]", 400, "number_out_of_range"),
        (b"tenants: " + b"[" * 100_000, 422, "bad_document"),
        (b"a: !!python/object/apply:os.system [id]", 422, "bad_document"),
        (b"- 1", 422, "bad_document"),
        (b"\xff\xfe\x00", 422, "bad_document"),
        (b"", 200, ""),
        (b"null", 422, "bad_document"),
    ],
)
def test_yaml_is_held_to_what_json_can_say(desk: Desk, raw: bytes, status: int, code: str) -> None:
    answer = desk.platform("POST", "/config/apply", raw=raw, content_type="application/yaml")
    assert answer.status_code == status, answer.content
    if code:
        assert refusal(answer) == (status, code)


def test_the_environment_of_the_server_is_not_read_for_a_caller(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_TOKEN", "s3cret")
    wanted = {"credentials": [{"name": "t", "tenant": "acme", "kind": "bearer", "value_env": "DESK_TOKEN"}]}
    assert refusal(desk.platform.post("/config/apply", wanted)) == (422, "no_value")
    assert refusal(desk.platform.post("/config/apply", {"tenants": [{"slug": "${DESK_TOKEN}"}]})) == (422, "unknown_variable")


def test_a_secret_is_stored_and_never_told(desk: Desk) -> None:
    wanted = {"credentials": [{"name": "t", "tenant": "acme", "kind": "bearer", "value": "s3cret-s3cret"}]}
    answer = desk.platform.post("/config/apply", wanted)
    assert actions(answer) == {"credential acme/t": "create"} and b"s3cret" not in answer.content
    wrong = desk.platform.post("/config/apply", {"credentials": [wanted["credentials"][0] | {"kind": "s3cret-kind", "x": "s3cret"}]})
    assert refusal(wrong) == (422, "bad_document") and b"s3cret" not in wrong.content
