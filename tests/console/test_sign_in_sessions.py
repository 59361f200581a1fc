"""Sessions end by themselves, by their owner and by an admin; and invitations begin them."""

from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.models.functions import Now
from django.test import Client

from console.entry import sessions
from console.models import ConsoleSession, Invitation
from tenants.models import AuditEntry, Member, User
from tests.runtime import waiting
from tests.runtime.waiting import World, make_world, person

from .entry_world import PASSWORD, age, door, is_in, key_of, sign_in
from .live_site import Site, queued, site, topic_of, world
from .past import browser

__all__ = ["door", "site", "world"]


def test_signing_in_gives_the_session_a_new_key(door: World) -> None:
    client = Client()
    client.get("/sign-in/passkey/")  # a session before anybody is known
    before = key_of(client)
    sign_in(door.operator, client=client)
    assert key_of(client) != before and not ConsoleSession.objects.filter(pk=before).exists()


def test_a_session_ends_half_an_hour_after_the_last_thing_done(door: World) -> None:
    client, _ = sign_in(door.operator)
    row = ConsoleSession.objects.get(pk=key_of(client))
    assert row.expire_date - row.seen_at == timedelta(minutes=30)
    age(client, seen_at=Now() - timedelta(minutes=29), expire_date=Now() + timedelta(minutes=1))
    assert is_in(client)  # which is something done
    assert ConsoleSession.objects.get(pk=row.pk).expire_date > row.expire_date - timedelta(minutes=1)
    age(client, expire_date=Now())
    assert not is_in(client)


def test_what_a_page_fetches_by_itself_keeps_no_session_alive(door: World) -> None:
    client, _ = sign_in(door.operator)
    age(client, seen_at=Now() - timedelta(minutes=29), expire_date=Now() + timedelta(minutes=1))
    before = ConsoleSession.objects.get(pk=key_of(client)).expire_date
    client.get("/runs/?part=rows", headers={"HX-Request": "true"})
    assert ConsoleSession.objects.get(pk=key_of(client)).expire_date == before


def test_a_session_ends_after_twelve_hours_whatever_is_done(door: World) -> None:
    client, _ = sign_in(door.operator)
    half_a_day = timedelta(hours=11, minutes=55)
    age(client, began_at=Now() - half_a_day, seen_at=Now() - timedelta(minutes=2))
    assert is_in(client)
    row = ConsoleSession.objects.get(pk=key_of(client))
    assert row.expire_date == row.began_at + timedelta(hours=12)


def test_a_person_sees_their_sessions_and_ends_one_or_all_others(door: World) -> None:
    (here, _), (there, _), (third, _) = (sign_in(door.operator, at=f"192.0.2.{n}") for n in range(3))
    page = here.get("/settings/security/").content.decode()
    assert all(f"192.0.2.{n}" in page for n in range(3)) and "Tests/1" in page and key_of(there) not in page
    here.post("/settings/security/", {"session": sessions.name_of(key_of(there))})
    assert (is_in(here), is_in(there), is_in(third)) == (True, False, True)
    here.post("/settings/security/", {"act": "end"})
    assert is_in(here) and not is_in(third)
    assert AuditEntry.objects.filter(action="session.ended").count() == 2


def test_nobody_ends_the_session_of_somebody_else(door: World) -> None:
    theirs, _ = sign_in(door.approver)
    browser(door.operator).post("/settings/security/", {"session": sessions.name_of(key_of(theirs))})
    assert is_in(theirs)


def test_a_new_password_ends_every_other_session(door: World) -> None:
    here, _ = sign_in(door.operator)
    there, _ = sign_in(door.operator)
    assert here.post("/settings/security/password/", {"new": "short", "again": "short"}).status_code == 422
    new = "another long password"
    assert here.post("/settings/security/password/", {"new": new, "again": new})["Location"] == "/settings/security/"
    assert is_in(here) and not is_in(there) and is_in(sign_in(door.operator, new)[0])


