"""Actions that throw a kill switch, and lift it to take them back."""

from dataclasses import dataclass
from uuid import UUID

from console.switch_words import sentence
from runs import stops, switches
from runs.impact import impact
from runs.models import Switch
from tenants.actors import Actor
from tenants.ids import decode

from .actions_types import JSON, Button, Done, Place, Preview, lately, plural, refusal


@dataclass(frozen=True, slots=True)
class Throw:
    """`scope` of runs.stops; "tenant" becomes "all" for an incident of the whole platform."""

    scope: str
    then: str = stops.PAUSE

    def order(self, place: Place, reason: str = "") -> switches.Order:
        scope = "all" if self.scope == "tenant" and place.tenant is None else self.scope
        return switches.Order(scope, self.then, reason, place.tenant, place.given.get("agent", ""))

    def why_not(self, actor: Actor, place: Place) -> str:
        return refusal(lambda: switches.need(actor, self.order(place).scope, place.tenant))

    def hindrance(self, place: Place) -> str:
        order = self.order(place)
        same = {"scope": order.scope, "then": order.then, "tenant": order.tenant, "agent": order.agent, "tool": "", "drill": False}
        return "This switch is on already." if Switch.objects.filter(lifted_at__isnull=True, **same).exists() else ""

    def button(self, place: Place) -> Button:
        does = "Pause" if self.then == stops.PAUSE else "Stop"
        what = {"writes": "all writes", "agent": place.given.get("agent", "")}.get(self.scope, "all work")
        return Button(f"{does} {what} {place.where}", "power-off", danger=True)

    def preview(self, actor: Actor, place: Place) -> Preview:
        order = self.order(place)
        hit = impact(order.scope, tenant=place.tenant.pk if place.tenant else None, agent=order.agent)
        does = "wait until it is lifted" if self.then == stops.PAUSE else "end, and do not come back"
        whole = order.scope in stops.WHOLE
        says = f"{plural(hit.in_flight, 'run')} in flight and {hit.queued} queued {does}{'' if whole else ' once they want to write'}. "
        says += f"{plural(hit.calls_in_flight, 'call')} on the way end normally, {plural(hit.writes_in_flight, 'write')} among them. "
        says += "New runs are refused. " if whole else "Reads go on. "
        typed = stops.typed_name(order.scope, tenant=place.slug, agent=order.agent, tool="")
        return Preview(f"{self.button(place).verb}?", says + lately(hit), "Keep it running" if whole else "Keep writing", typed)

    def do(self, actor: Actor, place: Place, reason: str) -> Done:
        switch = switches.engage(actor, self.order(place, reason))
        return Done("switch", str(switch), f"{sentence(switch)}.", {"switch": str(switch)})

    def stands(self, place: Place, done: JSON) -> bool:
        return Switch.objects.filter(pk=self.switch_of(done), lifted_at__isnull=True).exists()

    def take_back(self, actor: Actor, place: Place, done: JSON, reason: str) -> str:
        switch = switches.lift(actor, self.switch_of(done), reason)
        return f"Lifted: {sentence(switch)[0].lower()}{sentence(switch)[1:]} no more."

    def switch_of(self, done: JSON) -> UUID:
        return decode("swi", str(done["switch"]))
