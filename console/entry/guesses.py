"""Tries at getting in, counted in PostgreSQL before anything is compared, so that tries at once are all counted.

After ten in a quarter of an hour an account is locked for the address they came from, for another quarter. Whether it exists
makes no difference: not to the count, not to the answer, not to the work.
"""

from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from console.models.entry import Guess
from tenants import audit
from tenants.actors import Actor
from tenants.models import User

MOST = 10
WINDOW = timedelta(minutes=15)
COUNTED = """
insert into console_guess as old (account, address, tries, since) values (%(account)s, %(address)s, 1, clock_timestamp())
on conflict (account, address) do update set
  tries = case when old.since < clock_timestamp() - %(window)s then 1 else least(old.tries + 1, 1000000) end,
  since = case when old.since < clock_timestamp() - %(window)s or old.tries = %(most)s then clock_timestamp() else old.since end
returning tries
"""


def account_of(username: str) -> str:
    return salted_hmac("console.entry.guesses", username.casefold(), algorithm="sha256").hexdigest()


def factor_of(user: User) -> str:
    """The account of their second factors: its tries count wherever they come from, because the password is known there."""
    return account_of(f"second factor of {user.pk}")


@transaction.atomic
def locked(account: str, address: str = "") -> bool:
    """Counts a try. True: it must not be looked at, though the work is done all the same."""
    said: dict[str, Any] = {"account": account, "address": address[:64], "window": WINDOW, "most": MOST}
    with connection.cursor() as cursor:
        cursor.execute(COUNTED, said)
        tries = int(cursor.fetchone()[0])
    if tries == MOST + 1:
        reason = f"{MOST} tries in a quarter of an hour."
        audit.append(None, "sign_in.locked", "sign_in", account[:16], after={"address": address}, reason=reason, tenant=None)
    return tries > MOST


def forget(account: str, address: str = "") -> None:
    """It was right. Counts of yesterday go with it."""
    Guess.objects.filter(account=account, address=address[:64]).delete()
    Guess.objects.filter(since__lt=Now() - timedelta(days=1)).delete()


def is_locked(user: User) -> bool:
    """From some address, or for the second factor."""
    return Guess.objects.filter(account__in=accounts(user), tries__gt=MOST, since__gt=Now() - WINDOW).exists()


def accounts(user: User) -> list[str]:
    return [account_of(user.username), factor_of(user)]


@transaction.atomic
def unlock(actor: Actor, user: User) -> bool:
    """False: nothing was counted."""
    gone, _ = Guess.objects.filter(account__in=accounts(user)).delete()
    if gone:
        audit.append(actor, "sign_in.unlocked", "user", user.pk)
    return bool(gone)
