"""The oldest PostgreSQL we promise, and Redis as the broker of the jobs. Run by `make test-services`."""

import os

import psycopg
import pytest
from asgiref.sync import sync_to_async

from approvals.models import Approval
from runs import signoff
from tests.runtime.world import TICKET, World, call

pytestmark = pytest.mark.services


async def test_a_write_is_approved_and_sent_once_on_postgresql_15(world: World) -> None:
    async with await psycopg.AsyncConnection.connect(world.dsn) as connection:
        assert connection.info.server_version // 10_000 == 15
    await world.agent()
    run = await world.script(call("search_docs", query="x"), call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    await world.until(run, "waiting_approval")
    approval = await Approval.objects.aget(run_id=run.id)
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    done = await world.until(run)
    assert done.outcome == "completed" and len(await world.ledger()) == 1
    assert [e.seq for e in await world.events(run)] == list(range(1, done.seq + 1))


async def test_history_cannot_be_rewritten_by_the_plain_role_on_postgresql_15(world: World) -> None:
    await world.agent(tools=())
    await world.submit("hello")
    async with await psycopg.AsyncConnection.connect(world.dsn, autocommit=True) as connection:
        for statement in ("update event set kind = 'x'", "delete from event", "truncate event"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement)


def test_redis_carries_the_messages_of_the_jobs() -> None:
    from django_q.brokers import get_broker

    assert os.environ["REDIS_URL"]
    broker = get_broker("signalbox-test")
    assert broker.ping()
    broker.enqueue("only an id")
    [(key, message)] = broker.dequeue()
    assert message == b"only an id"
    broker.acknowledge(key)
    assert broker.queue_size() == 0
