"""Channels: the only writer. Admins say where their tenant is told of what happens; the courier tells it."""

import json
import re
from typing import Annotated, Any, Literal, Self

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Credential, Tenant
from tools.catalog import check_reachable
from tools.spec import destination

from . import deliveries, notices
from .models import Channel, Delivery

MOST = 20  # channels of a tenant: each event is one row for each that listens
TEMPLATE_BYTES = 16 * 1024
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
Address = Annotated[str, Field(max_length=254)]
Secret = Annotated[str, Field(max_length=100)]


class ChannelSpec(BaseModel):
    """What a channel is. `secret_name`: the credential that signs; a webhook is always signed. `url_secret`: the credential that holds
    the address, which for Slack and Teams is the only way: whoever knows such an address may post there."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    kind: Literal["webhook", "slack", "teams", "email"]
    url: Annotated[str, Field(max_length=2000)] = ""
    url_secret: Secret = ""
    addresses: Annotated[tuple[Address, ...], Field(max_length=20)] = ()
    secret_name: Secret = ""
    events: Annotated[tuple[str, ...], Field(min_length=1, max_length=len(notices.EVENTS))]
    template: dict[str, Any] | None = None
    enabled: bool = True

    @field_validator("url")
    @classmethod
    def can_be_sent_to(cls, url: str) -> str:
        if url:
            destination(url)
        return url

    @field_validator("addresses")
    @classmethod
    def are_addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for one in addresses:
            try:
                validate_email(one)
            except ValidationError:
                raise ValueError(f"{one[:60]} is no e-mail address") from None
        return addresses

    @field_validator("events")
    @classmethod
    def are_known(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        if strange := sorted(set(events) - set(notices.EVENTS)):
            raise ValueError(f"unknown event {strange[0]} (known: {', '.join(notices.EVENTS)})")
        return tuple(name for name in notices.EVENTS if name in events)

    @field_validator("template")
    @classmethod
    def can_be_filled(cls, template: dict[str, Any] | None) -> dict[str, Any] | None:
        if template is not None and len(json.dumps(template)) > TEMPLATE_BYTES:
            raise ValueError(f"larger than {TEMPLATE_BYTES // 1024} KiB")
        if strange := notices.unknown(template):
            raise ValueError(f"nothing fills {{{strange[0]}}} (known: {', '.join(sorted(notices.NAMES))})")
        return template

    @model_validator(mode="after")
    def has_one_address(self) -> Self:
        if self.kind == "email":
            if not self.addresses or self.url or self.url_secret or self.secret_name or self.template is not None:
                raise ValueError("a channel of e-mail has addresses, and no url, secret or template")
            return self
        if self.addresses:
            raise ValueError("addresses belong to channels of e-mail")
        if self.kind == "webhook" and (bool(self.url) == bool(self.url_secret) or not self.secret_name):
            raise ValueError("a webhook has either url or url_secret, and secret_name to sign with")
        if self.kind != "webhook" and (self.url or not self.url_secret):
            raise ValueError(f"the address of {self.kind} is a secret: enter it as a credential and name that as url_secret")
        return self


@transaction.atomic
def put(actor: Actor, tenant: Tenant, name: str, spec: ChannelSpec, reason: str = "") -> tuple[Channel, bool]:
    """-> (the channel, whether it is new). Refuses: scope_missing 403; bad_channel, egress_refused, secret_missing, too_many 422."""
    actor.need("config:write")
    if not NAME.fullmatch(name):
        message = "A channel's name begins with a letter and has up to 64 letters, digits, dots, dashes and underscores."
        raise Refused("bad_channel", message, 422, field="name")
    check(tenant, spec)
    channel = Channel.objects.select_for_update(no_key=True).filter(tenant=tenant, name=name).first()
    before = as_json(channel) if channel else None
    if channel is None:
        if Channel.objects.filter(tenant=tenant).count() >= MOST:
            raise Refused("too_many", f"A tenant has at most {MOST} channels. Delete one first.", 422)
        channel = Channel(tenant=tenant, name=name)
    for field, value in spec.model_dump(mode="json").items():
        setattr(channel, field, value)
    after = as_json(channel)
    if before != after:
        channel.save()
        action = "channel.updated" if before else "channel.created"
        audit.append(actor, action, "channel", name, before, after, reason, tenant=tenant)
    return channel, before is None


def check(tenant: Tenant, spec: ChannelSpec) -> None:
    if spec.url:
        check_reachable(spec.url)
    for secret in filter(None, (spec.url_secret, spec.secret_name)):
        if not Credential.objects.filter(tenant=tenant, name=secret).exists():
            message = f"There is no credential {secret} in {tenant.slug}. An admin can add it in the admin."
            raise Refused("secret_missing", message, 422, secret_name=secret)


@transaction.atomic
def delete(actor: Actor, channel: Channel, reason: str = "") -> None:
    """What was to be sent to it is sent to nobody."""
    actor.need("config:write")
    Delivery.objects.filter(channel=channel, state=Delivery.State.PENDING).update(state=Delivery.State.FAILED, next_at=Now())
    audit.append(actor, "channel.deleted", "channel", channel.name, as_json(channel), None, reason, tenant=channel.tenant)
    channel.delete()


@transaction.atomic
def test(actor: Actor, channel: Channel) -> Delivery:
    """One message that says it is a test, through the same door as all others; also while the channel is off."""
    actor.need("config:write")
    made = Delivery.objects.create(
        tenant=channel.tenant, channel=channel, kind=channel.kind, event=notices.TEST, url=f"channel://{channel.pk}/",
        secret_name=channel.secret_name, body={"at": now()},
    )  # fmt: skip
    audit.append(actor, "channel.tested", "channel", channel.name, tenant=channel.tenant)
    deliveries.wake()
    return made


def now() -> str:
    with connection.cursor() as cursor:
        cursor.execute("""select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')""")
        (at,) = cursor.fetchone()
    return str(at)


def visible(actor: Actor) -> "QuerySet[Channel]":
    return Channel.objects.filter(tenant=actor.tenant).select_related("tenant").order_by("name")


def find(actor: Actor, name: str) -> Channel:
    """Channels are looked at in one tenant at a time, so that a name is enough."""
    found = visible(actor).filter(name=name).first()
    if found is None:
        raise NotFound("channel")
    return found


def as_json(channel: Channel) -> dict[str, Any]:
    """No secret is in it: of addresses that are secrets, the name of the credential."""
    return {field: getattr(channel, field) for field in ChannelSpec.model_fields} | {
        "addresses": list(channel.addresses),
        "events": list(channel.events),
    }
