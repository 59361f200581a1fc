"""Signing in and out: one sentence for every failure, and only home afterwards."""

from typing import Any

import pytest
from django.test import Client

from tenants.models import User
from tests.runtime.waiting import World, make_world

PASSWORD = "correct horse battery"


@pytest.fixture
def world(db: None) -> World:
    made = make_world()
    made.operator.user.set_password(PASSWORD)
    made.operator.user.save()
    return made


def sign_in(client: Client, world: World, password: str = PASSWORD, **more: str) -> Any:
    return client.post("/sign-in/", {"username": world.operator.user.username, "password": password} | more)


def test_a_person_signs_in_and_lands_where_they_wanted(world: World, client: Client) -> None:
    answer = sign_in(client, world, next="/tools/?x=1")
    assert (answer.status_code, answer["Location"]) == (302, "/tools/?x=1")
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("next", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "/\\evil.example", ""])
def test_signing_in_leads_nowhere_else(world: World, client: Client, next: str) -> None:
    assert sign_in(client, world, next=next)["Location"] == "/"


@pytest.mark.parametrize("change", [{"password": "wrong"}, {"username": "nobody"}, {"username": "ANN-acme"}])
def test_every_failure_says_the_same(world: World, client: Client, change: dict[str, str]) -> None:
    said = {"username": world.operator.user.username, "password": PASSWORD}
    answer = client.post("/sign-in/", said | change)
    assert answer.status_code == 422
    assert answer.context["form"].non_field_errors() == ["That username and password do not match."]
    assert PASSWORD.encode() not in answer.content


def test_a_person_who_was_switched_off_hears_the_same(world: World, client: Client) -> None:
    User.objects.filter(pk=world.operator.user.pk).update(is_active=False)
    answer = sign_in(client, world)
    assert (answer.status_code, answer.context["form"].non_field_errors()) == (422, ["That username and password do not match."])


def test_an_empty_form_says_what_is_missing(db: None, client: Client) -> None:
    answer = client.post("/sign-in/", {"username": "", "password": ""})
    assert answer.status_code == 422 and b"Enter a username and a password." in answer.content


def test_who_is_signed_in_is_not_asked_again(world: World, client: Client) -> None:
    sign_in(client, world)
    assert client.get("/sign-in/?next=/tools/")["Location"] == "/tools/"


def test_signing_out_takes_a_post_and_ends_the_session(world: World, client: Client) -> None:
    sign_in(client, world)
    assert client.get("/sign-out/").status_code == 405
    assert client.post("/sign-out/")["Location"] == "/sign-in/"
    assert client.get("/").status_code == 302


def test_the_form_is_guarded_against_other_sites(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    assert sign_in(client, world).status_code == 403


def test_the_page_needs_no_database(client: Client) -> None:
    assert client.get("/sign-in/").status_code == 200  # no `db` here: a query would raise
