"""Agents and model definitions: their only writer. They belong to the installation; `actor` None is the command line."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from django.db import transaction
from pydantic import Field, field_validator

from tenants import audit, controls
from tenants.actors import Actor
from tenants.errors import Refused
from tools.catalog import check_reachable, need_platform_admin
from tools.definitions import RetryPolicy
from tools.spec import Slug, destination

from .limits import Strict
from .models import Agent, ModelDefinition, Release

Usd = Annotated[Decimal, Field(ge=0, lt=1_000_000, decimal_places=6)]


class PricePerMtok(Strict):
    """USD per million tokens."""

    input: Usd
    output: Usd


class ModelSpec(Strict):
    """The block of one model in a configuration document."""

    provider: Literal["openai", "anthropic"]
    base_url: Annotated[str, Field(max_length=500)]
    model: Annotated[str, Field(min_length=1, max_length=200)]
    credential: Annotated[str, Field(max_length=100)] = ""
    tier: Annotated[str, Field(max_length=32)] = ""
    price_per_mtok_usd: PricePerMtok | None = None  # absent: from the price list, else unpriced
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30
    retry: dict[str, Any] = {}
    max_concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None  # calls in flight at once, over all engines

    @field_validator("base_url")
    @classmethod
    def can_be_sent_to(cls, url: str) -> str:
        destination(url)
        return url.rstrip("/")

    @field_validator("retry")
    @classmethod
    def retry_can_be_read(cls, value: dict[str, Any]) -> dict[str, Any]:
        RetryPolicy.from_json(value)
        return value

    def stored(self) -> dict[str, Any]:
        values = self.model_dump(include=set(ModelSpec.model_fields) - {"price_per_mtok_usd"})
        price = self.price_per_mtok_usd
        return values | {"price_input": price and price.input, "price_output": price and price.output}


@transaction.atomic
def put_model(actor: Actor | None, name: str, spec: ModelSpec) -> tuple[ModelDefinition, tuple[str, ...]]:
    """-> (definition, names of the fields that changed). Runs in flight use it from their next model call on."""
    need_platform_admin(actor)
    check_reachable(spec.base_url)
    row = ModelDefinition.objects.select_for_update(no_key=True).filter(name=name).first()
    before, after = as_json(row), spec.stored()
    changed = tuple(sorted(key for key in after if before is None or before[key] != after[key]))
    if not changed:
        return row or ModelDefinition(name=name), ()
    row = row or ModelDefinition(name=name)
    for key, value in after.items():
        setattr(row, key, value)
    row.save()
    action = "model.updated" if before else "model.created"
    audit.append(actor, action, "model", name, before, after, tenant=None)
    controls.bump(None)
    return row, changed


@transaction.atomic
def delete_model(actor: Actor | None, name: str) -> bool:
    """-> whether it was there. Refuses 409 while a live release names it."""
    need_platform_admin(actor)
    row = ModelDefinition.objects.select_for_update().filter(name=name).first()
    if row is None:
        return False
    if users := [agent.name for agent in Agent.objects.select_related("live") if agent.live and names_model(agent.live, name)]:
        raise Refused("model_in_use", f"{name} is used by the live release of {', '.join(users)}.", 409, agents=users)
    audit.append(actor, "model.deleted", "model", name, as_json(row), None, tenant=None)
    row.delete()
    controls.bump(None)
    return True


def names_model(release: Release, name: str) -> bool:
    roles = [role for role in release.spec["models"].values() if role]
    return any(name == role["model"] or name in role["fallback"] for role in roles)


def as_json(row: ModelDefinition | None) -> dict[str, Any] | None:
    fields = (*(set(ModelSpec.model_fields) - {"price_per_mtok_usd"}), "price_input", "price_output")
    return None if row is None else {field: getattr(row, field) for field in fields}


@transaction.atomic
def put_agent(actor: Actor | None, name: str, tenants: tuple[Slug, ...] = ()) -> tuple[Agent, Literal["create", "update", "unchanged"]]:
    """-> (agent, "create", "update" or "unchanged"). `tenants`: who sees it; empty: every tenant."""
    need_platform_admin(actor)
    seen_by = sorted(set(tenants))
    agent, new = Agent.objects.get_or_create(name=name, defaults={"tenants": seen_by})
    if not new and agent.tenants == seen_by:
        return agent, "unchanged"
    before = None if new else {"tenants": agent.tenants}
    agent.tenants = seen_by
    agent.save(update_fields=["tenants"])
    audit.append(actor, "agent.created" if new else "agent.updated", "agent", name, before, {"tenants": seen_by}, tenant=None)
    return agent, "create" if new else "update"
