"""A request for more of a run's budget in the inbox: what it asks for, and the amounts that a person may grant instead."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any

from django.http import QueryDict
from pydantic import ValidationError

from approvals.models import Approval
from console import limits, sentences
from runs.grants import GRANTABLE, More
from tenants.errors import Refused

Context = dict[str, Any]
COST = "max_cost_usd"
FIELD = "add_"  # before the name of a limit


def question(found: Approval) -> Context:
    """{add, limit, value, used, spent, step}"""
    return dict(json.loads(bytes(found.args)))


def headline(found: Approval, given: Context) -> str:
    return sentences.more_budget(found.agent, given.get("add") or {})


def asked(found: Approval, typed: QueryDict | None = None) -> Context:
    """What the page of the request shows of it. `typed`: amounts that were refused, and are shown again."""
    given = question(found)
    limit, add = given["limit"], given["add"]
    names = sorted(GRANTABLE, key=lambda name: name not in add)
    return {
        "budget": given,
        "says": (sentences.Part(headline(found, given)),),
        "limit": limits.name_of(limit),
        "limit_value": limits.amount(limit, given["value"]),
        "limit_used": limits.figure(limit, given["used"]),
        "asks_for": limits.amounts(add),
        "spent": limits.so_far(given.get("spent") or {}),
        "fields": [field(name, add.get(name, ""), None if typed is None else typed.get(FIELD + name, "")) for name in names],
        "others_given": typed is not None and any(typed.get(FIELD + name) for name in names if name not in add),
        "beside": (),
    }


def field(name: str, asked: Any, typed: str | None) -> Context:
    value = str(asked) if typed is None else typed
    return {"name": FIELD + name, "label": limits.name_of(name).capitalize(), "usd": name == COST, "value": value, "asked": asked != ""}


def other_amounts(found: Approval, said: QueryDict) -> More | None:
    """What the form grants, if that is not what was asked for. Refuses bad_amounts 422."""
    typed = {name: str(said.get(FIELD + name) or "").strip() for name in GRANTABLE}
    given = {name: text for name, text in typed.items() if text}
    if found.kind != Approval.Kind.BUDGET or not any(name.startswith(FIELD) for name in said):
        return None
    try:
        more = More.model_validate({name: number(text, name) for name, text in given.items()})
    except (InvalidOperation, ValidationError):
        raise Refused("bad_amounts", "Grant at least one amount: whole numbers from 1, and for the cost USD above 0.", 422) from None
    return None if more == More.model_validate(question(found)["add"]) else more


def number(text: str, name: str) -> Decimal | int:
    value = Decimal(text.lstrip("$"))
    if name == COST:
        return value
    if value != value.to_integral_value():
        raise InvalidOperation
    return int(value)
