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
FIELD = "add_"  # before the name of a limit


def question(found: Approval) -> Context:
    """{add, limit, value, used, spent, step}"""
    return dict(json.loads(bytes(found.args)))


def headline(found: Approval, given: Context) -> str:
    return sentences.more_budget(found.agent, given.get("add") or {})


def asked(found: Approval) -> Context:
    """What the page of the request shows of it."""
    given = question(found)
    limit = given["limit"]
    return {
        "budget": given,
        "says": (sentences.Part(headline(found, given)),),
        "limit": limits.name_of(limit),
        "limit_value": limits.amount(limit, given["value"]),
        "limit_used": limits.figure(limit, given["used"]),
        "asks_for": limits.amounts(given["add"]),
        "spent": limits.so_far(given.get("spent") or {}),
        "fields": [field(name, given["add"].get(name, "")) for name in sorted(GRANTABLE, key=lambda name: name not in given["add"])],
        "beside": (),
    }


def field(name: str, value: Any) -> Context:
    unit = "USD" if name == "max_cost_usd" else limits.name_of(name)
    return {"name": FIELD + name, "label": limits.name_of(name).capitalize(), "unit": unit, "value": value, "asked": value != ""}


def other_amounts(found: Approval, said: QueryDict) -> More | None:
    """What the form grants, if that is not what was asked for. Refuses bad_amounts 422."""
    given = {name: said[FIELD + name].strip() for name in GRANTABLE if said.get(FIELD + name, "").strip()}
    if found.kind != Approval.Kind.BUDGET or not any(name.startswith(FIELD) for name in said):
        return None
    try:
        more = More.model_validate({name: number(text, name) for name, text in given.items()})
    except (InvalidOperation, ValidationError):
        raise Refused("bad_amounts", "Grant at least one amount: whole numbers from 1, and for the cost USD above 0.", 422) from None
    return None if more == More.model_validate(question(found)["add"]) else more


def number(text: str, name: str) -> Decimal | int:
    value = Decimal(text.lstrip("$"))
    if name == "max_cost_usd":
        return value
    if value != value.to_integral_value():
        raise InvalidOperation
    return int(value)
