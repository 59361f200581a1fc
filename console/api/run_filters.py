"""The filters of `GET /runs`, which the pages of runs share: each turns its text into a condition, or refuses it by name."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from django.db.models import BooleanField, Exists, F, Func, OuterRef, Q, QuerySet
from django.utils.dateparse import parse_datetime

from console import filter_values
from runs.models import Call, Run
from runs.states import Outcome
from tenants.errors import Refused
from tenants.ids import decode

from . import paging

FILTERS = ("state", "agent", "tenant", "tool", "release", "outcome", "mode", "degraded", "since", "until", "q", "cost_gt")
LONGEST_Q = 200
ON_A_RUNG = Func(F("rungs"), template="jsonb_path_exists(%(expressions)s, '$[*] ? (!(@.missed == true))')", output_field=BooleanField())


def filtered(rows: "QuerySet[Run]", query: Mapping[str, str]) -> "QuerySet[Run]":
    """Those that every filter of `query` lets through. Refuses bad_<filter> 400."""
    for name, condition in CONDITIONS.items():
        if value := query.get(name):
            rows = rows.filter(condition(value))
    return rows


def any_of(name: str, condition: Callable[[tuple[str, ...]], Q]) -> Callable[[str], Q]:
    """A filter of several values, which may be turned round."""

    def of(text: str) -> Q:
        values = filter_values.read(name, text)
        return ~condition(values.names) if values.none_of else condition(values.names)

    return of


def called(names: tuple[str, ...]) -> Q:
    return Q(Exists(Call.objects.filter(run_id=OuterRef("id"), ord__gt=0, name__in=names)))


def is_degraded(text: str) -> Q:
    if text not in ("true", "false"):
        raise Refused("bad_degraded", "degraded is true or false.", 400)
    degraded = Q(outcome=Outcome.COMPLETED_DEGRADED.value) | Q(Q(outcome=None) & Q(ON_A_RUNG))
    return degraded if text == "true" else ~degraded


def said(text: str) -> Q:
    """A part of the question or of the agent's name. What is a run's id means that run and no other."""
    if len(text) > LONGEST_Q:
        raise Refused("bad_q", f"q has at most {LONGEST_Q} characters: search for a shorter part.", 400)
    if is_id(text):
        return Q(id=decode("agt", text.strip()))
    return Q(asked__text__icontains=text) | Q(agent__name__icontains=text)


def is_id(text: str) -> bool:
    try:
        decode("agt", text.strip())
    except ValueError:
        return False
    return True


def moment(text: str, name: str) -> datetime:
    try:
        value = parse_datetime(text)
        if value is not None and value.tzinfo is not None:
            return value.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Refused(f"bad_{name}", f"{name} must be a time like 2026-01-31T12:00:00Z.", 400)


def micro(text: str) -> int:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or not 0 <= value < 10**9:
        raise Refused("bad_cost_gt", "cost_gt must be an amount in USD.", 400)
    return int(value * 1_000_000)


CONDITIONS: dict[str, Callable[[str], Q]] = {
    "agent": any_of("agent", lambda names: Q(agent_id__in=names)),
    "tenant": any_of("tenant", lambda names: Q(tenant__slug__in=names)),
    "outcome": any_of("outcome", lambda names: Q(outcome__in=names)),
    "mode": any_of("mode", lambda names: Q(mode__in=names)),
    "state": any_of("state", lambda names: Q(state__in=names)),
    "tool": any_of("tool", called),
    "release": any_of("release", lambda names: Q(release_id__in=[paging.typed_id("rel", one, "release") for one in names])),
    "degraded": is_degraded,
    "since": lambda text: Q(created_at__gte=moment(text, "since")),
    "until": lambda text: Q(created_at__lt=moment(text, "until")),
    "cost_gt": lambda text: Q(cost_micro__gt=micro(text)),
    "q": said,
}
