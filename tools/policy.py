"""May this call be made? Pure: facts and permission rows in, a decision out. Whatever goes wrong while deciding is a deny."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .conditions import ConditionError, holds

Verdict = Literal["allow", "ask", "draft", "deny"]
Mode = Literal["normal", "read_only", "draft"]

STRICTNESS: Mapping[str, int] = {"allow": 0, "ask": 1, "draft": 2, "deny": 3}
DEFAULTS: Mapping[str, tuple[Verdict, int]] = {"read": ("allow", 0), "write": ("ask", 1), "irreversible": ("ask", 2)}
MODES = ("normal", "read_only", "draft")


@dataclass(frozen=True, slots=True)
class PermissionRow:
    """Tool x tenant x agent x user role. `tenant` None, `agent` "" and `user_role` "" mean every one; `when` "" means always."""

    tool: str
    tenant: str | None
    agent: str
    user_role: str
    decision: str
    approvers: int
    when: str
    loosen: bool
    id: int | str


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions see. `run`: {agent, tenant, user, release, step, labels, writes, cost_usd, tools}, where `user` is the
    {id, attributes} of the user the run acts for (or None) and `tools` is {name: {count, sums: {field: total}}}."""

    tool: str
    effect: str
    labels: frozenset[str]
    args: Mapping[str, Any]
    run: Mapping[str, Any]
    now: str  # RFC 3339


@dataclass(frozen=True, slots=True)
class Decision:
    """`by` names what decided: `not_listed`, `disabled`, `mode:…`, `effect:…`, `permission:<id>` or `error:<id>`."""

    verdict: Verdict
    why: str
    by: str
    approvers: int = field(default=0)  # distinct people who must approve; 0 unless `ask`

    def strictness(self) -> tuple[int, int]:
        return STRICTNESS[self.verdict], self.approvers


class Undecidable(Exception):
    """A row or a fact that cannot be read. Ends in a deny that names `by`."""

    def __init__(self, by: str, why: str) -> None:
        super().__init__(why)
        self.by = by


def decide(facts: Facts, rows: Iterable[PermissionRow], *, offered: bool, enabled: bool, mode: Mode = "normal") -> Decision:
    """The default of the effect, or the matching row that loosens it; then the strictest matching row; then the run's mode."""
    if not offered:
        return Decision("deny", "The release does not list this tool.", "not_listed")
    if not enabled:
        return Decision("deny", "The tool is switched off.", "disabled")
    try:
        return in_mode(by_rows(facts, rows), facts.effect, mode)
    except Undecidable as error:
        return Decision("deny", f"Denied because the decision failed: {error}", f"error:{error.by}")
    except Exception as error:
        return Decision("deny", f"Denied because the decision failed: {type(error).__name__}", "error:facts")


def by_rows(facts: Facts, rows: Iterable[PermissionRow]) -> Decision:
    if facts.effect not in DEFAULTS:
        raise Undecidable("effect", f"unknown effect {facts.effect!r}")
    verdict, approvers = DEFAULTS[facts.effect]
    base = Decision(verdict, f"The default of a tool with effect {facts.effect}.", f"effect:{facts.effect}", approvers)
    seen = visible(facts)
    matching = [row for row in rows if in_place(row, facts.tool, seen["run"]) and applies(row, seen)]
    loosened = [verdict_of(row) for row in matching if row.loosen]
    if loosened:
        base = max(loosened, key=Decision.strictness)
    return max([base, *(verdict_of(row) for row in matching if not row.loosen)], key=Decision.strictness)


def in_mode(decision: Decision, effect: str, mode: str) -> Decision:
    """The run's mode comes last and only tightens."""
    if mode not in MODES:
        raise Undecidable("mode", f"unknown mode {mode!r}")
    if mode == "normal" or effect == "read" or decision.verdict == "deny":
        return decision
    if mode == "read_only":
        return Decision("deny", "The run is read-only.", "mode:read_only")
    return Decision("draft", "The run only drafts what it would change.", "mode:draft")


def visible(facts: Facts) -> dict[str, Any]:
    """The names a condition may use. Attributes of the user are its fields (`run.user.accounts`); none may replace its id."""
    user = facts.run["user"] or {}
    fields = {**(user.get("attributes") or {}), "id": user.get("id")}
    return {
        "args": dict(facts.args),
        "call": {"tool": facts.tool, "effect": facts.effect, "labels": sorted(facts.labels)},
        "run": {**facts.run, "labels": sorted(facts.run.get("labels", ())), "user": fields},
        "now": facts.now,
    }


def in_place(row: PermissionRow, tool: str, run: Mapping[str, Any]) -> bool:
    return (
        row.tool == tool
        and row.tenant in (None, run["tenant"])
        and row.agent in ("", run["agent"])
        and row.user_role in ("", run["user"].get("role"))
    )


def applies(row: PermissionRow, seen: Mapping[str, Any]) -> bool:
    if not row.when:
        return True
    try:
        return holds(row.when, seen)
    except ConditionError as error:
        raise Undecidable(str(row.id), str(error))


def verdict_of(row: PermissionRow) -> Decision:
    if row.decision not in STRICTNESS or row.approvers < 1:
        raise Undecidable(str(row.id), f"unknown decision {row.decision!r}")
    verdict: Verdict = row.decision  # type: ignore[assignment]
    scope = f" when {row.when}" if row.when else ""
    return Decision(verdict, f"Permission {row.id}{scope}.", f"permission:{row.id}", row.approvers if verdict == "ask" else 0)
