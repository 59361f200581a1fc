"""Actions on what agents may call: a tool off or on, denied, asked about, and an agent's writes as drafts or not at all."""

from dataclasses import dataclass

from runs.impact import impact
from runs.models import Agent
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import Tenant
from tools import catalog, permissions
from tools.models import Permission, Tool, ToolVersion

from .actions_types import JSON, Button, Done, Place, Preview, joined, lately, platform_only, plural

SETTINGS = ("decision", "approvers", "loosen", "group")


@dataclass(frozen=True, slots=True)
class SetTool:
    """The tool's own switch, for the whole installation."""

    enabled: bool

    def why_not(self, actor: Actor, place: Place) -> str:
        return platform_only(actor)

    def hindrance(self, place: Place) -> str:
        return f"It is {'on' if self.enabled else 'off'} already." if self.stands(place, {}) else ""

    def button(self, place: Place) -> Button:
        tool = place.given["tool"]
        return Button(f"Enable {tool}", "play") if self.enabled else Button(f"Disable {tool} everywhere", "power-off", danger=True)

    def preview(self, actor: Actor, place: Place) -> Preview:
        tool = place.given["tool"]
        hit = impact("tool", tool=tool)
        if self.enabled:
            return Preview(f"Enable {tool}?", f"Runs of every tenant may call it again. {lately(hit)}", "Keep it off")
        says = (
            f"{plural(hit.in_flight, 'run')} in flight and {hit.queued} queued may want it, in every tenant; their calls of it are refused."
        )
        says += f" {plural(hit.calls_in_flight, 'call')} on the way end normally. {lately(hit)}"
        return Preview(f"Disable {tool} everywhere?", says, "Keep it on")

    def do(self, actor: Actor, place: Place, reason: str) -> Done:
        tool = place.given["tool"]
        if not catalog.set_enabled(actor, tool, self.enabled, reason):
            raise Refused("already_done", f"{tool} is {'on' if self.enabled else 'off'} already.", 409)
        return Done("tool", tool, f"{'Enabled' if self.enabled else 'Disabled'} {tool} everywhere.")

    def stands(self, place: Place, done: JSON) -> bool:
        return Tool.objects.filter(name=place.given["tool"], enabled=self.enabled).exists()

    def take_back(self, actor: Actor, place: Place, done: JSON, reason: str) -> str:
        return SetTool(not self.enabled).do(actor, place, reason).says


@dataclass(frozen=True, slots=True)
class Row:
    """A permission row that an action writes, and what stood in its place."""

    tool: str
    tenant: Tenant | None
    agent: str
    decision: str
    approvers: int = 1

    @property
    def held(self) -> Permission | None:
        place = {"tool_id": self.tool, "tenant": self.tenant, "agent": self.agent, "user_role": "", "when": ""}
        return Permission.objects.filter(**place).first()

    def wanted(self) -> Permission:
        row = self.held or Permission(tool_id=self.tool, tenant=self.tenant, agent=self.agent)
        row.decision, row.approvers, row.loosen, row.group = self.decision, self.approvers, False, ""
        return row

    def write(self, actor: Actor, reason: str) -> JSON:
        """-> what taking it back needs."""
        held = self.held
        before = {name: getattr(held, name) for name in SETTINGS} if held else None
        changed = permissions.save(actor, self.wanted(), reason)
        return {"tool": self.tool, "before": before, "changed": changed}

    def stands(self) -> bool:
        held = self.held
        return held is not None and (held.decision, held.approvers) == (self.decision, self.approvers)

    def put_back(self, actor: Actor, before: JSON | None, reason: str) -> None:
        held = self.held
        if held is None or not self.stands():
            return  # somebody changed it since, which counts more
        if before is None:
            permissions.delete(actor, held, reason)
            return
        for name in SETTINGS:
            setattr(held, name, before[name])
        permissions.save(actor, held, reason)


