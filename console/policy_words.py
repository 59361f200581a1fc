"""Changes of the policy as people read them: what is proposed, what a back-test found, and what was changed before."""

from collections.abc import Iterable
from typing import Any

from console.templatetags.signalbox import compact, duration
from tenants.models import AuditEntry, Tenant
from tools.models import Permission, Rule
from tools.proposals import PermissionProposal, Proposal, RuleProposal

from . import matrix
from .models import PolicyBacktest

JSON = dict[str, Any]
HISTORY = 10


def scope_words(slug: str | None) -> str:
    return slug or "every tenant"


def sentence(proposal: Proposal, was: str) -> str:
    """`Changes create_ticket for support-triage in acme from ask 1 person to deny.` `was`: the words of what holds now."""
    if isinstance(proposal, RuleProposal):
        return rule_sentence(proposal, was)
    about = f"{proposal.tool} for {proposal.agent or 'every agent'} in {scope_words(proposal.tenant)}"
    about += f", users who are {proposal.user_role}" if proposal.user_role else ""
    about += f", when {proposal.when}" if proposal.when else ""
    if proposal.remove:
        return f"Removes the row of {about}: {was}."
    now = matrix.words(proposal.decision, proposal.approvers) + (", loosening" if proposal.loosen else "")
    return f"Changes {about} from {was} to {now}."


def rule_sentence(proposal: RuleProposal, was: str) -> str:
    about = f"rule {proposal.name} in {scope_words(proposal.tenant)}"
    if proposal.remove:
        return f"Removes {about}: {was}."
    if not proposal.enabled:
        return f"Switches {about} off: {was}."
    now = matrix.words(proposal.decision, proposal.approvers)
    what = "answers" if proposal.on == "answer" else "calls"
    return (
        f"Changes {about} from {was} to {now}, for {what} where {proposal.when}." if was else f"Adds {about}: {now}, where {proposal.when}."
    )


def rule_was(rule: Rule | None) -> str:
    if rule is None:
        return ""
    return ("" if rule.enabled else "off, ") + matrix.words(rule.decision, rule.approvers)


def permission_was(row: Permission | None, inherited: matrix.Cell) -> str:
    """Of the row that there is; without one, what the place inherits."""
    if row is not None:
        return matrix.words(row.decision, row.approvers) + (", loosening" if row.loosen else "")
    return f"{matrix.words(inherited.decision, inherited.approvers)} (inherited)"


def found(backtest: PolicyBacktest) -> JSON:
    """A finished back-test in words."""
    result = backtest.result or {}
    changed, added, median = result.get("changed", 0), result.get("asks_added", 0) - result.get("asks_spared", 0), result.get("median_s")
    days = "the last 24 hours" if backtest.days == 1 else f"the last {backtest.days} days"
    lead = f"{changed:,} call{'' if changed == 1 else 's'} in {days} would have been decided differently"
    return {
        "lead": f"{lead}, {result.get('unchanged', 0):,} as before.",
        "counts": [(words, result.get(f"would_{key}", 0)) for key, words in COUNTS],
        "waiting": waiting(added, median),
        "cut": f"Only the newest {compact(result.get('calls', 0))} calls were looked at." if result.get("cut") else "",
    }


COUNTS = (("deny", "would deny"), ("ask", "would ask"), ("draft", "would draft"), ("allow", "would now allow"))


def waiting(added: int, median: float | None) -> str:
    if not added:
        return ""
    more = f"{abs(added):,} {'more' if added > 0 else 'fewer'} request{'' if abs(added) == 1 else 's'} for people"
    if median is None:
        return f"{more}."
    return f"{more}; half of those so far took longer than {duration(median)}, about {duration(median * abs(added))} of waiting in all."


def permission_history(tool: str, agent: str, scope: Tenant | None) -> list[JSON]:
    """The last changes of the rows of one cell, newest first."""
    rows = AuditEntry.objects.filter(tenant=scope, object_kind="permission").order_by("-id")
    after, before = rows.filter(after__tool=tool, after__agent=agent), rows.filter(before__tool=tool, before__agent=agent, after=None)
    entries = sorted([*after[:HISTORY], *before[:HISTORY]], key=lambda entry: -entry.pk)[:HISTORY]
    return [changed(entry) for entry in entries]


def rule_history(name: str, scope: Tenant | None) -> list[JSON]:
    rows = AuditEntry.objects.filter(tenant=scope, object_kind="rule", object_id=name).order_by("-id")[:HISTORY]
    return [changed(entry) for entry in rows]


def changed(entry: AuditEntry) -> JSON:
    before, after = entry.before or {}, entry.after or {}
    fields = [(name, before.get(name), after.get(name)) for name in (after or before) if before.get(name) != after.get(name)]
    shown = [each for each in fields if not (each[1] in (None, "", False) and each[2] in (None, "", False))]
    return {"entry": entry, "verb": entry.action.rpartition(".")[2], "fields": plain(shown)}


def plain(fields: Iterable[tuple[str, Any, Any]]) -> list[tuple[str, Any, Any]]:
    """(name, before, after) as people read them; what is empty is not there."""

    def word(value: Any) -> Any:
        return None if value in (None, "") else {True: "yes", False: "no"}[value] if isinstance(value, bool) else value

    return [("tool" if name == "tool_id" else name.replace("_", " "), word(before), word(after)) for name, before, after in fields]


def as_it_was(entry: AuditEntry) -> Proposal:
    """The proposal that takes a change back."""
    state, gone = entry.before or entry.after or {}, entry.before is None
    if entry.object_kind == "rule":
        return RuleProposal.model_validate(state | {"remove": gone})
    return PermissionProposal.model_validate(state | {"remove": gone})


def subject(proposal: Proposal) -> str:
    """What a back-test is about."""
    if isinstance(proposal, RuleProposal):
        return f"{'Without rule' if proposal.remove else 'Rule'} {proposal.name} in {scope_words(proposal.tenant)}"
    row = f"{proposal.tool} for {proposal.agent or 'every agent'} in {scope_words(proposal.tenant)}"
    return f"Without the row of {row}" if proposal.remove else f"{row}: {matrix.words(proposal.decision, proposal.approvers)}"
