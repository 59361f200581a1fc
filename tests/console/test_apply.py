"""Declarative configuration: read within limits, refused by path, applied whole, idempotent; and the demo made with it."""

import json
from typing import Any

import pytest

from console import document
from console.apply import Change, apply, plan
from runs import releases
from runs.models import Agent, ModelDefinition, Release
from tenants import credentials
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import AuditEntry, Controls, Credential, EgressAllow, Member, Tenant, User
from tools import catalog
from tools.models import Permission, PolicyVersion, Rule, Tool, ToolVersion

TEXT = """
tenants:
  - {slug: acme}
  - {slug: globex, name: Globex}
egress: {allow: ["${SANDBOX_HOSTPORT}"]}
credentials:
  - {name: desk-token, tenant: acme, kind: bearer, value_env: DESK_TOKEN}
models:
  - {name: primary, provider: openai, base_url: "${SANDBOX_URL}/v1", model: sim, price_per_mtok_usd: {input: 0.15, output: 0.60}}
  - {name: spare, provider: openai, base_url: "${SANDBOX_URL}/v1", model: sim-small}
tools:
  - name: create_ticket
    adapter: {kind: http, url: "${SANDBOX_URL}/desk/tickets"}
    description: Open a ticket.
    effect: write
    idempotency: key
    input_schema: {type: object, properties: {priority: {enum: [low, urgent]}}, additionalProperties: false}
    credential: desk-token
permissions:
  - {tool: create_ticket, tenant: acme, agent: support, decision: ask, approvers: 2, when: "args.priority == 'urgent'"}
  - {tool: create_ticket, decision: ask}
agents:
  - name: support
    release:
      instructions: Help.
      tools: [create_ticket]
      models: {planner: {model: primary}}
      budget: {max_cost_usd: 0.08}
"""
BOMB = "x0: &x0 [1]\n" + "\n".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 10))
VARIABLES = {"SANDBOX_URL": "http://127.0.0.1:9009", "SANDBOX_HOSTPORT": "127.0.0.1:9009"}
SECRETS = {"DESK_TOKEN": "desk-secret-1"}
EVERYTHING = (
    Tenant,
    Controls,
    EgressAllow,
    Credential,
    ModelDefinition,
    Tool,
    ToolVersion,
    Permission,
    Agent,
    Release,
    AuditEntry,
)


def parts() -> dict[str, Any]:
    value = document.read(TEXT)
    assert isinstance(value, dict)
    return value


def load(change: dict[str, Any] | None = None) -> document.Document:
    return document.load(parts() | (change or {}), variables=VARIABLES)


def done(changes: list[Change]) -> set[tuple[str, str, str]]:
    return {(c.kind, c.name, c.action) for c in changes if c.action != "unchanged"}


def counts() -> list[int]:
    return [model.objects.count() for model in EVERYTHING]


def refused(call: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value


# -- reading ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[1, 2]", "mapping of sections"),
        ("tenants: [", "cannot be read"),
        ("tenants: []\ntenants: []", "is there twice"),
        ("a: !!python/object/apply:os.system [id]", "cannot be read"),
        ("a: &a {b: 1}\nc: {<<: *a}", "merge keys"),
        (BOMB, "aliases"),
        ("a: &a [*a]", "aliases"),
        ("a: " + "[" * 100_000, "nested deeper"),
        ("a: " + "9" * 10_000, "cannot be read"),
        ("a: \x00", "cannot be read"),
    ],
)
def test_a_text_that_would_hurt_or_cannot_be_read_is_refused(text: str, part: str) -> None:
    error = refused(lambda: document.load(document.read(text)))
    assert (error.code, error.status) == ("bad_document", 422)
    assert part in error.message


def test_a_document_larger_than_a_mebibyte_is_refused() -> None:
    assert refused(lambda: document.read(b"#" * (1 << 20) + b"#")).status == 413


