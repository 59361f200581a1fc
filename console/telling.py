"""The facts of a notice, read when it is sent, and the ways in which the courier sends it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings
from django.urls import reverse

from approvals.models import Approval, ApprovalDecision
from approvals.people import groups_of
from runs.models import Switch
from tenants import credentials
from tenants.ids import encode
from tenants.models import Credential
from tools.egress import Request, build_request

from . import callbacks, notices, webhooks
from .deliveries import Leased
from .incidents.kinds import spelled
from .models import Channel, Incident
from .notices import Notice

WORDS = {
    "approval.requested": "Approval needed",
    "approval.reminder": "Still waiting for approval",
    "approval.escalated": "Escalated: approval needed",
    "approval.decided": "Decided",
    "approval.expired": "Expired without a decision",
    "approval.break_glass": "Glass broken: somebody decided alone",
}


class Unsendable(Exception):
    """Nothing was sent. `error`: its class for the log of the delivery."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True, slots=True)
class Mail:
    """A letter for Django's mail backend."""

    message_id: str
    to: tuple[str, ...]
    subject: str
    text: str = field(repr=False)


def opened(message: Leased, name: str) -> str:
    """A credential of the message's tenant. Raises Unsendable: it was removed, or cannot be opened."""
    row = Credential.objects.filter(tenant_id=message.tenant_id, name=name).first()
    if row is None:
        raise Unsendable("secret_missing")
    try:
        return credentials.opened(row).secret
    except credentials.Unreadable:
        raise Unsendable("secret_unusable") from None


def signing_key(message: Leased, name: str) -> str:
    secret = opened(message, name)
    try:
        webhooks.key_of(secret)
    except ValueError:
        raise Unsendable("secret_unusable") from None
    return secret


def notice(message: Leased) -> Request | Mail:
    """A message of a channel, with the address and the template that the channel has now."""
    channel = Channel.objects.filter(pk=message.channel_id).first() if message.channel_id else None
    if channel is None:
        raise Unsendable("channel_gone")
    said = said_of(message, channel)
    if channel.kind == Channel.Kind.EMAIL:
        subject, text = notices.mail(said)
        return Mail(message.message_id, tuple(channel.addresses), subject, text)
    raw = json.dumps(notices.body(channel.kind, said, channel.template), ensure_ascii=False, separators=(",", ":")).encode()
    headers = callbacks.trace_headers(message.run_id) if channel.kind == Channel.Kind.WEBHOOK else {}
    if channel.secret_name:
        headers |= webhooks.headers(signing_key(message, channel.secret_name), message.message_id, message.now, raw)
    url = opened(message, channel.url_secret) if channel.url_secret else channel.url
    return build_request("POST", url, headers=headers, json_bytes=raw)


def said_of(message: Leased, channel: Channel) -> Notice:
    """Raises Unsendable when what it is about is not there any more."""
    moment = message.body
    at = str(moment.get("at", ""))
    if "approval" in moment:
        found = Approval.objects.filter(pk=UUID(moment["approval"])).first()
        if found is None:
            raise Unsendable("subject_gone")
        return of_approval(message.event, at, moment, found)
    for name, of in ABOUT.items():
        if name in moment:
            return of(message.event, at, moment)
    if message.run_id is not None:
        return of_run(message.event, at, moment, message.run_id)
    data = {"channel": channel.name}
    return Notice(message.event, at, f"Test of the channel {channel.name}", (), data, address("channel", channel.name))


def of_approval(event: str, at: str, moment: Mapping[str, Any], found: Approval) -> Notice:
    what = {Approval.Kind.ANSWER: "an answer", Approval.Kind.BUDGET: "more budget"}.get(Approval.Kind(found.kind), found.tool)
    by = names_of(found) if event in ("approval.decided", "approval.break_glass") else ""
    groups = groups_of(found) if event != "approval.requested" else [found.group] * bool(found.group)
    facts = [
        ("Agent", found.agent), ("Tool", found.tool), ("Effect", found.effect), ("Risk", found.risk), ("Group", " or ".join(groups)),
        ("State", str(moment.get("state", ""))), ("By", by), ("Expires", instant(found) if event in OPEN else ""), ("Digest", found.digest),
    ]  # fmt: skip
    data = {
        "approval_id": found.approval_id, "run_id": encode("agt", found.run_id), "agent": found.agent, "tool": found.tool or None,
        "kind": found.kind, "effect": found.effect, "risk": found.risk, "digest": found.digest, "needed": found.needed, "groups": groups,
        "expires_at": instant(found), "by": by or None, "state": moment.get("state"), "reminder": moment.get("reminder"),
    }  # fmt: skip
    title = f"{WORDS.get(event, event)}: {what} by {found.agent}"
    return Notice(event, at, title, tuple((k, v) for k, v in facts if v), data, address("approval", found.approval_id))


