"""Tools x agents: what is decided about a call where no condition holds, and where that comes from. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from tools import policy
from tools.policy import PermissionRow

NOT_LISTED = "The live release does not list it: denied whatever the permissions say."


@dataclass(frozen=True, slots=True)
class Kind:
    """What a cell needs to know of its tool."""

    name: str
    effect: str
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Cell:
    """`own`: the row of exactly this place, without condition or user role. `lines`: where the decision comes from, widest first."""

    decision: str
    approvers: int
    own: PermissionRow | None
    conditions: int
    lines: tuple[str, ...]
    listed: bool = True

    @property
    def inherited(self) -> bool:
        return self.own is None


def cell(kind: Kind, agent: str, tenant: str | None, rows: Iterable[PermissionRow], *, listed: bool = True) -> Cell:
    """`agent` "" is every agent, `tenant` None every tenant: then only rows of every one count."""
    here = [row for row in rows if row.tool == kind.name and row.tenant in (None, tenant) and row.agent in ("", agent)]
    plain = [row for row in here if not row.when and not row.user_role]
    facts = policy.Facts(
        kind.name, kind.effect, kind.labels, {}, {"agent": agent, "tenant": tenant, "user": None, "labels": ()}, ""
    )  # fmt: skip
    found = policy.decide(facts, plain, offered=True, enabled=True)
    own = next((row for row in plain if (row.tenant, row.agent) == (tenant, agent)), None)
    conditions = len(here) - len(plain)
    if found.by.startswith("error:"):
        return Cell("deny", 0, own, conditions, ("It cannot be decided: denied.",), listed)
    return Cell(found.verdict, found.approvers, own, conditions, tuple(lines(kind, facts, plain, conditions, listed)), listed)


def lines(kind: Kind, facts: policy.Facts, plain: list[PermissionRow], conditions: int, listed: bool) -> Iterable[str]:
    if not listed:
        yield NOT_LISTED
    effect = policy.effect_of(facts)
    base = policy.by_rows(facts, ())
    marked = ", as its label says that it has side effects" if effect != kind.effect else ""
    yield f"Default of {effect}{marked}: {words(base.verdict, base.approvers)}."
    for row in sorted(plain, key=lambda row: (row.tenant is not None, row.agent != "")):
        where = f"{row.tenant or 'every tenant'}, {row.agent or 'every agent'}"
        yield f"Row of {where}: {words(row.decision, row.approvers)}{', loosens' if row.loosen else ''}."
    if conditions:
        yield f"{conditions} more row{'s' if conditions > 1 else ''} with a condition or a user role."


def words(decision: str, approvers: int) -> str:
    """`ask 2 people`, `draft only`, `deny`."""
    if decision == "ask":
        return f"ask {approvers} {'person' if approvers == 1 else 'people'}"
    return "draft only" if decision == "draft" else decision


def short(decision: str, approvers: int) -> str:
    """What fits a cell."""
    return {"ask": f"Ask {approvers}", "draft": "Draft", "deny": "Deny", "allow": "Allow"}.get(decision, decision)
