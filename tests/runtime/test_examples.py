"""The examples: each applies, and the first one does what the five-minute start says."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from approvals.models import Approval
from console import document
from console.apply import apply
from runs import signoff
from runs.models import Call
from runs.states import CallState
from tenants.models import Tenant

from .world import World

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FIRST = EXAMPLES / "first" / "agent.yaml"
BESIDE = {"provider.yaml": [FIRST], "guarded.yaml": [FIRST]}
SECRETS = {"PROVIDER_KEY": "key-of-a-provider"}


def loaded(*paths: Path, sandbox: str = "http://127.0.0.1:9009", port: int = 9200) -> document.Document:
    parts = [document.read(path.read_text().replace(":9200", f":{port}").encode()) for path in paths]
    return document.load(*parts, variables={"SANDBOX_URL": sandbox, "SANDBOX_HOSTPORT": sandbox.rpartition("/")[2]})


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_every_example_applies_and_again_changes_nothing(path: Path, db: None) -> None:
    Tenant.objects.create(slug="acme")
    wanted = loaded(*BESIDE.get(path.name, []), path)
    with transaction.atomic():
        assert {change.action for change in apply(None, wanted, secrets=SECRETS)} <= {"create", "unchanged"}
        assert {change.action for change in apply(None, wanted, secrets=SECRETS)} == {"unchanged"}
        assert not [found for change in apply(None, wanted, secrets=SECRETS) for found in change.lint if found.severity == "error"]


@pytest.fixture
def stockroom() -> Iterator[int]:
    """The example's server as it stands there, on a free port."""
    source = (EXAMPLES / "first" / "stockroom.py").read_text().replace('("127.0.0.1", 9200)', '("127.0.0.1", 0)')
    source = source.replace("ThreadingHTTPServer(", "server = ThreadingHTTPServer(").replace(").serve_forever()", ")")
    source += "    print(server.server_port, flush=True)\n    server.serve_forever()\n"
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline().startswith("The stock room is at")
    yield int(process.stdout.readline())
    process.terminate()
    process.wait(10)
    process.stdout.close()


async def test_the_first_example_calls_its_own_tools_and_orders_once_after_approval(world: World, stockroom: int) -> None:
    await sync_to_async(apply)(None, loaded(FIRST, sandbox=world.url, port=stockroom))
    asked = await world.submit("How much tea is in stock?", agent="stock-keeper")
    order = await world.submit("Check the stock of tea and order 20.", agent="stock-keeper")
    await world.engine()
    assert await world.answer(await world.until(asked)) == "check_stock: item tea, left 3. This answer is simulated."
    await world.until(order, "waiting_approval")
    approval = await Approval.objects.aget(run_id=order.id, state="pending")
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    done = await world.until(order)
    assert "order_item: order_id order-1, item tea, quantity 20." in await world.answer(done)
    assert await Call.objects.filter(run_id=order.id, name="order_item", state=CallState.DONE).acount() == 1
