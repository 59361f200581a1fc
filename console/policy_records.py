"""Rules, permissions, versions of the policy and back-tests as the API gives them."""

from typing import Any

from console import records
from tools.models import Permission, PolicyVersion, Rule
from tools.policy_diff import Difference

from . import backtests
from .models import PolicyBacktest

JSON = dict[str, Any]


def rule_record(rule: Rule) -> JSON:
    fields = ("name", "on", "decision", "approvers", "when", "enabled")
    told = {name: getattr(rule, name) for name in fields}
    return told | {"tenant": rule.tenant.slug if rule.tenant else None, "updated_at": records.time(rule.updated_at)}


def permission_record(row: Permission) -> JSON:
    fields = ("id", "agent", "user_role", "decision", "approvers", "when", "loosen", "group")
    told = {name: getattr(row, name) for name in fields}
    return told | {"tool": row.tool_id, "tenant": row.tenant.slug if row.tenant else None, "updated_at": records.time(row.updated_at)}


def version_record(version: PolicyVersion, changes: list[Difference]) -> JSON:
    return {
        "number": version.number,
        "tenant": version.tenant.slug if version.tenant else None,
        "changed_by": version.changed_by,
        "reason": version.reason,
        "at": records.time(version.at),
        "permissions": len(version.document["permissions"]),
        "rules": len(version.document["rules"]),
        "changes": [difference_record(each) for each in changes],
    }


def difference_record(each: Difference) -> JSON:
    fields = [{"name": name, "before": before, "after": after} for name, before, after in each.fields]
    return {"kind": each.kind, "name": each.name, "action": each.action, "fields": fields}


def backtest_record(made: PolicyBacktest) -> JSON:
    waits = made.state == PolicyBacktest.State.QUEUED and not backtests.jobs_run()
    return {
        "backtest_id": str(made), "tenant": made.tenant.slug if made.tenant else None, "state": made.state, "days": made.days,
        "proposal": made.proposal, "done": made.done, "total": made.total, "result": made.result,
        "started_by": made.started_by.username, "at": records.time(made.at),
        "note": "No jobs process runs: it starts when one does." if waits else None,
    }  # fmt: skip
