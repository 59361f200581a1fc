"""A case made from a run: what it was asked, what its tools answered, and its path as a first expectation for a person to correct."""

import json
from typing import Any

from django.db import transaction
from django.utils.text import slugify

from runs.models import Call, Run, RunInput, Suite
from runs.states import TERMINAL, CallState
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools.catalog import need_platform_admin

from . import suites
from .cases import read

JSON = dict[str, Any]
TOLD = 40  # characters of the question in the key


@transaction.atomic
def from_run(actor: Actor, run: Run, suite: Suite, key: str = "") -> str:
    """-> the key of the new case. Refuses: platform_admin_needed 403, not_found 404; run_not_over, history_deleted, suite_is_shared,
    key_taken 409; what a case refuses."""
    need_platform_admin(actor)
    if not actor.sees(run.tenant_id):
        raise NotFound("run")
    if run.state not in TERMINAL:
        raise Refused("run_not_over", "Only a run that has ended can become a case.", 409, state=run.state)
    slug = run.tenant.slug
    if suite.tenants != [slug]:
        message = (
            f"{suite.name} is seen by others than {slug}, and the case holds what people of {slug} wrote. Set its tenants to [{slug}]."
        )
        raise Refused("suite_is_shared", message, 409, tenants=suite.tenants)
    asked = RunInput.objects.filter(run_id=run.pk).first()
    if asked is None or not asked.text:
        raise Refused("history_deleted", "What this run was asked was deleted, so nothing can be made of it.", 409)
    spec = read(content(run, asked, key or free_key(suite, asked.text, run)))
    if suites.current(suite).filter(key=spec.key).exists():
        raise Refused("key_taken", f"{suite.name} has a case {spec.key} already. Take another key.", 409, key=spec.key)
    suites.put_cases(actor, suite, [spec], made_from=run)
    return spec.key


def free_key(suite: Suite, text: str, run: Run) -> str:
    """Of the first words; the end of the run's id tells apart what begins alike."""
    words = slugify(text[:TOLD]).strip("-_")
    return f"{words}-{run.run_id[-6:].lower()}" if words else run.run_id[-12:].lower()


def content(run: Run, asked: RunInput, key: str) -> JSON:
    calls = list(Call.objects.filter(run_id=run.pk, ord__gt=0).order_by("step", "ord"))
    question = (
        {"text": asked.text} | ({"data": asked.data} if asked.data is not None else {}) | ({"user": asked.user} if asked.user else {})
    )
    return {
        "key": key, "input": question, "tools": {"how": "recorded", "given": given(calls)}, "expect": expected(run, calls),
        "note": f"Made from {run.run_id}.",
    }  # fmt: skip


def given(calls: list[Call]) -> list[JSON]:
    """What each question was answered last; those that were never sent have no answer of a tool."""
    found: dict[tuple[str, str], JSON] = {}
    for call in calls:
        if call.attempt and isinstance(call.result, dict) and call.args is not None:
            args = json.loads(bytes(call.args))
            found[call.name, json.dumps(args, sort_keys=True)] = {"tool": call.name, "args": args, "result": call.result}
    return list(found.values())


def expected(run: Run, calls: list[Call]) -> JSON:
    """As it went: the tools it used, what it changed, the steps it took."""
    used = list(dict.fromkeys(call.name for call in calls if call.attempt))
    writes = [
        {"tool": call.name, "args": json.loads(bytes(call.args or b"{}"))}
        for call in calls
        if call.effect != "read" and call.state == CallState.DONE
    ]
    return {"allowed": used, "required": used, "writes": writes, "max_steps": max(run.step, 1)}