def test_an_admin_ends_the_sessions_of_members_and_of_nobody_else(door: World) -> None:
    boss = browser(person(door.tenant, "boss", "admin"))
    member, stranger = door.operator.user.memberships.get(), make_world("globex", "other-agent").operator
    theirs, foreign = sign_in(door.operator)[0], browser(stranger)
    boss.post("/settings/members/", {"act": "end", "member": member.pk})
    assert not is_in(theirs) and AuditEntry.objects.get(action="session.ended").actor == "boss"
    answer = boss.post("/settings/members/", {"act": "end", "member": stranger.user.memberships.get().pk})
    assert answer.status_code == 404 and is_in(foreign)
    assert browser(door.approver).get("/settings/members/").status_code == 403


def end_all(actor: Any) -> None:
    with transaction.atomic():
        sessions.end(actor, actor.user)


async def test_a_session_that_is_ended_cuts_its_live_socket(world: waiting.World, site: Site, monkeypatch: Any) -> None:
    from console.live import consumer

    assert consumer.RECHECK_S < 30
    monkeypatch.setattr(consumer, "RECHECK_S", 0.05)
    run = await queued(world)
    async with site.open(world.operator) as page:
        await page.follow("runs", topic_of(run))
        await sync_to_async(end_all)(world.operator)
        assert await page.closed() == 4401


# invitations ------------------------------------------------------------------------------------------------------------------

NEW = {"new": "a very long password", "again": "a very long password"}


def invite(world: World, **said: str) -> Any:
    boss = User.objects.filter(username="boss").first() or person(world.tenant, "boss", "admin").user
    client = Client()
    client.force_login(boss)
    return client.post("/settings/members/", {"act": "invite", "username": "nina", "email": "", "role": "approver"} | said)


def link_of(answer: Any) -> str:
    return str(answer.context["link"]).removeprefix("http://127.0.0.1:8000")


def test_an_invitation_makes_a_member_with_a_password_of_their_own(door: World) -> None:
    link, client = link_of(invite(door)), Client()
    assert "nina" in client.get(link).content.decode()
    assert client.post(link, NEW | {"again": "other"}).status_code == 422
    assert client.post(link, {"new": "short", "again": "short"}).status_code == 422 and not User.objects.filter(username="nina").exists()
    assert client.post(link, NEW)["Location"] == "/" and is_in(client)
    assert Member.objects.get(user__username="nina").role == "approver"
    assert {"invitation.made", "member.joined"} <= set(AuditEntry.objects.values_list("action", flat=True))
    assert link.split("/")[2].encode() not in bytes(Invitation.objects.get().sha256)


def test_a_link_opens_once_and_not_after_a_week_nor_when_it_was_withdrawn(door: World) -> None:
    used, old, withdrawn = (link_of(invite(door, username=name)) for name in ("nina", "olga", "paul"))
    Client().post(used, NEW)
    Invitation.objects.filter(username="olga").update(expires_at=Now())
    boss = Client()
    boss.force_login(User.objects.get(username="boss"))
    boss.post("/settings/members/", {"act": "withdraw", "invitation": Invitation.objects.get(username="paul").pk})
    for link in (used, old, withdrawn, "/invitation/nonsense/"):
        assert Client().get(link).status_code == 404 and Client().post(link, NEW).status_code == 404
    assert User.objects.filter(username__in=["nina", "olga", "paul"]).count() == 1
    made = Invitation.objects.get(username="nina")
    assert made.expires_at - made.made_at == timedelta(days=7)


@pytest.mark.parametrize("wrong", [{"username": "ann acme"}, {"username": "ANN-acme"}, {"email": "no"}, {"role": "king"}, {"username": ""}])
def test_an_invitation_that_could_not_be_used_is_not_made(door: World, wrong: dict[str, str]) -> None:
    answer = invite(door, **wrong)
    assert answer.status_code == 422 and 'role="alert"' in answer.content.decode() and not Invitation.objects.exists()


def test_signing_in_is_audited_in_the_persons_tenant(door: World) -> None:
    sign_in(door.operator, PASSWORD)
    entry = AuditEntry.objects.get(action="session.began")
    assert (entry.tenant, entry.actor, entry.after["way"]) == (door.tenant, door.operator.user.username, "password")
