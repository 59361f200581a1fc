"""What can be done about an incident from its page: offered with its numbers, done once, recorded in the incident's log, taken back.

Nothing is done here that cannot be done elsewhere: each action calls the function behind the page, the API or the admin, which asks
for the same rights and writes the same audit entry.
"""

from dataclasses import dataclass
from typing import Any

from django.db import transaction

from console.models import Incident, IncidentEntry
from console.runbooks import shelf
from console.runbooks.reading import Offer
from console.runbooks.words import ACTIONS as PARAMETERS
from runs import stops
from runs.models import ModelDefinition, Run
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools import breakers
from tools.models import Tool

from . import book
from .actions_policy import HoldWrites, Permit, SetTool
from .actions_runtime import LowerCeiling, MoveBreaker, RollBack, UndoWrites
from .actions_switches import Throw
from .actions_types import Action, Button, Place, Preview

ACTIONS: dict[str, Action] = {
    "disable_tool": SetTool(enabled=False),
    "enable_tool": SetTool(enabled=True),
    "deny_tool": Permit("deny"),
    "ask_people": Permit("ask"),
    "agent_drafts": HoldWrites("draft"),
    "agent_read_only": HoldWrites("deny"),
    "go_read_only": Throw("writes"),
    "stop_writes": Throw("writes", stops.STOP),
    "pause_agent": Throw("agent"),
    "pause_everything": Throw("tenant"),
    "open_breaker": MoveBreaker("open"),
    "reset_breaker": MoveBreaker("reset"),
    "roll_back": RollBack(),
    "lower_ceiling": LowerCeiling(),
    "undo_writes": UndoWrites(),
}
USUAL = {"approvers": "1", "kind": "cost_usd_per_day"}  # of parameters that no incident knows
BY_SUBJECT = {  # what the card beside the runbook offers as well
    "tool": ("deny_tool", "disable_tool", "open_breaker"),
    "agent": ("agent_read_only", "pause_agent", "roll_back"),
    "model": ("open_breaker",),
}
ALWAYS = ("go_read_only",)


@dataclass(frozen=True, slots=True)
class Offered:
    """An action as a button. `why_not`: who may instead, or why it would change nothing. `step`: of the runbook; None: of the card."""

    name: str
    button: Button
    why_not: str
    step: int | None = None


# what an incident knows -------------------------------------------------------------------------------------------------------


def facts(incident: Incident) -> dict[str, str]:
    """Of console.runbooks.words.FACTS, those that this incident knows: from its subject, else from what all of its runs share."""
    subject = {name: str(value) for name, value in incident.subject.items() if value}
    found = {name: subject.get(name, "") for name in ("tool", "agent", "model")}
    found["agent"] = found["agent"] or only_agent(incident)
    found["tenant"] = incident.tenant.slug if incident.tenant else ""
    found["host"] = host_of(found["tool"], found["model"])
    return {name: value for name, value in found.items() if value}


def only_agent(incident: Incident) -> str:
    agents = Run.objects.filter(pk__in=run_ids(incident)).values_list("agent", flat=True).distinct()[:2]
    return str(agents[0]) if len(agents) == 1 else ""


def host_of(tool: str, model: str) -> str:
    held = Tool.objects.select_related("current").filter(name=tool).first() if tool else None
    if held is not None and held.current is not None:
        return breakers.host_port(str(held.current.adapter.get("url") or ""))
    found = ModelDefinition.objects.filter(name=model).first() if model else None
    return breakers.host_port(found.base_url) if found else ""


def run_ids(incident: Incident) -> tuple[Any, ...]:
    return tuple(incident.runs.values_list("run_id", flat=True))


# offering ---------------------------------------------------------------------------------------------------------------------


def of_step(actor: Actor, incident: Incident, known: dict[str, str], number: int, offers: tuple[Offer, ...]) -> list[Offered]:
    """Also those that this incident cannot fill in, with what it lacks. None where it is over."""
    if not incident.live:
        return []
    given = ((offer, offer.filled(known)) for offer in offers)
    return [
        offered(actor, incident, offer.name, filled, number) if filled is not None else lacking(offer, known, number)
        for offer, filled in given
    ]


def lacking(offer: Offer, known: dict[str, str], number: int) -> Offered:
    missing = [value[1:-1] for _, value in offer.given if value.startswith("{") and not known.get(value[1:-1])]
    words = Button(offer.name.replace("_", " ").capitalize(), "circle-dashed")
    return Offered(offer.name, words, f"This incident names no {' and no '.join(missing)}.", number)


def of_card(actor: Actor, incident: Incident, known: dict[str, str], besides: tuple[Offer, ...] = ()) -> list[Offered]:
    """Those of the runbook again, and what there usually is to do about such a subject; each once. None where it is over."""
    if not incident.live:
        return []
    subject = [name for kind, names in BY_SUBJECT.items() if known.get(kind) for name in names]
    names = dict.fromkeys([*(offer.name for offer in besides), *subject, *ALWAYS])
    given = ((name, usual(name, known)) for name in names)
    return [offered(actor, incident, name, filled, None) for name, filled in given if filled is not None]


def usual(name: str, known: dict[str, str]) -> dict[str, str] | None:
    """The parameters of an action that no step declares."""
    values = {key: known.get(key) or USUAL.get(key, "") for key in PARAMETERS[name]}
    return values if all(values.values()) else None