def test_aliases_within_bounds_are_read_as_what_they_stand_for() -> None:
    assert document.read("a: &x {b: [1]}\nc: *x") == {"a": {"b": [1]}, "c": {"b": [1]}}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"colour": "red"}, "colour"),
        ({"tenants": [{"slug": "acme"}, {"slug": "globex", "color": 1}]}, "tenants[1].color"),
        ({"tenants": [{"slug": "Not A Slug"}]}, "tenants[0].slug"),
        ({"egress": {"allow": ["nonsense"]}}, "egress.allow[0]"),
        ({"permissions": [{"tool": "create_ticket", "decision": "perhaps"}]}, "permissions[0].decision"),
        ({"permissions": [{"tool": "create_ticket", "decision": "ask", "approvers": 0}]}, "permissions[0].approvers"),
        ({"agents": [{"name": "a", "release": {"models": {"planner": {"model": "m"}}}}]}, "agents[0].release.instructions"),
        ({"credentials": [{"name": "a", "tenant": "acme"}]}, "credentials[0]"),
        ({"credentials": [{"name": "a", "tenant": "acme", "value": "v", "value_env": "V"}]}, "credentials[0]"),
        ({"tenants": [{"slug": "acme"}, {"slug": "acme"}]}, ""),
    ],
)
def test_what_the_document_may_not_say_is_refused_with_its_path(change: dict[str, Any], path: str) -> None:
    error = refused(lambda: load(change))
    assert error.code == "bad_document"
    assert [e["path"] for e in error.fields["errors"]] == [path]


def test_what_is_known_but_not_enforced_is_refused_with_its_path() -> None:
    change = {"suites": [{"cases": [{"expect": {"answer": [{"judge": {"model": "m"}}]}}]}]}
    error = refused(lambda: document.load(change))
    assert (error.code, error.fields["path"]) == ("not_supported", "suites[0].cases[0].expect.answer[0].judge")


def test_empty_sections_are_fine() -> None:
    empty = {"platform": {"ceilings": None}, "rules": [], "runbooks": None, "suites": [], "detectors": [], "tenants": None}
    assert document.load(empty).tenants == ()


def test_variables_are_put_in_once_and_only_those_that_are_given() -> None:
    made = document.load({"tenants": [{"slug": "a", "name": "${A} $${B} $C {D}"}]}, variables={"A": "${B}", "B": "no"})
    assert made.tenants[0].name == "${B} ${B} $C {D}"
    error = refused(lambda: document.load({"tenants": [{"slug": "a", "name": "${PATH}"}]}))
    assert (error.code, error.fields) == ("unknown_variable", {"path": "tenants[0].name", "variable": "PATH"})


def test_several_files_are_one_document() -> None:
    made = document.load(
        {"tenants": [{"slug": "a"}]}, {"tenants": [{"slug": "b"}], "egress": {"allow": ["a:1"]}}, {"egress": {"allow": ["b:2"]}}
    )
    assert [t.slug for t in made.tenants] == ["a", "b"]
    assert made.egress.allow == ("a:1", "b:2")
    assert "twice" in refused(lambda: document.load({"tenants": [{"slug": "a"}]}, {"tenants": [{"slug": "a"}]})).message


def test_a_refusal_does_not_repeat_a_secret() -> None:
    for wrong in ({"value": "s3cret", "kind": "bearrer"}, {"value": "s3cret", "extra": "s3cret"}, {"value": ["s3cret"]}):
        error = refused(lambda w=wrong: document.load({"credentials": [{"name": "a", "tenant": "b", **w}]}))
        assert "s3cret" not in error.message + json.dumps(error.fields)


