"""Releases: immutable, pinned, and one pointer that people move."""

import threading
from typing import Any

import pytest
from django.db import InternalError, ProgrammingError, connection, transaction
from pydantic import ValidationError

from runs import catalog as runs_catalog
from runs import releases
from runs.catalog import ModelSpec
from runs.models import Agent, ModelDefinition, Release
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import AuditEntry, Member, Tenant, User
from tools import catalog, memory
from tools.models import ToolVersion
from tools.spec import ToolSpec


def tool(**change: Any) -> ToolSpec:
    block: dict[str, Any] = {
        "adapter": {"kind": "http", "url": "https://desk.example.com/x"},
        "description": "Look up.",
        "effect": "read",
        "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
    }
    return ToolSpec.model_validate(block | change)


def model(**change: Any) -> ModelSpec:
    return ModelSpec.model_validate({"provider": "openai", "base_url": "https://models.example.com/v1", "model": "m"} | change)


def block(**change: Any) -> dict[str, Any]:
    return {"instructions": "Help.", "tools": ["lookup"], "models": {"planner": {"model": "primary"}}} | change


def furnish() -> Agent:
    Tenant.objects.create(slug="acme")
    catalog.put(None, "lookup", tool())
    runs_catalog.put_model(None, "primary", model())
    return runs_catalog.put_agent(None, "support")[0]


@pytest.fixture
def agent(db: None) -> Agent:
    return furnish()


def admin(*, platform: bool = True) -> Actor:
    user, _ = User.objects.get_or_create(username=f"ada-{platform}", is_platform_admin=platform)
    where = Tenant.objects.get(slug="acme")
    Member.objects.get_or_create(tenant=where, user=user, role="admin")
    return Actor(user, where, "admin")


def live() -> Release | None:
    return Agent.objects.get(name="support").live


def code(call: Any, *args: Any) -> tuple[str, int]:
    with pytest.raises(Refused) as caught:
        call(*args)
    return caught.value.code, caught.value.status


@pytest.mark.mission("P12.1")
def test_a_release_pins_the_versions_that_its_tools_have_now(agent: Agent) -> None:
    first = releases.create(admin(), agent, block())
    assert first.tools == {"lookup": str(ToolVersion.objects.get().id)}
    assert (first.number, first.created_by) == (1, admin().user)
    newer, _ = catalog.put(None, "lookup", tool(description="Look up more."))
    first.refresh_from_db()
    assert first.tools["lookup"] != str(newer.id)
    second = releases.create(None, "support", block())
    assert (second.number, second.tools) == (2, {"lookup": str(newer.id)})


def test_the_same_content_is_the_same_release(agent: Agent) -> None:
    first = releases.create(None, agent, block())
    assert releases.create(None, agent, block(budget={"max_steps": 8})) == first, "the default said aloud"
    assert releases.create(None, agent, block(budget={"max_steps": 9})) != first
    assert releases.create(None, agent, block()) == first
    assert AuditEntry.objects.filter(action="release.created").count() == Release.objects.count() == 2


def test_two_agents_with_the_same_block_have_releases_of_their_own(agent: Agent) -> None:
    other, _ = runs_catalog.put_agent(None, "billing")
    one, two = releases.create(None, agent, block()), releases.create(None, other, block())
    assert one != two
    assert (one.number, two.number) == (1, 1)


@pytest.mark.mission("P12.1")
@pytest.mark.django_db
@pytest.mark.parametrize("change", ["update runs_release set number = 9", "delete from runs_release"])
def test_a_release_cannot_be_changed_behind_our_back(agent: Agent, change: str) -> None:
    releases.create(None, agent, block())
    with pytest.raises((ProgrammingError, InternalError)), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change)


