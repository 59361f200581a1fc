"""Sessions that say whose they are and end: after half an hour without anything a person did, and after twelve hours anyway.

This module is `SESSION_ENGINE`. The cookie may live longer: the row decides, for pages, the API and live sockets alike.
"""

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DBStore
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Least, Now
from django.http import HttpRequest

from console.models.entry import ConsoleSession
from tenants import audit
from tenants.actors import Actor
from tenants.models import User

BEGAN, WAY, ADDRESS, AGENT = "began", "way", "address", "agent"  # session keys; `began` in Unix seconds
ABSOLUTE = timedelta(hours=12)
NOTED_EVERY = timedelta(minutes=1)


def idle() -> timedelta:
    return timedelta(seconds=settings.SESSION_IDLE_S)


class SessionStore(DBStore):
    row: ConsoleSession | None = None  # as it was loaded

    @classmethod
    def get_model_class(cls) -> type[ConsoleSession]:
        return ConsoleSession

    def _get_session_from_db(self) -> Any:
        """With what its person chose (`console.preferences`): every page needs it, and it costs no query of its own."""
        found = ConsoleSession.objects.select_related("user__preference")
        self.row = found.filter(session_key=self.session_key, expire_date__gt=datetime.now(UTC)).first()
        if self.row is None:
            self._session_key = None
        return self.row

    def create_model_instance(self, data: dict[str, Any]) -> ConsoleSession:
        made: ConsoleSession = super().create_model_instance(data)  # type: ignore[assignment]
        now = datetime.now(UTC)
        made.user_id = data.get(SESSION_KEY)
        made.began_at = datetime.fromtimestamp(data.get(BEGAN) or now.timestamp(), UTC)
        made.seen_at, made.expire_date = now, min(now + idle(), made.began_at + ABSOLUTE)
        return made

    def save(self, must_create: bool = False) -> None:
        if SESSION_KEY in self and BEGAN not in self:
            self[BEGAN] = time.time()
        super().save(must_create)


def touch(request: HttpRequest) -> None:
    """Somebody is there. Written once a minute at most; what a page fetches by itself is nobody's presence."""
    row = getattr(request.session, "row", None)
    by_itself = request.method == "GET" and "part" in request.GET
    if row is None or by_itself or datetime.now(UTC) - row.seen_at < NOTED_EVERY:
        return
    there = ConsoleSession.objects.filter(pk=row.pk, expire_date__gt=Now())
    there.update(seen_at=Now(), expire_date=Least(Now() + idle(), F("began_at") + ABSOLUTE))


# the list ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """A session for its owner or an admin. `name` stands for the key, which nobody is shown."""

    name: str
    way: str
    address: str
    agent: str
    began_at: datetime
    seen_at: datetime
    here: bool


def of(user: User, here: str | None = None) -> list[Shown]:
    return [shown(row, here) for row in live(user).order_by("-seen_at")[:100]]


def live(user: User) -> QuerySet[ConsoleSession]:
    return ConsoleSession.objects.filter(user=user, expire_date__gt=Now())


def shown(row: ConsoleSession, here: str | None) -> Shown:
    said = row.get_decoded()
    way, address, agent = (str(said.get(key, "")) for key in (WAY, ADDRESS, AGENT))
    return Shown(name_of(row.pk), way, address, agent, row.began_at, row.seen_at, row.pk == here)


def name_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:20]


@transaction.atomic
def end(actor: Actor, user: User, name: str = "", *, keep: str | None = None, reason: str = "") -> int:
    """End the session with this name, or all of them but `keep`. -> how many. Their live sockets follow at the next look."""
    keys = [row.pk for row in live(user) if row.pk != keep and name in ("", name_of(row.pk))]
    for key in keys:
        audit.append(actor, "session.ended", "user", user.pk, after={"session": name_of(key)}, reason=reason)
    ConsoleSession.objects.filter(pk__in=keys).delete()
    return len(keys)