# -- applying ---------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P12.1")
def test_a_document_makes_everything_it_names(db: None) -> None:
    changes = apply(None, load(), secrets=SECRETS)
    assert done(changes) == {
        ("tenant", "acme", "create"),
        ("tenant", "globex", "create"),
        ("egress", "127.0.0.1:9009", "create"),
        ("credential", "acme/desk-token", "create"),
        ("model", "primary", "create"),
        ("model", "spare", "create"),
        ("tool", "create_ticket", "create"),
        ("agent", "support", "create"),
        ("release", "support r1", "create"),
        ("permission", "create_ticket x acme x support", "create"),
        ("permission", "create_ticket x every tenant x every agent", "create"),
    }
    agent = Agent.objects.get(name="support")
    assert agent.live is not None
    assert agent.live.tools == {"create_ticket": str(Tool.objects.get().current_id)}
    assert set(Controls.objects.values_list("tenant__slug", flat=True)) == {"acme", "globex"}
    acme = Tenant.objects.get(slug="acme")
    assert credentials.open_all(acme.id)["desk-token"].secret == "desk-secret-1"
    assert [row.decision for row in catalog.load_permissions("acme")] == ["ask", "ask"]


def test_applying_again_changes_nothing(db: None) -> None:
    apply(None, load(), secrets=SECRETS)
    before, revs = counts(), list(Controls.objects.order_by("pk").values_list("rev", flat=True))
    assert done(apply(None, load(), secrets=SECRETS, prune=True)) == set()
    assert counts() == before
    assert list(Controls.objects.order_by("pk").values_list("rev", flat=True)) == revs


def test_a_dry_run_tells_the_same_and_writes_nothing(db: None) -> None:
    before = counts()
    told = plan(load(), SECRETS)
    assert counts() == before
    assert told == apply(None, load(), secrets=SECRETS)


def test_what_is_refused_anywhere_leaves_nothing_behind(db: None) -> None:
    before = counts()
    bad = load({"permissions": [{"tool": "create_ticket", "decision": "deny", "when": "arg.x == 1"}]})
    error = refused(lambda: apply(None, bad, secrets=SECRETS))
    assert (error.code, error.fields["path"]) == ("bad_condition", "permissions[0]")
    assert error.message.startswith("permissions[0]: ")
    assert counts() == before


@pytest.mark.parametrize(
    ("change", "code", "path"),
    [
        ({"egress": None}, "egress_refused", "models[0]"),
        ({"models": []}, "unknown_model", "agents[0]"),
        ({"tools": []}, "unknown_tool", "agents[0]"),
        ({"agents": []}, "unknown_agent", "permissions[0]"),
        ({"tenants": [{"slug": "globex"}]}, "unknown_tenant", "credentials[0]"),
    ],
)
def test_what_a_block_refers_to_must_be_there(db: None, change: dict[str, Any], code: str, path: str) -> None:
    error = refused(lambda: apply(None, load(change), secrets=SECRETS))
    assert (error.code, error.fields["path"]) == (code, path)


@pytest.mark.mission("X8")
def test_what_undoes_a_tool_must_be_there_and_may_stand_after_it(db: None) -> None:
    block = parts()["tools"][0] | {"compensate": {"tool": "close_ticket", "args": {}}}
    error = refused(lambda: apply(None, load({"tools": [block]}), secrets=SECRETS))
    assert (error.code, error.fields["path"]) == ("unknown_tool", "tools[0].compensate.tool")
    closing = parts()["tools"][0] | {"name": "close_ticket", "description": "Close a ticket."}
    apply(None, load({"tools": [block, closing]}), secrets=SECRETS)
    assert Tool.objects.get(name="create_ticket").current.compensate["tool"] == "close_ticket"
    changes = apply(None, load({"tools": [parts()["tools"][0], closing]}), secrets=SECRETS)
    assert [change.fields for change in changes if change.name == "create_ticket"] == [("compensate",)]


def test_a_secret_that_is_not_given_is_asked_for_by_name(db: None) -> None:
    error = refused(lambda: apply(None, load()))
    assert error.code == "no_value"
    assert "DESK_TOKEN" in error.message