def test_what_a_release_names_must_exist(agent: Agent) -> None:
    with pytest.raises(Refused, match="nowhere") as caught:
        releases.create(None, agent, block(tools=["lookup", "nowhere"]))
    assert (caught.value.code, caught.value.fields["tools"]) == ("unknown_tool", ["nowhere"])
    with pytest.raises(Refused, match="spare") as caught:
        releases.create(None, agent, block(models={"planner": {"model": "primary", "fallback": ["spare"]}}))
    assert (caught.value.code, caught.value.fields["models"]) == ("unknown_model", ["spare"])
    with pytest.raises(NotFound):
        releases.create(None, "nobody", block())
    with pytest.raises(ValidationError):
        releases.create(None, agent, block(colour="red"))
    assert not Release.objects.exists()


@pytest.mark.mission("P7.2")
def test_memory_brings_its_tools_pinned_and_nobody_makes_others_of_these_names(agent: Agent) -> None:
    first = releases.create(None, agent, block(memory={"session": True}))
    assert first.spec["tools"][-3:] == ["memory_read", "memory_write", "memory_forget"] and set(first.tools) == set(first.spec["tools"])
    again = releases.create(None, agent, block(memory={"session": True}, tools=first.spec["tools"]))
    assert again == first
    own = memory.SPECS["memory_write"]
    for name, spec in (("memory_write", own.model_copy(update={"effect": "read"})), ("notes", own)):
        with pytest.raises(Refused) as caught:
            catalog.put(None, name, spec)
        assert caught.value.code == "bad_name"


def test_a_condition_of_a_role_sees_the_run_only(agent: Agent) -> None:
    roles = {"planner": {"model": "primary"}, "synthesis": {"model": "primary", "when": "run.writes > 0"}}
    assert releases.create(None, agent, block(models=roles)).number == 1
    roles["synthesis"]["when"] = "args.a > 0"
    assert code(releases.create, None, agent, block(models=roles)) == ("bad_condition", 422)


@pytest.mark.mission("P12.1")
def test_promote_and_roll_back_move_the_pointer_as_often_as_there_is_history(agent: Agent) -> None:
    one, two, three = (releases.create(None, agent, block(instructions=text)) for text in ("one", "two", "three"))
    for release in (one, two, three):
        assert releases.promote(admin(), release)
        assert live() == release
    assert releases.rollback(admin(), three) == two == live()
    assert releases.rollback(admin(), agent) == one == live()
    assert code(releases.rollback, admin(), agent) == ("no_previous_release", 409)
    releases.promote(admin(), three)
    assert releases.rollback(admin(), three) == one, "what was taken back is not come back to"
    trail = list(AuditEntry.objects.filter(object_kind="agent", object_id="support", action__startswith="release").order_by("id"))
    assert [e.action.split(".")[1] for e in trail] == ["promoted"] * 3 + ["rolled_back"] * 2 + ["promoted", "rolled_back"]
    assert (trail[1].before["live"], trail[1].after["live"], trail[1].tenant) == (str(one.id), str(two.id), None)


def test_the_first_release_cannot_be_rolled_back(agent: Agent) -> None:
    assert code(releases.rollback, None, agent) == ("no_previous_release", 409)
    first = releases.create(None, agent, block())
    releases.promote(None, first)
    assert code(releases.rollback, None, first) == ("no_previous_release", 409)
    assert live() == first


def test_promoting_what_is_live_changes_nothing(agent: Agent) -> None:
    release = releases.create(None, agent, block())
    assert releases.promote(None, release)
    entries = AuditEntry.objects.count()
    assert not releases.promote(None, release)
    assert AuditEntry.objects.count() == entries


def test_rolling_back_the_same_release_twice_moves_once(agent: Agent) -> None:
    one, two, three = (releases.create(None, agent, block(instructions=text)) for text in ("one", "two", "three"))
    for release in (one, two, three):
        releases.promote(None, release)
    releases.rollback(None, three)
    assert code(releases.rollback, None, three) == ("not_live", 409)
    assert live() == two