OPEN = ("approval.requested", "approval.reminder", "approval.escalated")


def of_run(event: str, at: str, moment: Mapping[str, Any], run_id: UUID) -> Notice:
    agent, state, outcome = (str(moment.get(name) or "") for name in ("agent", "state", "outcome"))
    run = encode("agt", run_id)
    words = state.replace("_", " ")
    facts = (("Agent", agent), ("State", words), ("Outcome", outcome.replace("_", " ")))
    data = {"run_id": run, "agent": agent, "state": state, "outcome": outcome or None}
    return Notice(event, at, f"Run {words}: {agent}", tuple(pair for pair in facts if pair[1]), data, address("run", run))


def names_of(found: Approval) -> str:
    """`Amy for Abe`, as everywhere a decision is shown."""
    said = ApprovalDecision.objects.filter(approval=found).select_related("user", "for_user").order_by("id")
    return ", ".join(f"{one.user.username} for {one.for_user.username}" if one.for_user else one.user.username for one in said)


def of_incident(event: str, at: str, moment: Mapping[str, Any]) -> Notice:
    """As it was then; whose it is, as it is now."""
    found = Incident.objects.select_related("owner").filter(pk=UUID(moment["incident"])).first()
    if found is None:
        raise Unsendable("subject_gone")
    state, severity = str(moment.get("state", "")), str(moment.get("severity", ""))
    again = bool(moment.get("again")) and event == "incident.opened"
    owner, by = (user.username if user else "" for user in (found.owner, found.resolved_by if state == "resolved" else None))
    value = spelled(found.value, found.evidence["unit"]) if found.value is not None and "unit" in found.evidence else ""
    about = {name.capitalize(): str(text) for name, text in found.subject.items()}
    facts = {"Severity": severity, "State": state, **about, "Value": value, "Owner": owner, "By": by, "Runbook": found.runbook}
    data = {
        "incident_id": str(found), "state": state, "severity": severity, "again": again, "detector": found.detector or None,
        "subject": found.subject, "owner": owner or None, "runbook": found.runbook or None, "value": found.value,
    }  # fmt: skip
    title = f"{INCIDENT_WORDS.get((event, again), 'Incident')}: {found.title}"
    return Notice(event, at, title, tuple((k, v) for k, v in facts.items() if v), data, address("incident", str(found)))


INCIDENT_WORDS = {
    ("incident.opened", False): "Incident",
    ("incident.opened", True): "Incident again",
    ("incident.acknowledged", False): "Acknowledged",
    ("incident.resolved", False): "Resolved",
}


def of_switch(event: str, at: str, moment: Mapping[str, Any]) -> Notice:
    found = Switch.objects.select_related("by", "lifted_by", "tenant").filter(pk=UUID(moment["switch"])).first()
    if found is None:
        raise Unsendable("subject_gone")
    by = found.lifted_by if event == "switch.lifted" else found.by
    facts = {"Scope": found.scope, "Agent": found.agent, "Tool": found.tool, "By": by.username if by else ""}
    data = {
        "switch_id": str(found), "scope": found.scope, "then": found.then, "drill": found.drill, "agent": found.agent or None,
        "tool": found.tool or None, "tenant": found.tenant.slug if found.tenant else None, "by": facts["By"] or None,
    }  # fmt: skip
    what = {"all": "everything", "writes": "all writes", "tenant": "the tenant"}.get(found.scope, found.agent or found.tool)
    done = "Switch lifted" if event == "switch.lifted" else "Kill switch on"
    title = f"{'Drill: ' if found.drill else ''}{done}: {what}"
    return Notice(event, at, title, tuple((k, v) for k, v in facts.items() if v), data, settings.PUBLIC_URL + reverse("switches"))


ABOUT = {"incident": of_incident, "switch": of_switch}  # what a moment names -> how it is said


def instant(found: Approval) -> str:
    return found.expires_at.isoformat(timespec="seconds").replace("+00:00", "Z")


def address(page: str, name: str) -> str:
    return settings.PUBLIC_URL + reverse(page, args=[name])