@pytest.mark.mission("P12.1")
def test_a_changed_release_block_goes_live_as_a_new_release(db: None) -> None:
    apply(None, load(), secrets=SECRETS)
    block = parts()["agents"][0]
    block["release"] |= {"instructions": "Help better.", "budget": {"max_cost_usd": 0.09}}
    changes = apply(None, load({"agents": [block]}), secrets=SECRETS)
    assert [c for c in changes if c.action != "unchanged"] == [
        Change("release", "support r2", "create", ("instructions", "budget", "live"))
    ]
    assert Agent.objects.get().live == Release.objects.get(number=2)
    back = apply(None, load(), secrets=SECRETS)
    assert ("release", "support r1", "update") in done(back)
    assert Agent.objects.get().live == Release.objects.get(number=1)


def test_a_changed_tool_gives_its_agents_a_release_that_pins_it(db: None) -> None:
    apply(None, load(), secrets=SECRETS)
    block = parts()["tools"][0] | {"timeout_s": 3}
    changes = apply(None, load({"tools": [block]}), secrets=SECRETS)
    assert [c for c in changes if c.action != "unchanged"] == [
        Change("tool", "create_ticket", "update", ("timeout_s",)),
        Change("release", "support r2", "create", ("tool versions", "live")),
    ]


@pytest.mark.mission("P12.2")
def test_a_release_that_a_person_rolled_back_stays_back_until_its_block_changes(db: None) -> None:
    apply(None, load(), secrets=SECRETS)
    block = parts()["agents"][0]
    block["release"]["instructions"] = "Worse."
    worse = load({"agents": [block]})
    apply(None, worse, secrets=SECRETS)
    releases.rollback(None, Agent.objects.get())
    assert done(apply(None, worse, secrets=SECRETS)) == set()
    assert Agent.objects.get().live == Release.objects.get(number=1)
    block["release"]["instructions"] = "Better."
    apply(None, load({"agents": [block]}), secrets=SECRETS)
    assert Agent.objects.get().live == Release.objects.get(number=3)


def test_a_changed_secret_is_sealed_again_and_never_told(db: None) -> None:
    apply(None, load(), secrets=SECRETS)
    changes = apply(None, load(), secrets={"DESK_TOKEN": "desk-secret-2"})
    assert [c for c in changes if c.action != "unchanged"] == [Change("credential", "acme/desk-token", "update", ("value",))]
    row = Credential.objects.get()
    assert (row.version, credentials.open(row.tenant_id, row.name, row.sealed)) == (2, "desk-secret-2")
    trail = json.dumps([[e.before, e.after, e.reason] for e in AuditEntry.objects.all()]) + str(changes)
    assert "desk-secret" not in trail


def test_only_what_a_permission_says_is_updated_in_its_place(db: None) -> None:
    apply(None, load(), secrets=SECRETS)
    rows = parts()["permissions"]
    rows[1]["decision"] = "deny"
    changes = apply(None, load({"permissions": rows}), secrets=SECRETS)
    assert [c for c in changes if c.action != "unchanged"] == [
        Change("permission", "create_ticket x every tenant x every agent", "update", ("decision",))
    ]


RULES = {"rules": [
    {"name": "no-exfiltration", "decision": "ask", "when": "'egress' in call.labels && 'private' in run.labels"},
    {"name": "short-answers", "tenant": "acme", "decision": "deny", "on": "answer", "when": "answer.length > 9", "enabled": False},
]}  # fmt: skip


