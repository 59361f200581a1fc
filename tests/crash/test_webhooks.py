"""T56: what was touched, repeated or is not recent is never believed, and what could not be delivered for long arrives under one id."""

import random
import time
from collections import Counter

import pytest
from asgiref.sync import sync_to_async

from console.models import Delivery
from console.webhooks import SKEW_S, Unverified, headers, verify
from tests.runtime.receiver import SECRET, courier, receiving, settled, until
from tests.runtime.test_callbacks import due, reaches, with_callbacks

from .figures import figure
from .test_chaos import size

NOW = 1_790_000_000
TRIES = 10_000


def touched(rnd: random.Random, given: dict[str, str], body: bytes) -> tuple[str, dict[str, str], bytes, float]:
    """One message, harmed in one of five ways: (which, headers, body, now)."""
    way = rnd.choice(("body", "header", "skew", "replay", "secret"))
    now = float(NOW)
    if way == "body":
        at = rnd.randrange(len(body))
        body = body[:at] + bytes([body[at] ^ rnd.randrange(1, 256)]) + body[at + 1 :]
    elif way == "header":
        name = rnd.choice(sorted(given))
        at = rnd.randrange(len(given[name]))
        letter = rnd.choice([c for c in "0123456789abcXYZ_-+/=., " if c != given[name][at]])
        given = {**given, name: given[name][:at] + letter + given[name][at + 1 :]}
    elif way == "skew":
        now += rnd.choice((-1, 1)) * rnd.uniform(SKEW_S + 1, 10**7)
    elif way == "secret":
        given = headers(f"{SECRET[:-2]}{rnd.randrange(10, 99)}", given["webhook-id"], NOW, body)
    return way, given, body, now


@pytest.mark.mission("P1.4")
async def test_no_message_that_was_harmed_is_accepted_and_none_is_lost_in_an_outage(committed_db: None) -> None:
    rnd, began = random.Random(56), time.monotonic()
    ways: Counter[str] = Counter()
    accepted = 0
    for number in range(TRIES):
        body = rnd.randbytes(rnd.randrange(1, 200))
        message_id = f"msg_{number}"
        way, told, sent, now = touched(rnd, headers(SECRET, message_id, NOW, body), body)
        ways[way] += 1
        try:
            verify(told, sent, [SECRET], now, {message_id} if way == "replay" else ())
            accepted += 1
        except Unverified:
            pass
    assert accepted == 0 and len(ways) == 5
    delivered, sends = await after_an_outage(size(120, 40))
    figure("T56", "webhooks: harmed, repeated or late ones refused; every message of an outage of over an hour delivered under one id",
           n=TRIES, seed=56, seconds=time.monotonic() - began, **dict(sorted(ways.items())), accepted=accepted,
           messages_in_the_outage=delivered, sends_of_them=sends, second_ids=0)  # fmt: skip


async def after_an_outage(count: int) -> tuple[int, int]:
    """The first six sends (5 s, 30 s, 2 min, 10 min, 30 min, 1 h apart, passed by moving `next_at`) find nobody. -> (messages, sends)."""
    async with receiving(up=False) as receiver:
        _, runs = await sync_to_async(with_callbacks)(receiver, count)
        for run in runs:
            await sync_to_async(reaches)(run, "failed")
        ids = {str(one) async for one in Delivery.objects.all()}
        async with courier():
            for attempt in range(1, 7):
                await until(lambda n=attempt: Delivery.objects.filter(attempts=n).count() == count)  # type: ignore[misc]
                if attempt == 6:
                    await receiver.up()
                await sync_to_async(due)()
            await until(settled(count))
    assert set(receiver.ids) == ids and len(receiver.ids) == count, "delivered under its first id, once"
    return count, sum([one.attempts async for one in Delivery.objects.all()])