def offered(actor: Actor, incident: Incident, name: str, given: dict[str, str], step: int | None) -> Offered:
    action, place = ACTIONS[name], Place(incident.tenant, given, run_ids(incident) if name == "undo_writes" else ())
    return Offered(name, action.button(place), may_not(actor, incident, action, place) or action.hindrance(place), step)


def offered_if(actor: Actor, incident: Incident, name: str) -> Offered | None:
    """None where it would change nothing."""
    filled = usual(name, facts(incident))
    made = offered(actor, incident, name, filled, None) if filled is not None else None
    return made if made and not made.why_not else None


def may_not(actor: Actor, incident: Incident, action: Action, place: Place) -> str:
    if not incident.live:
        return "The incident is resolved. Reopen it to do something about it."
    if not actor.can(book.WRITE):
        return "Operators of the tenant work on incidents."
    return action.why_not(actor, place)


def place_of(incident: Incident, name: str, step: int | None, **said: Any) -> Place:
    """Parameters come from the step of the pinned runbook, or from the incident, never from who asks. Refuses not_found 404."""
    known = facts(incident)
    offers = book_steps(incident).get(step, ()) if step is not None else ()
    given = next((offer.filled(known) for offer in offers if offer.name == name), None) if step is not None else None
    if step is None and name in ACTIONS:
        given = usual(name, known)
    if given is None or name not in ACTIONS:
        raise NotFound("action")
    return Place(incident.tenant, given, run_ids(incident), **said)


def book_steps(incident: Incident) -> dict[int, tuple[Offer, ...]]:
    held = shelf.version(incident.runbook, incident.runbook_version) if incident.runbook else None
    read = shelf.read(held) if held else None
    return {step.number: step.offers for step in read.steps} if read else {}


def preview(actor: Actor, incident: Incident, name: str, step: int | None) -> tuple[Place, Preview]:
    """Refuses not_found 404, and action_refused 403 with who may instead."""
    place = place_of(incident, name, step)
    return place, guarded(actor, incident, name, place).preview(actor, place)


def guarded(actor: Actor, incident: Incident, name: str, place: Place) -> Action:
    action = ACTIONS[name]
    if why_not := may_not(actor, incident, action, place):
        raise Refused("action_refused", why_not, 403 if incident.live else 409)
    return action


# doing ------------------------------------------------------------------------------------------------------------------------


@transaction.atomic
def carry_out(
    actor: Actor, incident: Incident, name: str, step: int | None, reason: str, *,
    typed: str = "", value: str = "", chosen: tuple[str, ...] = (),
) -> IncidentEntry:  # fmt: skip
    """Do it, and record it in the log. Refuses reason_missing, typed_wrong 422, and as the function does that does it."""
    place = place_of(incident, name, step, said={"value": value}, chosen=tuple(sorted(chosen)))
    action = guarded(actor, incident, name, place)
    seen = action.preview(actor, place)
    reason = reasoned(reason)
    if seen.typed and typed.strip() != seen.typed:
        raise Refused("typed_wrong", f"Type {seen.typed} to confirm.", 422, field="typed")
    done = action.do(actor, place, reason)
    data = {"given": place.given, "object_kind": done.kind, "object_id": done.id, "before": done.before, "step": step}
    return book.acted(actor, incident, name, f"{done.says}\n{reason}", **data)


def take_back(actor: Actor, incident: Incident, entry_id: int, reason: str) -> IncidentEntry:
    """The opposite of what an entry of the log did. Refuses not_found 404, not_standing 409, reason_missing 422, and as the function
    does that takes it back. Not one transaction: lifting a switch moves many runs."""
    actor.need(book.WRITE)
    entries = list(incident.entries.filter(kind=IncidentEntry.Kind.ACTION))
    entry = next((each for each in entries if each.pk == entry_id), None)
    if entry is None:
        raise NotFound("action")
    if entry.pk not in standing(incident, entries):
        raise Refused("not_standing", "It was taken back already, or somebody has changed it since.", 409)
    action, place = ACTIONS[entry.data["action"]], Place(incident.tenant, entry.data["given"])
    if why_not := action.why_not(actor, place):
        raise Refused("action_refused", why_not, 403)
    reason = reasoned(reason)
    says = action.take_back(actor, place, entry.data["before"], reason)
    what = {name: entry.data[name] for name in ("object_kind", "object_id")}
    return book.acted(actor, incident, entry.data["action"], f"{says}\n{reason}", **what, takes_back=entry.pk)


def reasoned(reason: str) -> str:
    said = " ".join(reason.split())
    if not said:
        raise Refused("reason_missing", "Say why: the reason is kept with your name.", 422, field="reason")
    return said[:500]


def standing(incident: Incident, entries: list[IncidentEntry]) -> set[int]:
    """Ids of the entries whose action can be taken back now."""
    acts = [entry for entry in entries if entry.kind == IncidentEntry.Kind.ACTION and entry.data.get("action") in ACTIONS]
    past = {entry.data["takes_back"] for entry in acts if "takes_back" in entry.data}
    mine = [entry for entry in acts if "takes_back" not in entry.data and entry.pk not in past]
    return {e.pk for e in mine if ACTIONS[e.data["action"]].stands(Place(incident.tenant, e.data["given"]), e.data["before"])}