def test_only_platform_admins_make_and_move_releases(agent: Agent) -> None:
    someone = admin(platform=False)
    release = releases.create(None, agent, block())
    for call in (
        lambda: releases.create(someone, agent, block(instructions="mine")),
        lambda: releases.promote(someone, release),
        lambda: releases.rollback(someone, agent),
        lambda: runs_catalog.put_agent(someone, "mine"),
        lambda: runs_catalog.put_model(someone, "mine", model()),
        lambda: runs_catalog.delete_model(someone, "primary"),
    ):
        assert code(call) == ("platform_admin_needed", 403)


def test_of_two_people_who_saw_the_same_live_release_one_wins(committed_db: None) -> None:
    agent = furnish()
    one, two, three = (releases.create(None, agent, block(instructions=text)) for text in ("one", "two", "three"))
    releases.promote(None, one)
    results: list[Any] = []
    moved = threading.Event()

    def second() -> None:
        try:
            with transaction.atomic():
                moved.set()
                results.append(releases.promote(None, three))
        except Refused as refused:
            results.append(refused.code)
        finally:
            connection.close()

    thread = threading.Thread(target=second)
    with transaction.atomic():
        releases.promote(None, two)
        thread.start()
        moved.wait(10)
        wait_until_blocked()
    thread.join(10)
    assert results == ["live_changed"]
    assert live() == two


def wait_until_blocked() -> None:
    """Until another connection waits for the row that this one holds."""
    blocked = "select count(*) from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid))"
    with connection.cursor() as cursor:
        for _ in range(1000):
            cursor.execute(blocked)
            if cursor.fetchone()[0]:
                return
            cursor.execute("select pg_sleep(0.01)")
    raise AssertionError("nobody waits")


# -- models -----------------------------------------------------------------------------------------------------------------


def test_a_model_is_changed_in_place_and_the_change_is_told_by_field(agent: Agent) -> None:
    row, changed = runs_catalog.put_model(None, "primary", model(price_per_mtok_usd={"input": "0.15", "output": "0.6"}))
    assert changed == ("price_input", "price_output")
    row.refresh_from_db()
    assert (str(row.price_input), str(row.price_output)) == ("0.150000", "0.600000")
    assert runs_catalog.put_model(None, "primary", model(price_per_mtok_usd={"input": "0.150", "output": "0.60"}))[1] == ()
    entry = AuditEntry.objects.filter(object_kind="model").latest("id")
    assert (entry.action, entry.before["price_input"], entry.after["price_input"]) == ("model.updated", None, "0.15")


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_model_speaks_one_of_the_wires_that_are_built(agent: Agent, provider: str) -> None:
    assert runs_catalog.put_model(None, "other", model(provider=provider))[0].provider == provider
    with pytest.raises(ValidationError):
        model(provider="another")


def test_a_model_at_a_private_address_is_refused_until_it_is_listed(agent: Agent) -> None:
    near = model(base_url="http://127.0.0.1:9009/v1")
    assert code(runs_catalog.put_model, None, "near", near) == ("egress_refused", 422)
    catalog.allow_egress(None, "127.0.0.1:9009")
    assert runs_catalog.put_model(None, "near", near)[0].base_url == "http://127.0.0.1:9009/v1"


def test_a_model_that_a_live_release_names_cannot_be_deleted(agent: Agent) -> None:
    runs_catalog.put_model(None, "spare", model())
    roles = {"planner": {"model": "primary", "fallback": ["spare"]}}
    releases.promote(None, releases.create(None, agent, block(models=roles)))
    assert code(runs_catalog.delete_model, None, "spare") == ("model_in_use", 409)
    releases.promote(None, releases.create(None, agent, block()))
    assert runs_catalog.delete_model(None, "spare")
    assert not runs_catalog.delete_model(None, "spare")
    assert set(ModelDefinition.objects.values_list("name", flat=True)) == {"primary"}
