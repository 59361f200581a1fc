"""What every action of an incident is made of. An action previews in numbers, is done by the function that does it everywhere else,
knows whether what it did still stands, and takes it back by the opposite where there is one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from runs.impact import Impact
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import Tenant

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an action is done. `tenant` None: in every tenant. `given`: its parameters; `runs`: those that the incident touched;
    `said`: what the person answered to what it asks."""

    tenant: Tenant | None
    given: dict[str, str] = field(default_factory=dict)
    runs: tuple[Any, ...] = ()  # uuids
    said: dict[str, str] = field(default_factory=dict)
    chosen: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        return self.tenant.slug if self.tenant else ""

    @property
    def where(self) -> str:
        return f"in {self.tenant.slug}" if self.tenant else "in every tenant"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the things that a person may leave out. `again`: the same was done before by these runs."""

    key: str
    words: str
    run_id: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Button:
    verb: str
    icon: str
    danger: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """`says`: what happens, in numbers. `keep`: of the button that changes nothing. `typed`: what to type first."""

    title: str
    says: str
    keep: str = "Leave it"
    typed: str = ""
    lasting: bool = False  # nothing takes it back
    asks: str = ""  # the label of a figure that is needed
    choices: tuple[Choice, ...] = ()

    @property
    def proposed(self) -> list[str]:
        """Keys of those that are chosen at first: what was done again where anything was, else all."""
        return [choice.key for choice in self.choices if choice.again] or [choice.key for choice in self.choices]


@dataclass(frozen=True, slots=True)
class Done:
    """`kind`, `id`: of the object in the audit trail. `before`: what taking it back needs, as JSON."""

    kind: str
    id: str
    says: str
    before: JSON = field(default_factory=dict)


class Action(Protocol):
    def why_not(self, actor: Actor, place: Place) -> str:
        """Empty when this person may, else who may."""

    def hindrance(self, place: Place) -> str:
        """Why it would change nothing just now; empty: it would."""

    def button(self, place: Place) -> Button: ...

    def preview(self, actor: Actor, place: Place) -> Preview: ...

    def do(self, actor: Actor, place: Place, reason: str) -> Done:
        """Refuses as the function does that does it."""

    def stands(self, place: Place, done: JSON) -> bool:
        """Whether what it did can be taken back: it was not yet, and nobody else changed it since."""

    def take_back(self, actor: Actor, place: Place, done: JSON, reason: str) -> str:
        """What was done, in a sentence."""


def refusal(ask: Callable[[], object]) -> str:
    """What a function that guards a right says; empty: nothing."""
    try:
        ask()
    except Refused as refused:
        return refused.message
    return ""


def platform_only(actor: Actor) -> str:
    """Of what belongs to the installation; empty: this person may."""
    return "" if actor.platform_admin and actor.can("config:write") else "For platform admins: it is done in every tenant at once."


def plural(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def joined(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def lately(hit: Impact) -> str:
    """Such as "In the last hour: 3 agents, 41 calls."."""
    agents, tools = hit.last_hour.get("agent", {}), hit.last_hour.get("tool", {})
    if not agents and not tools:
        return "Nothing of it ran in the last hour."
    runs, calls = plural(sum(agents.values()), "run"), plural(sum(tools.values()), "call")
    return f"In the last hour: {plural(len(agents), 'agent')}, {runs}, {calls}."
