"""May this call be made? Pure: facts and permission rows in, a decision out. Whatever goes wrong while deciding is a deny."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .conditions import ConditionError, holds

Verdict = Literal["allow", "ask", "draft", "deny"]
Mode = Literal["normal", "read_only", "draft"]

STRICTNESS: Mapping[str, int] = {"allow": 0, "ask": 1, "draft": 2, "deny": 3}
DEFAULTS: Mapping[str, tuple[Verdict, int]] = {"read": ("allow", 0), "write": ("ask", 1), "irreversible": ("ask", 2)}
MODES = ("normal", "read_only", "draft")
LABEL = re.compile(r"""['"]([\w-]+)['"]\s+in\s+run\.labels""")  # what a rule asks of the run before this call
TOOL = re.compile(r"""run\.tools\[\s*['"]([\w.-]+)['"]\s*\]""")
SIDE_EFFECTS = "side_effects"  # label of a read that changes something after all


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
    group: str = ""  # who decides where it asks; "" everybody with the role


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A condition over a call (`on` "call") or a final answer ("answer") and what the run did before. Tightens only."""

    name: str
    on: str
    decision: str
    approvers: int
    when: str


@dataclass(frozen=True, slots=True)
class Source:
    """An earlier call of the run, and what it brought: a label, or the tool itself."""

    step: int
    ord: int
    tool: str
    brought: str


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
    day: Mapping[str, Any] = field(default_factory=dict)  # {tools: {name: {count, sums}}} of the tenant's applied writes today (UTC)
    sources: tuple[Source, ...] = ()  # what the run's labels and counts come from, oldest first


@dataclass(frozen=True, slots=True)
class Decision:
    """`by` names what decided: `not_listed`, `disabled`, `mode:…`, `effect:…`, `permission:<id>`, `rule:<name>` or `error:<id>`."""

    verdict: Verdict
    why: str
    by: str
    approvers: int = field(default=0)  # distinct people who must approve; 0 unless `ask`
    because: tuple[Source, ...] = ()  # the earlier calls that made this one unsafe
    group: str = ""  # the tenant's group of approvers that decides

    def strictness(self) -> tuple[int, int]:
        return STRICTNESS[self.verdict], self.approvers


class Undecidable(Exception):
    """A row or a fact that cannot be read. Ends in a deny that names `by`."""

    def __init__(self, by: str, why: str) -> None:
        super().__init__(why)
        self.by = by


def decide(
    facts: Facts,
    rows: Iterable[PermissionRow],
    rules: Iterable[RuleRow] = (),
    *,
    offered: bool,
    enabled: bool,
    mode: Mode = "normal",
) -> Decision:
    """The default of the effect, or the matching row that loosens it; then the strictest matching row; then the rules; then the mode."""
    if not offered:
        return Decision("deny", "The release does not list this tool.", "not_listed")
    if not enabled:
        return Decision("deny", "The tool is switched off.", "disabled")
    try:
        return in_mode(by_rules(facts, rules, by_rows(facts, rows)), effect_of(facts), mode)
    except Undecidable as error:
        return Decision("deny", f"Denied because the decision failed: {error}", f"error:{error.by}")
    except Exception as error:
        return Decision("deny", f"Denied because the decision failed: {type(error).__name__}", "error:facts")


def effect_of(facts: Facts) -> str:
    """What the call counts as: a read that somebody labelled as having side effects is a write to the policy."""
    return "write" if facts.effect == "read" and SIDE_EFFECTS in facts.labels else facts.effect


def by_rules(facts: Facts, rules: Iterable[RuleRow], base: Decision) -> Decision:
    """The strictest of the permissions' decision and the rules that hold. The sources stay with the rule that named them."""
    found = base
    seen: dict[str, Any] | None = None
    for rule in rules:
        if rule.on != "call":
            continue
        seen = seen or visible(facts)
        if holding(rule, seen):
            found = strictest([found, ruled(rule, facts.sources)])
    return found


def strictest(decisions: Sequence[Decision]) -> Decision:
    """The first of the strictest. One that asks keeps the group of the strictest that names one: a stricter rule widens nothing."""
    found = max(decisions, key=Decision.strictness)
    named = [one for one in decisions if one.group and one.verdict == "ask"]
    if found.verdict != "ask" or found.group or not named:
        return found
    return replace(found, group=max(named, key=Decision.strictness).group)


def on_answer(text: str, run: Mapping[str, Any], rules: Iterable[RuleRow], sources: tuple[Source, ...], now: str, day: Any) -> Decision:
    """May this final answer go out? `allow`, `ask`, or `deny`: withheld. Whatever goes wrong while deciding is a deny."""
    found = Decision("allow", "No rule is against it.", "default")
    user = {**((run["user"] or {}).get("attributes") or {}), "id": (run["user"] or {}).get("id")}
    seen = {"answer": {"text": text, "length": len(text)}, "run": {**run, "user": user}, "day": day, "now": now}
    try:
        for rule in rules:
            if rule.on == "answer" and holding(rule, seen):
                found = max(found, ruled(rule, sources), key=Decision.strictness)
    except Undecidable as error:
        return Decision("deny", f"Denied because the decision failed: {error}", f"error:{error.by}")
    except Exception as error:
        return Decision("deny", f"Denied because the decision failed: {type(error).__name__}", "error:facts")
    return found


def holding(rule: RuleRow, seen: Mapping[str, Any]) -> bool:
    try:
        return holds(rule.when, seen)
    except ConditionError as error:
        raise Undecidable(rule.name, str(error))


def ruled(rule: RuleRow, sources: tuple[Source, ...]) -> Decision:
    if rule.decision not in STRICTNESS or rule.decision == "allow" or rule.approvers < 1:
        raise Undecidable(rule.name, f"unknown decision {rule.decision!r}")
    verdict: Verdict = rule.decision  # type: ignore[assignment]
    named = {*LABEL.findall(rule.when), *TOOL.findall(rule.when)}
    first: dict[str, Source] = {}
    for source in sources:
        if source.brought in named:
            first.setdefault(source.brought, source)
    because = tuple(first.values())
    steps = ", ".join(f"step {s.step} ({s.tool}{'' if s.brought == s.tool else ' brought ' + s.brought})" for s in because)
    why = f"Rule {rule.name}" + (f", because of {steps}." if steps else ".")
    return Decision(verdict, why, f"rule:{rule.name}", rule.approvers if verdict == "ask" else 0, because)


def by_rows(facts: Facts, rows: Iterable[PermissionRow]) -> Decision:
    effect = effect_of(facts)
    if effect not in DEFAULTS:
        raise Undecidable("effect", f"unknown effect {effect!r}")
    verdict, approvers = DEFAULTS[effect]
    base = Decision(verdict, f"The default of a tool with effect {effect}.", f"effect:{effect}", approvers)
    seen = visible(facts)
    matching = [row for row in rows if in_place(row, facts.tool, seen["run"]) and applies(row, seen)]
    loosened = [verdict_of(row) for row in matching if row.loosen]
    if loosened:
        base = strictest(loosened)
    return strictest([base, *(verdict_of(row) for row in matching if not row.loosen)])


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
        "day": facts.day or {"tools": {}},
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
    asks = verdict == "ask"
    approvers, group = row.approvers if asks else 0, row.group if asks else ""
    return Decision(verdict, f"Permission {row.id}{scope}.", f"permission:{row.id}", approvers, group=group)