@pytest.mark.mission("P10.3", "X6")
def test_rules_are_made_updated_and_pruned_in_their_scope(db: None) -> None:
    apply(None, load(RULES), secrets=SECRETS)
    held = {(r.name, r.tenant.slug if r.tenant else None): (r.decision, r.on, r.enabled) for r in Rule.objects.select_related("tenant")}
    assert held == {("no-exfiltration", None): ("ask", "call", True), ("short-answers", "acme"): ("deny", "answer", False)}
    assert done(apply(None, load(RULES), secrets=SECRETS)) == set()
    stricter = {"rules": [RULES["rules"][0] | {"decision": "deny"}]}
    assert done(apply(None, load(stricter), secrets=SECRETS)) == {("rule", "no-exfiltration x every tenant", "update")}
    assert done(apply(None, load(stricter), secrets=SECRETS, prune=True)) == {("rule", "short-answers x acme", "delete")}
    assert list(Rule.objects.values_list("name", "decision")) == [("no-exfiltration", "deny")]


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"name": "r", "decision": "allow", "when": "true"}, "bad_document"),
        ({"name": "r", "decision": "deny", "when": "nobody.knows"}, "bad_condition"),
        ({"name": "r", "decision": "draft", "on": "answer", "when": "true"}, "bad_rule"),
        ({"name": "r", "decision": "deny", "when": "true", "tenant": "nowhere"}, "unknown_tenant"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_with_its_place(db: None, rule: dict[str, Any], code: str) -> None:
    error = refused(lambda: apply(None, load({"rules": [rule]}), secrets=SECRETS))
    assert error.code == code and "rules[0]" in error.message
    assert not Rule.objects.exists()


@pytest.mark.mission("P12.1")
def test_one_application_is_one_version_of_the_policy_for_each_scope_it_touches(db: None) -> None:
    apply(None, load(RULES), secrets=SECRETS)
    found = [(v.tenant and v.tenant.slug, v.number, v.reason) for v in PolicyVersion.objects.order_by("id")]
    assert sorted(found, key=str) == sorted([(None, 1, "configuration applied"), ("acme", 1, "configuration applied")], key=str)
    apply(None, load(RULES), secrets=SECRETS)
    assert PolicyVersion.objects.count() == 2


def test_on_is_a_key_and_no_truth_value() -> None:
    made = document.read("rules: [{name: r, on: answer, decision: ask, when: 'true', enabled: true, off: yes}]")
    assert made == {"rules": [{"name": "r", "on": "answer", "decision": "ask", "when": "true", "enabled": True, "off": "yes"}]}


def test_prune_takes_away_what_a_given_section_leaves_out_and_nothing_else(db: None) -> None:
    apply(None, load(), secrets=SECRETS)
    slim = {"tenants": [{"slug": "acme"}], "permissions": parts()["permissions"][1:], "models": parts()["models"][:1]}
    assert done(apply(None, document.load(slim, variables=VARIABLES))) == set()
    assert done(apply(None, document.load(slim, variables=VARIABLES), prune=True)) == {
        ("permission", "create_ticket x acme x support", "delete"),
        ("model", "spare", "delete"),
    }
    assert EgressAllow.objects.count() == Credential.objects.count() == Tool.objects.count() == 1
    bare = {"tenants": [{"slug": "acme"}], "egress": {"allow": []}, "credentials": [], "tools": [], "agents": []}
    assert done(apply(None, document.load(bare), prune=True)) == {
        ("egress", "127.0.0.1:9009", "delete"),
        ("credential", "acme/desk-token", "delete"),
    }
    assert (Tenant.objects.count(), Tool.objects.count(), Agent.objects.count()) == (2, 1, 1)


def test_prune_refuses_to_take_a_model_from_a_live_release(db: None) -> None:
    apply(None, load(), secrets=SECRETS)
    error = refused(lambda: apply(None, document.load({"models": []}), prune=True))
    assert error.code == "model_in_use"
    assert ModelDefinition.objects.count() == 2


def test_only_platform_admins_apply(db: None) -> None:
    tenant = Tenant.objects.create(slug="acme")
    user = User.objects.create(username="ada")
    Member.objects.create(tenant=tenant, user=user, role="admin")
    assert refused(lambda: apply(Actor(user, tenant, "admin"), load(), secrets=SECRETS)).status == 403
    user.is_platform_admin = True
    assert done(apply(Actor(user, tenant, "admin"), document.load({"tenants": [{"slug": "new"}]}))) == {("tenant", "new", "create")}
    assert AuditEntry.objects.get().actor == "ada"
