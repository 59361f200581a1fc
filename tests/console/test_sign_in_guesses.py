"""Guessing a password: counted for account and address, locked, and no word on whether the account exists."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import hashers
from django.db.models.functions import Now
from django.test import Client

from console.entry import guesses
from console.models import Guess
from tenants.models import AuditEntry, User
from tests.runtime.waiting import World, person

from .entry_world import PASSWORD, door, is_in, sign_in
from .past import browser

__all__ = ["door"]

ELSEWHERE = "203.0.113.7"


def guess(world: World, times: int, *, username: str = "", at: str = "127.0.0.1") -> list[Any]:
    client = Client()
    said = {"username": username or world.operator.user.username, "password": "wrong"}
    return [client.post("/sign-in/", said, REMOTE_ADDR=at) for _ in range(times)]


def test_a_thousand_guesses_lock_the_account_and_ten_of_them_are_looked_at(door: World) -> None:
    account = guesses.account_of(door.operator.user.username)
    assert [guesses.locked(account, "127.0.0.1") for _ in range(1000)] == [False] * 10 + [True] * 990
    client, answer = sign_in(door.operator)  # right, and too late
    assert answer.status_code == 422 and not is_in(client)
    assert AuditEntry.objects.filter(action="sign_in.locked").count() == 1


def test_a_locked_account_answers_as_a_wrong_password_does(door: World) -> None:
    first, *_, last = guess(door, 12)
    assert first.status_code == last.status_code == 422
    assert first.context["form"].non_field_errors() == last.context["form"].non_field_errors()
    assert first.headers.keys() == last.headers.keys()


@pytest.mark.parametrize("known", [True, False])
def test_every_failure_is_as_much_work_whether_the_account_exists_is_locked_or_not(door: World, monkeypatch: Any, known: bool) -> None:
    """Work is counted, not timed: one password hash and one count for each try."""
    made: list[str] = []
    encode = hashers.MD5PasswordHasher.encode
    monkeypatch.setattr(hashers.MD5PasswordHasher, "encode", lambda *a: made.append("hash") or encode(*a))
    for tries in range(12):
        made.clear()
        guess(door, 1, username="" if known else "nobody")
        assert made == ["hash"], tries
    assert [row.tries for row in Guess.objects.all()] == [12]
    assert AuditEntry.objects.filter(action="sign_in.locked").count() == 1


def test_the_lock_holds_for_the_address_that_guessed(door: World) -> None:
    guess(door, 11, at=ELSEWHERE)
    assert is_in(sign_in(door.operator)[0])
    assert not is_in(sign_in(door.operator, at=ELSEWHERE)[0])


def test_other_spellings_of_a_name_are_the_same_account(door: World) -> None:
    for name in (door.operator.user.username, door.operator.user.username.upper()):
        guess(door, 6, username=name)
    assert not is_in(sign_in(door.operator)[0])


def test_what_was_typed_as_a_name_is_not_kept(door: World) -> None:
    guess(door, 1, username="my secret password")
    row = Guess.objects.get()
    assert "secret" not in f"{row.account}{row.address}" and len(row.account) == 64


def test_a_right_password_forgets_the_wrong_ones(door: World) -> None:
    guess(door, 9)
    sign_in(door.operator)
    assert not Guess.objects.exists()
    guess(door, 9)
    assert is_in(sign_in(door.operator)[0])


def test_time_unlocks(door: World) -> None:
    guess(door, 11)
    Guess.objects.update(since=Now() - guesses.WINDOW - timedelta(seconds=1))
    assert is_in(sign_in(door.operator)[0])


def test_an_admin_unlocks_and_it_is_audited(door: World) -> None:
    guess(door, 11)
    boss = person(door.tenant, "boss", "admin")
    page = browser(boss).get("/settings/members/").content.decode()
    assert "Locked" in page and f"Unlock {door.operator.user.username}" in page
    member = door.operator.user.memberships.get()
    browser(boss).post("/settings/members/", {"act": "unlock", "member": member.pk})
    assert is_in(sign_in(door.operator)[0])
    assert AuditEntry.objects.get(action="sign_in.unlocked").actor == "boss"


def test_codes_of_the_second_factor_are_counted_wherever_they_come_from(door: World) -> None:
    account = guesses.factor_of(door.operator.user)
    assert [guesses.locked(account) for _ in range(11)][-2:] == [False, True]


def test_there_is_no_second_door_at_the_admin(door: World) -> None:
    User.objects.filter(pk=door.operator.user.pk).update(is_staff=True)
    answer = Client().post("/admin/login/?next=/admin/", {"username": door.operator.user.username, "password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, "/sign-in/?next=%2Fadmin%2F")
    assert browser(door.operator).get("/admin/password_change/")["Location"] == "/settings/security/password/"
