"""Actions on what runs go through: breakers, releases, ceilings, and writes that were made."""

from dataclasses import dataclass

from django.db import transaction

from console import undoing
from runs import ceilings as run_ceilings
from runs import releases, undo
from runs.impact import impact
from runs.models import Agent, Release, Run
from tenants import ceilings
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode
from tenants.models import Ceiling
from tools import breakers
from tools.models import Breaker

from .actions_types import JSON, Button, Choice, Done, Place, Preview, lately, platform_only, plural, refusal

MOST_WRITES = 50  # that one action undoes
TYPED_OVER = 20


@dataclass(frozen=True, slots=True)
class MoveBreaker:
    """The word of a person on the breaker of a host, in one tenant."""

    action: str  # open, reset

    def why_not(self, actor: Actor, place: Place) -> str:
        if place.tenant is None:
            return "A breaker belongs to one tenant, and this incident to none. Move it on the page of the tool or the model."
        return "" if breakers.may_force(actor, place.tenant) else "Breakers are moved by operators of the tenant."

    def hindrance(self, place: Place) -> str:
        held = self.held(place)
        if self.action == "open":
            return "It is held open already." if held and held.forced == Breaker.Forced.OPEN else ""
        return "" if held and (held.forced or held.state != Breaker.State.CLOSED) else "It is closed, and measured."

    def button(self, place: Place) -> Button:
        host = place.given["host"]
        return (
            Button(f"Hold back calls to {host}", "zap-off", danger=True)
            if self.action == "open"
            else Button(f"Reset the breaker of {host}", "rotate-ccw")
        )

    def preview(self, actor: Actor, place: Place) -> Preview:
        host, held = place.given["host"], self.held(place)
        state = held.state.replace("_", "-") if held else "closed"
        now = f"It is held {held.forced} now." if held and held.forced else f"It is {state} now."
        if self.action == "reset":
            says = f"{now} It is closed, and opens again by itself when half of at least 20 sends fail."
            return Preview(f"Reset the breaker of {host}?", says, lasting=True)
        says = f"{now} No call {place.where} is sent to {host} until somebody resets it; runs take their next rung, or wait."
        return Preview(f"Hold back calls to {host}?", says, "Keep sending")

    def held(self, place: Place) -> Breaker | None:
        return Breaker.objects.filter(tenant=place.tenant, host_port=place.given["host"]).first()

    def do(self, actor: Actor, place: Place, reason: str) -> Done:
        host = place.given["host"]
        if place.tenant is None or breakers.host_port(f"http://{host}") != host:
            raise NotFound("breaker")
        breaker = breakers.of(actor, host, place.tenant)
        was = {"state": breaker.state, "forced": breaker.forced}
        breakers.force(actor, breaker.pk, self.action, reason)
        says = f"The breaker of {host} {place.where} is {'held open' if self.action == 'open' else 'reset'}."
        return Done("breaker", host, says, {"breaker": was})

    def stands(self, place: Place, done: JSON) -> bool:
        held = self.held(place)
        return self.action == "open" and held is not None and held.forced == Breaker.Forced.OPEN

    def take_back(self, actor: Actor, place: Place, done: JSON, reason: str) -> str:
        return MoveBreaker("reset").do(actor, place, reason).says


@dataclass(frozen=True, slots=True)
class RollBack:
    """The agent's live release becomes the one before."""

    def why_not(self, actor: Actor, place: Place) -> str:
        return platform_only(actor)

    def hindrance(self, place: Place) -> str:
        return "" if self.previous(place) else "No release was live before this one."

    def button(self, place: Place) -> Button:
        before = self.previous(place)
        return Button(f"Roll {place.given['agent']} back" + (f" to r{before.number}" if before else ""), "rotate-ccw")

    def previous(self, place: Place) -> Release | None:
        lives = releases.history(place.given["agent"])
        return Release.objects.filter(pk=lives[-2]).first() if len(lives) > 1 else None

    def preview(self, actor: Actor, place: Place) -> Preview:
        name, before = place.given["agent"], self.previous(place)
        agent = Agent.objects.select_related("live").filter(name=name).first()
        now, then = (f"r{each.number}" if each else "nothing" for each in (agent and agent.live, before))
        hit = impact("agent", agent=name)
        says = (
            f"New runs of {name} get {then} instead of {now}, in every tenant. {plural(hit.in_flight, 'run')} in flight and {hit.queued} "
        )
        says += f"queued end with what they began with. {lately(hit)}"
        return Preview(f"Roll {name} back to {then}?", says, f"Keep {now}")

    def do(self, actor: Actor, place: Place, reason: str) -> Done:
        agent = Agent.objects.select_related("live").filter(name=place.given["agent"]).first()
        if agent is None or agent.live is None:
            raise NotFound("agent")
        previous = releases.rollback(actor, agent.live, reason)
        before = {"release": str(agent.live.pk), "to": str(previous.pk)}
        return Done("agent", agent.name, f"Rolled {agent.name} back from r{agent.live.number} to r{previous.number}.", before)

    def stands(self, place: Place, done: JSON) -> bool:
        return Agent.objects.filter(name=place.given["agent"], live=done.get("to")).exists()

    def take_back(self, actor: Actor, place: Place, done: JSON, reason: str) -> str:
        release = Release.objects.get(pk=done["release"])
        releases.promote(actor, release, reason)
        return f"r{release.number} of {release.agent_id} is live again."


