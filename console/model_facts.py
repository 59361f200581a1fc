"""What the console and the API say of a model: its definition, its price and where that comes from, its host, and who uses it."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from console.api.registry import seen_by
from console.model_metrics import Used
from console.records import time, usd
from runs.inference.prices import price_of
from runs.models import Agent, ModelDefinition, Release
from tenants.actors import Actor
from tools.breakers import host_port
from tools.models import Breaker

JSON = dict[str, Any]
RELEASES = 20
LOOKED_AT = 300  # releases that are looked through for those that name a model
SOURCES = {
    "operator": "Set by the operator",
    "list": "From the price list",
    "both": "Partly set by the operator, partly from the price list",
}


def price(model: ModelDefinition) -> JSON | None:
    """{input, output (USD per million tokens), source}. None: not priced, which is not free."""
    found = price_of(model.provider, model.model, model.price_input, model.price_output)
    if found is None:
        return None
    given = [side for side in (model.price_input, model.price_output) if side is not None]
    return {"input": found.input, "output": found.output, "source": {2: "operator", 1: "both", 0: "list"}[len(given)]}


def plain(amount: Decimal) -> str:
    return format(amount.normalize(), "f")


def releases(actor: Actor, name: str) -> list[JSON]:
    """The newest releases that name the model, with the roles they name it for."""
    rows = Release.objects.select_related("agent").filter(agent__in=Agent.objects.filter(seen_by(actor))).order_by("-id")[:LOOKED_AT]
    named = [{"release": row, "live": row.agent.live_id == row.id, "roles": roles} for row in rows if (roles := roles_of(row, name))]
    return named[:RELEASES]


def roles_of(release: Release, name: str) -> list[str]:
    """`planner`, or `planner (fallback)`."""
    roles = {role: block for role, block in release.spec["models"].items() if block}
    asked = [role for role, block in roles.items() if block["model"] == name]
    return asked + [f"{role} (fallback)" for role, block in roles.items() if name in block.get("fallback", ())]


def state_of(breaker: Breaker | None) -> str:
    """The key of its look in `console.status`."""
    if breaker is None:
        return Breaker.State.CLOSED.value
    return f"held_{breaker.forced}" if breaker.forced else breaker.state


def breaker_record(row: Breaker) -> JSON:
    return {
        "id": str(row.pk),
        "tenant": row.tenant.slug,
        "host_port": row.host_port,
        "state": row.state,
        "forced": row.forced or None,
        "reason": row.reason,
        "sends": row.sends,
        "failures": row.failures,
        "opened_at": time(row.opened_at),
        "probe_at": time(row.probe_at),
        "changed_by": row.changed_by or None,
        "changed_at": time(row.changed_at),
    }


def model_record(model: ModelDefinition, used: Used | None, flying: int, held: Iterable[Breaker]) -> JSON:
    """`used` is of the last 24 clock hours."""
    priced, whole = price(model), used.whole if used else None
    return {
        "name": model.name,
        "provider": model.provider,
        "model": model.model,
        "tier": model.tier,
        "host_port": host_port(model.base_url),
        "timeout_s": model.timeout_s,
        "max_concurrency": model.max_concurrency,
        "retry": model.retry,
        "price_per_mtok_usd": priced and {"input": plain(priced["input"]), "output": plain(priced["output"]), "source": priced["source"]},
        "in_flight": flying,
        "calls": whole.calls if whole else 0,
        "sends": whole.sends if whole else 0,
        "error_rate": round(whole.error_rate, 4) if whole else None,
        "p50_ms": whole and whole.p50_ms,
        "p95_ms": whole and whole.p95_ms,
        "cost_usd": usd(whole.cost_micro if whole else 0) if priced else None,
        "cost_usd_today": usd(whole.today_micro if whole else 0) if priced else None,
        "breakers": [breaker_record(row) for row in held],
    }
