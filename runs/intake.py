"""Accepting runs: one transaction holds the run, what was asked, its first event and the answer to its Idempotency-Key."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now
from pydantic import Field, JsonValue, field_validator

from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode, encode, new_id
from tenants.models import IdempotencyRecord, Tenant, User

from . import answer_cache, callbacks, ceilings, switches
from .callbacks import Callback
from .events import Kind, event
from .history import DUE, append, notify
from .ladder import Do
from .limits import Limits, Strict, Tightening
from .models import Agent, Release, Rollout, Run, RunInput
from .rollouts import takes_candidate
from .spec import ReleaseSpec, limits

INPUT_MAX = 256 * 1024  # bytes of JSON in UTF-8
METADATA_MAX = 16 * 1024
ENDPOINT = "POST /runs"
Text = Annotated[str, Field(min_length=1)]


class Question(Strict):
    text: Text
    data: JsonValue = None


class ActsFor(Strict):
    """The user that a run acts for, as the caller knows them."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    attributes: dict[str, JsonValue] = {}


class Order(Strict):
    """The body of `POST /runs`. `budget` may only tighten; `release` ("rel_…") pins another release of the same agent."""

    agent: Annotated[str, Field(min_length=1, max_length=64)]
    input: Text | Question
    user: ActsFor | None = None
    session: Annotated[str, Field(max_length=128)] = ""
    metadata: dict[str, JsonValue] = {}
    budget: Tightening | None = None
    release: str | None = None
    mode: Literal["normal", "read_only", "draft"] = "normal"
    callback: Callback | None = None

    @field_validator("agent", "input", "user", "session", "metadata", "callback")
    @classmethod
    def can_be_stored(cls, value: Any) -> Any:
        dumped = as_json(value)
        if b"\\u0000" in dumped.replace(b"\\\\", b""):
            raise ValueError("holds a NUL character")
        return value

    @property
    def question(self) -> Question:
        return self.input if isinstance(self.input, Question) else Question(text=self.input)


@dataclass(frozen=True, slots=True)
class Accepted:
    run: Run
    replayed: bool = False


def submit(
    actor: Actor,
    order: Order,
    *,
    idempotency_key: str | None = None,
    body_sha256: bytes | None = None,
    traceparent: str = "",
    priority: int = 0,
) -> Accepted:
    """Accept a run, or give back the one this key was answered with. `priority` 1: the caller waits for the answer.

    Refuses with: ceiling_reached 402, scope_missing, tenant_inactive 403, not_found, no_live_release, idempotency_in_flight 409,
    input_too_large, metadata_too_large 413, quota_concurrent_runs, quota_runs_per_minute 429, idempotency_key_reused,
    idempotency_key_invalid, egress_refused, callback_secret_missing 422.
    """
    actor.need("runs:write")
    _sizes(order)
    body = body_sha256 or hashlib.sha256(as_json(order.model_dump(mode="json"))).digest()
    with transaction.atomic():
        if idempotency_key is not None and (earlier := _answered(actor.tenant, idempotency_key, body)):
            return Accepted(earlier, replayed=True)
        tenant, agent, now = usable(actor.tenant, order.agent)
        if order.callback:
            callbacks.check(tenant, order.callback)
        release = release_for(tenant, agent, order)
        spec = ReleaseSpec.model_validate(release.spec)
        asked = _asked(order, limits(spec, order.budget), traceparent)
        if any(rung.do is Do.CACHED for rung in spec.ladder):
            asked.input_key = answer_cache.input_key(asked.text, asked.data, asked.user)
        run = place(asked, tenant=tenant, release=release, starter=actor.user, mode=order.mode, now=now, priority=priority)
        if idempotency_key is not None:
            IdempotencyRecord.objects.create(tenant=tenant, key=idempotency_key, endpoint=ENDPOINT, body_sha256=body, object_id=run.id)
    return Accepted(run)


def usable(tenant: Tenant, agent_name: str) -> tuple[Tenant, Agent, datetime]:
    """The tenant if it is active and the agent if that tenant sees it, both as they are now, and the database's time."""
    current = Tenant.objects.annotate(now=Now()).get(pk=tenant.pk)
    if not current.active:
        raise Refused("tenant_inactive", f"The tenant {current.slug} is switched off.", 403)
    agent = Agent.objects.select_related("live", "canary__candidate").filter(name=agent_name).first()
    if agent is None or (agent.tenants and current.slug not in agent.tenants):
        raise NotFound("agent")
    switches.refuse_new(current, agent_name)
    return current, agent, current.now