@dataclass(frozen=True, slots=True)
class LowerCeiling:
    """The ceiling of the agent, in the incident's tenant or everywhere; the person says to what."""

    def held(self, place: Place) -> Ceiling | None:
        return Ceiling.objects.filter(tenant=place.tenant, agent=place.given["agent"], kind=place.given["kind"]).first()

    def why_not(self, actor: Actor, place: Place) -> str:
        if place.tenant is None:
            return platform_only(actor)
        return "Ceilings of a tenant are set by its admins." if refusal(lambda: ceilings.need(actor, place.tenant)) else ""

    def hindrance(self, place: Place) -> str:
        return ""

    def button(self, place: Place) -> Button:
        return Button(f"Lower the ceiling of {place.given['agent']}", "wallet")

    def preview(self, actor: Actor, place: Place) -> Preview:
        agent, kind, held = place.given["agent"], place.given["kind"], self.held(place)
        words = kind.replace("_", " ").replace("usd", "in USD")
        now = f"It is {ceilings.shown(kind, held.value)} now." if held else "There is none now."
        hit = impact("agent", tenant=place.tenant.pk if place.tenant else None, agent=agent)
        says = f"{now} Nothing that runs is stopped; a new run that does not fit is refused. {lately(hit)}"
        title = f"Lower the ceiling of {agent} {place.where}?"
        return Preview(title, says, asks=words[0].upper() + words[1:])

    def do(self, actor: Actor, place: Place, reason: str) -> Done:
        agent, kind = place.given["agent"], place.given["kind"]
        value, held = ceilings.read(kind, place.said.get("value", "")), self.held(place)
        if held is not None and value >= held.value:
            message = f"The ceiling is {ceilings.shown(kind, held.value)}. Give less, or leave it."
            raise Refused("not_lower", message, 422, field="value")
        before = held.value if held else None
        row, _ = run_ceilings.put(actor, place.tenant, agent, kind, value, reason)
        says = f"Lowered {kind} of {agent} {place.where} to {ceilings.shown(kind, value)}."
        return Done("ceiling", str(row.pk), says, {"value": value, "before": before})

    def stands(self, place: Place, done: JSON) -> bool:
        held = self.held(place)
        return held is not None and held.value == done.get("value")

    def take_back(self, actor: Actor, place: Place, done: JSON, reason: str) -> str:
        held, kind, agent = self.held(place), place.given["kind"], place.given["agent"]
        if held is None:
            raise NotFound("ceiling")
        if done["before"] is None:
            ceilings.delete(actor, held, reason)
            return f"{kind} of {agent} {place.where} has no ceiling any more."
        run_ceilings.put(actor, place.tenant, agent, kind, int(done["before"]), reason)
        return f"{kind} of {agent} {place.where} is {ceilings.shown(kind, int(done['before']))} again."


@dataclass(frozen=True, slots=True)
class UndoWrites:
    """The chosen ones of the writes that the incident's runs made. Each undo is a run of its own, and is not undone."""

    def why_not(self, actor: Actor, place: Place) -> str:
        return refusal(lambda: actor.need("runs:write"))

    def hindrance(self, place: Place) -> str:
        return "" if undoing.any_of(place.runs) else "Its runs made no write that can be undone."

    def button(self, place: Place) -> Button:
        return Button("Undo their writes", "undo-2")

    def choices(self, actor: Actor, place: Place) -> tuple[Choice, ...]:
        runs = [run for run in Run.objects.filter(pk__in=place.runs).select_related("asked").order_by("id") if actor.sees(run.tenant_id)]
        lines = [(run, line) for run in runs for line in undoing.of_run(run) if line.undoing.available]
        found, before = [], set()
        for run, line in lines[:MOST_WRITES]:
            same = line.call.name, bytes(line.call.args or b"")
            found.append(Choice(f"{run.run_id}.{line.key}", line.says, run.run_id, same in before))
            before.add(same)
        return tuple(found)

    def preview(self, actor: Actor, place: Place) -> Preview:
        found = self.choices(actor, place)
        says = (
            f"{plural(len(found), 'write')} of these runs can be undone now. Each undo is a run of its own, decided like every other write."
        )
        if any(choice.again for choice in found):
            says += " Chosen are those that were made before by one of these runs."
        typed = "undo" if len(found) > TYPED_OVER else ""
        return Preview("Undo these writes?", says, "Leave them", typed, lasting=True, choices=found)

    def do(self, actor: Actor, place: Place, reason: str) -> Done:
        if not place.chosen:
            raise Refused("nothing_chosen", "Choose the writes to undo.", 422, field="chosen")
        known = {choice.key for choice in self.choices(actor, place)}
        made, failed = [], []
        for key in place.chosen[:MOST_WRITES]:
            try:
                if key not in known:
                    raise NotFound("write")
                made.append(self.undo_one(actor, key, reason))
            except Refused as refused:
                failed.append(f"{key}: {refused.message}")
        if not made:
            raise Refused("nothing_undone", " ".join(failed), 409)
        says = f"Started {plural(len(made), 'undo', 'undos')}." + (f" {len(failed)} could not be: {' '.join(failed)}" if failed else "")
        return Done("run", made[0], says[:1000], {"runs": made})

    def undo_one(self, actor: Actor, key: str, reason: str) -> str:
        run_id, step, ord_ = key.rsplit(".", 2)
        with transaction.atomic():
            return undo.undo(actor, decode("agt", run_id), int(step), int(ord_), reason).run_id

    def stands(self, place: Place, done: JSON) -> bool:
        return False

    def take_back(self, actor: Actor, place: Place, done: JSON, reason: str) -> str:
        raise Refused("lasting", "An undo is not undone.", 409)