@dataclass(frozen=True, slots=True)
class Permit:
    """One decision for a tool in a tenant, over what its effect would get: deny it, or ask people."""

    decision: str

    def row(self, place: Place) -> Row:
        people = place.given.get("approvers", "1")
        return Row(place.given["tool"], place.tenant, "", self.decision, int(people) if people.isdecimal() else 1)

    def why_not(self, actor: Actor, place: Place) -> str:
        return "" if permissions.may_edit(actor, self.row(place).wanted()) else permissions.not_yours().message

    def hindrance(self, place: Place) -> str:
        return f"It is decided so already {place.where}." if self.row(place).stands() else ""

    def button(self, place: Place) -> Button:
        tool = place.given["tool"]
        return Button(f"Deny {tool} {place.where}", "ban", danger=True) if self.decision == "deny" else Button(f"Ask before {tool}", "hand")

    def preview(self, actor: Actor, place: Place) -> Preview:
        tool, row = place.given["tool"], self.row(place)
        hit = impact("tool", tenant=place.tenant.pk if place.tenant else None, tool=tool)
        who = f"{plural(hit.in_flight, 'run')} in flight and {hit.queued} queued may want it."
        if self.decision == "deny":
            says = f"{who} Their calls of it are denied {place.where}, and they are told so. {lately(hit)}"
            return Preview(f"Deny {tool} {place.where}?", says, "Keep it allowed")
        says = f"{who} Each call of it {place.where} waits for {plural(row.approvers, 'person', 'people')}. {lately(hit)}"
        return Preview(f"Ask people before every {tool}?", says, "Leave it as it is")

    def do(self, actor: Actor, place: Place, reason: str) -> Done:
        row = self.row(place)
        written = row.write(actor, reason)
        if not written["changed"]:
            raise Refused("already_done", f"{row.tool} is decided so already {place.where}.", 409)
        verb = "Denied" if self.decision == "deny" else f"Had {plural(row.approvers, 'person', 'people')} asked before"
        return Done("permission", str(row.held.pk if row.held else ""), f"{verb} {row.tool} {place.where}.", {"rows": [written]})

    def stands(self, place: Place, done: JSON) -> bool:
        return self.row(place).stands()

    def take_back(self, actor: Actor, place: Place, done: JSON, reason: str) -> str:
        row = self.row(place)
        row.put_back(actor, done["rows"][0]["before"], reason)
        return f"{row.tool} is decided as before {place.where}."


@dataclass(frozen=True, slots=True)
class HoldWrites:
    """Every write that the agent's live release lists, kept as a draft or denied: what a rung of its ladder would do, set by a person.

    Rows of permissions, so that it holds for runs in flight from their next call on, and needs nothing of the engine.
    """

    decision: str  # draft, deny

    def tools(self, place: Place) -> list[str]:
        agent = Agent.objects.select_related("live").filter(name=place.given["agent"]).first()
        pins = agent.live.tools if agent and agent.live else {}
        return list(ToolVersion.objects.filter(id__in=pins.values()).exclude(effect="read").order_by("tool").values_list("tool", flat=True))

    def row(self, place: Place, tool: str) -> Row:
        return Row(tool, place.tenant, place.given["agent"], self.decision)

    def why_not(self, actor: Actor, place: Place) -> str:
        wanted = Permission(tenant=place.tenant, agent=place.given["agent"], decision=self.decision)
        return "" if permissions.may_edit(actor, wanted) else permissions.not_yours().message

    def hindrance(self, place: Place) -> str:
        tools = self.tools(place)
        if not tools:
            return f"{place.given['agent']} has no tool that writes."
        return "They are decided so already." if all(self.row(place, tool).stands() for tool in tools) else ""

    def button(self, place: Place) -> Button:
        agent = place.given["agent"]
        if self.decision == "draft":
            return Button(f"Keep writes of {agent} as drafts", "pencil")
        return Button(f"Switch {agent} to read-only", "eye")

    def preview(self, actor: Actor, place: Place) -> Preview:
        agent, tools = place.given["agent"], self.tools(place)
        hit = impact("agent", tenant=place.tenant.pk if place.tenant else None, agent=agent)
        does = "kept as drafts for people to carry out" if self.decision == "draft" else "denied"
        says = f"{plural(len(tools), 'write')} of {agent} are {does} {place.where}: {joined(tools) or 'none'}. Reads go on. "
        says += f"{plural(hit.in_flight, 'run')} in flight, {hit.queued} queued. {lately(hit)}"
        return Preview(f"{self.button(place).verb}?", says, "Let it write")

    def do(self, actor: Actor, place: Place, reason: str) -> Done:
        agent, tools = place.given["agent"], self.tools(place)
        if not tools:
            raise Refused("nothing_to_do", f"{agent} has no tool that writes.", 409)
        rows = [self.row(place, tool).write(actor, reason) for tool in tools]
        if not any(row["changed"] for row in rows):
            raise Refused("already_done", f"The writes of {agent} are decided so already.", 409)
        how = "kept as drafts" if self.decision == "draft" else "denied"
        return Done("agent", agent, f"Writes of {agent} are {how} {place.where}: {joined(tools)}.", {"rows": rows})

    def stands(self, place: Place, done: JSON) -> bool:
        return any(self.row(place, each["tool"]).stands() for each in done.get("rows", ()) if each["changed"])

    def take_back(self, actor: Actor, place: Place, done: JSON, reason: str) -> str:
        for each in done["rows"]:
            if each["changed"]:
                self.row(place, each["tool"]).put_back(actor, each["before"], reason)
        return f"Writes of {place.given['agent']} are decided as before {place.where}."