def place(
    asked: RunInput,
    *,
    tenant: Tenant,
    release: Release,
    starter: User,
    mode: str,
    now: datetime,
    retry_of: str | None = None,
    priority: int = 0,
) -> Run:
    """Insert a queued run with what it was asked (not saved yet, limits filled in) and its first event; wake an engine.

    Every run comes through here, so here it is held to its ceilings: last, because others wait from then on.
    """
    deadline_at = now + timedelta(seconds=asked.limits["run_s"])
    run = Run(
        tenant=tenant, agent_id=release.agent_id, release=release, mode=mode, starter=starter, deadline_at=deadline_at, seq=0,
        created_at=now, priority=priority,
    )  # fmt: skip
    sha256 = hashlib.sha256(as_json({"text": asked.text, "data": asked.data})).hexdigest()
    data = {"agent": release.agent_id, "release": release.release_id, "input_sha256": sha256} | origin(asked, retry_of)
    append(run, [event(Kind.RUN_ACCEPTED, data=data)])
    run.save(force_insert=True)
    asked.run = run
    asked.save(force_insert=True)
    notify(DUE, run.id)
    ceilings.hold(run, asked.limits["max_cost_micro"], tenant)
    return run


def origin(asked: RunInput, retry_of: str | None) -> dict[str, Any]:
    """What else the first event says: the run that this one comes from, and that it changes nothing."""
    found: dict[str, Any] = {"retry_of": retry_of} if retry_of else {}
    if asked.fork:
        found |= {"fork_of": encode("agt", UUID(asked.fork["of"])), "fork_step": asked.fork["step"]}
    if asked.rehearsal:
        found |= {"rehearsal": asked.rehearsal["kind"]}
    return found


def as_json(value: Any) -> bytes:
    """Compact JSON with sorted names in UTF-8. Raises ValueError for what JSON or UTF-8 cannot say (NaN, lone surrogates)."""
    plain = value.model_dump(mode="json") if isinstance(value, Strict) else value
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def _sizes(order: Order) -> None:
    if len(as_json(order.input)) > INPUT_MAX or (order.user and len(as_json(order.user)) > INPUT_MAX):
        raise Refused("input_too_large", f"input and user have at most {INPUT_MAX} bytes each.", 413, limit=INPUT_MAX)
    if len(as_json(order.metadata)) > METADATA_MAX:
        raise Refused("metadata_too_large", f"metadata has at most {METADATA_MAX} bytes.", 413, limit=METADATA_MAX)


def _answered(tenant: Tenant, key: str, body: bytes) -> Run | None:
    found = answered_before(tenant, ENDPOINT, key, body)
    return None if found is None else Run.objects.get(pk=found)


def answered_before(tenant: Tenant, endpoint: str, key: str, body: bytes) -> UUID | None:
    """The id that this key was answered with. None: the key is ours until the transaction ends.

    The lock is tried, never waited for: whoever holds it is doing the work right now.
    """
    if not (0 < len(key) <= 255 and key.isprintable()):
        raise Refused("idempotency_key_invalid", "An Idempotency-Key has 1 to 255 printable characters.", 422)
    with connection.cursor() as cursor:
        cursor.execute("select pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"{tenant.pk}|{endpoint}|{key}"])
        if not cursor.fetchone()[0]:
            raise Refused("idempotency_in_flight", "A request with this key is being answered. Ask again.", 409)
    record = IdempotencyRecord.objects.filter(tenant=tenant, endpoint=endpoint, key=key).first()
    if record is None:
        return None
    if bytes(record.body_sha256) != body:
        raise Refused("idempotency_key_reused", "This key was used with another body. Use a new key.", 422)
    return record.object_id


def release_for(tenant: Tenant, agent: Agent, order: Order) -> Release:
    """The one that was named, else the live one, or the candidate of an open canary for those whose share it is."""
    if order.release is not None:
        return pinned_release(agent, order.release)
    if agent.live is None:
        raise Refused("no_live_release", f"The agent {agent.name} has no live release. Promote one.", 409)
    canary = agent.canary
    if canary is None or not takes_candidate(str(canary.id), key_of(canary, tenant, order), canary.share):
        return agent.live
    return canary.candidate


def key_of(canary: Rollout, tenant: Tenant, order: Order) -> str:
    """Who gets the same release each time. Without a user, the session stands in; without both, each run is drawn for itself."""
    user = order.user.id if order.user and canary.key == "user" else ""
    who = "" if canary.key == "tenant" else user or order.session or str(new_id())
    return f"{tenant.pk}|{who}"


def pinned_release(agent: Agent, wanted: str) -> Release:
    try:
        found = Release.objects.filter(pk=decode("rel", wanted), agent=agent).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("release")
    return found


def _asked(order: Order, within: Limits, traceparent: str) -> RunInput:
    return RunInput(
        text=order.question.text,
        data=order.question.data,
        user=order.user.model_dump(mode="json") if order.user else None,
        session=order.session,
        metadata=order.metadata,
        limits=within.model_dump(mode="json"),
        traceparent=traceparent[:64],
        callback=order.callback.model_dump(mode="json") if order.callback else None,
    )
