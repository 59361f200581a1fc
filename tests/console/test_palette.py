"""The search of every page: names that the reader may see, what they may do, and pages by what people call them."""

from typing import Any

import pytest

from console.pages.palette import fits
from runs.evals import suites
from tenants.actors import Actor
from tests.runtime.waiting import World, make_world, person
from tools.models import Tool

from .past import browser


@pytest.fixture
def world(db: None) -> World:
    return make_world()


def found(actor: Actor, text: str) -> list[dict[str, Any]]:
    answer = browser(actor).get("/palette/", {"q": text})
    assert answer.status_code == 200, answer.content
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def labels(actor: Actor, text: str, group: str) -> list[str]:
    return [item["label"] for item in found(actor, text) if item["group"] == group]


@pytest.mark.parametrize(
    ("text", "page"),
    [("billing", "/spend/"), ("COST", "/spend/"), ("kill", "/switches/"), ("sign off", "/approvals/"), ("invoice us", "/spend/")],
)
def test_a_page_is_found_by_what_people_call_it(world: World, text: str, page: str) -> None:
    assert page in [item["url"] for item in found(world.operator, text)]


@pytest.mark.parametrize(("text", "fit"), [("", True), ("st inv", True), ("voice", False), ("invoice spendx", False), ("sign-off", True)])
def test_every_word_begins_a_word(text: str, fit: bool) -> None:
    assert fits("Standing invoice sign-off", text) is fit


def test_only_what_the_reader_may_see_is_named_and_eight_of_a_kind(world: World) -> None:
    for number in range(10):
        Tool.objects.create(name=f"needle_{number}")
    Tool.objects.create(name="needle_hidden", tenants=["elsewhere"])
    suites.put_suite(None, "needle-suite")
    assert labels(world.operator, "NEEDLE", "Tool") == [f"needle_{number}" for number in range(8)]
    assert labels(world.operator, "needle_h", "Tool") == []
    assert labels(world.operator, "needle", "Suite") == ["needle-suite"]
    assert labels(world.operator, "n", "Tool") == []
    assert labels(world.operator, "needle%_0", "Tool") == []


def test_what_may_be_done_depends_on_the_role(world: World) -> None:
    viewer = person(world.tenant, "vera", "viewer")
    assert {"New run", "Open incident"} <= set(labels(world.operator, "", "Do"))
    assert labels(viewer, "", "Do") == []
    assert not [item for item in found(viewer, "audit") if item["url"] == "/audit/"]
