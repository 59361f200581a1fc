"""`GET /metrics` for Prometheus: counters over all hours that are kept, quantiles of the last 24, and how things stand.

Counters are sums over what was counted; background jobs count every few seconds, and `signalbox_rollup_age_seconds` says how long
ago. When an hour is counted anew, a counter may also go down a little.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port
from django.utils import timezone
from django.views.decorators.http import require_safe

from tenants.errors import Refused
from tenants.scope import ALL, settle

from . import exposition, metrics
from .api.identity import actor_of
from .api.problems import problem
from .exposition import Family, Sample, bounded
from .readings import Cut, Scope, read

PROXY = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via")
SUMS = """
select {label}, {sums} from {table} where {scope} {where} group by 1
"""
KEYED = """
select {label}, e.key, sum(e.value::bigint) from {table}, lateral jsonb_each_text({field}) e where {scope} {where} group by 1, 2
"""
RUN_SUMS = ("started", "ended", "budget_exceeded", "fell_back", "violated", "writes", "cost_micro", "steps_total", "duration_total_ms")
CALL_SUMS = ("calls", "errors", "unknown", "retried", "sends", "denied", "latency_total_ms", "tokens_in", "tokens_out", "cost_micro")
MOST_CLASSES = 50


@require_safe
def view(request: HttpRequest) -> HttpResponse:
    """For a key or a session with metrics:read, of its tenant; for who asks from this machine, of all."""
    try:
        scope = scope_of(request)
    except Refused as refused:
        return problem(refused)
    return HttpResponse(exposition.text(families(scope)), content_type=exposition.MEDIA, headers={"Cache-Control": "no-store"})


def scope_of(request: HttpRequest) -> Scope:
    named = "Authorization" in request.headers
    if not named and is_local(request):
        settle(ALL)
        return None
    actor = actor_of(request)
    actor.need("metrics:read")
    return metrics.scope_of(actor)


def is_local(request: HttpRequest) -> bool:
    """Asked by a program of this machine, by an address of this machine. What a proxy passes on is not, nor what a foreign page asks."""
    host, _ = split_domain_port(request.get_host())
    asked = host.strip("[]")
    from_here = is_loopback(request.META.get("REMOTE_ADDR", "")) and (asked == "localhost" or is_loopback(asked))
    return from_here and not any(name in request.headers for name in (*PROXY, "Origin", "Sec-Fetch-Site"))


def is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def families(scope: Scope) -> list[Family]:
    now = timezone.now()
    reading = read(Cut(scope), metrics.last_hours(now), now, apart=("agent",))
    lately = {label: metrics.grouped(reading, Cut(scope), label) for label in ("agent", "tool", "model")}
    return [*_standing(scope, reading), *_runs(scope, lately["agent"]), *_calls(scope, lately), *_retries(scope)]


def _standing(scope: Scope, reading: metrics.Reading) -> list[Family]:
    now = metrics.standing(scope)
    age = (timezone.now() - reading.as_of).total_seconds() if reading.as_of else float("nan")
    told = (
        ("signalbox_engines", "Engines that are alive.", now.engines),
        ("signalbox_runs_live", "Runs that are not over.", now.live),
        ("signalbox_runs_overdue", "Runs that have been due for more than a minute and that no engine took.", now.overdue),
        ("signalbox_runs_waiting_for_people", "Runs that wait for a person.", now.with_people),
        ("signalbox_approvals_pending", "Requests for approval that wait.", now.waiting),
        ("signalbox_jobs_age_seconds", "Since background jobs gave a sign.", float("nan") if now.canary_s is None else now.canary_s),
        ("signalbox_rollup_age_seconds", "Since the hour that runs now was counted.", max(age, 0.0)),
        ("signalbox_rollup_uncounted", "Of the last 24 hours, those that are still to be counted.", reading.uncounted),
    )
    return [Family(name, "gauge", help_, [("", {}, value)]) for name, help_, value in told]


def _runs(scope: Scope, lately: dict[str, Any]) -> list[Family]:
    counts = _sums("console_runhour", "agent", RUN_SUMS, scope)
    states = _keyed("console_runhour", "agent", "states", scope)
    for agent, found in states.items():
        counts[agent] |= {f"state {state}": value for state, value in found.items() if state in ("succeeded", "failed", "cancelled")}
    kept = bounded(counts, "started")
    ended: list[Sample] = [
        ("", {"agent": agent, "state": name[6:]}, value)
        for agent, found in kept.items()
        for name, value in found.items()
        if name.startswith("state ")
    ]
    return [
        _family("signalbox_runs_started_total", "Runs accepted.", "agent", kept, "started"),
        Family("signalbox_runs_ended_total", "counter", "Runs that ended, by their last state.", ended),
        _family("signalbox_runs_budget_exceeded_total", "Runs that ended at a limit of their budget.", "agent", kept, "budget_exceeded"),
        _family("signalbox_runs_fallback_total", "Runs that gave a model up or took a rung, and ended.", "agent", kept, "fell_back"),
        _family("signalbox_runs_policy_violation_total", "Runs that tried what policy denies, and ended.", "agent", kept, "violated"),
        _family("signalbox_run_cost_usd_total", "What the runs that ended cost.", "agent", kept, "cost_micro", 1e-6),
        _family("signalbox_run_steps_total", "Steps of the runs that ended.", "agent", kept, "steps_total"),
        _summary(
            "signalbox_run_duration_seconds", "From acceptance to the end of runs; quantiles of the last 24 hours.", "agent", kept,
            ("ended", "duration_total_ms"), {agent: [made.p50_ms, made.p95_ms] for agent, made in lately.items()},
        ),
    ]  # fmt: skip


def _calls(scope: Scope, lately: dict[str, Any]) -> Iterable[Family]:
    for kind in ("tool", "model"):
        kept = bounded(_sums("console_callhour", "name", CALL_SUMS, scope, f"kind = '{kind}'"), "calls")
        slow = {name: [made.latency(0.5), made.latency(0.95)] for name, made in lately[kind].items()}
        about = f"signalbox_{kind}"
        yield _family(f"{about}_calls_total", f"Calls of {kind}s that were sent and are settled.", kind, kept, "calls")
        yield _family(f"{about}_call_errors_total", "Of these, those that failed.", kind, kept, "errors")
        yield _family(f"{about}_call_sends_total", "How often they were sent, retries too.", kind, kept, "sends")
        yield _summary(
            f"{about}_call_duration_seconds", "Latency of calls; quantiles of the last 24 hours.", kind, kept,
            ("calls", "latency_total_ms"), slow,
        )  # fmt: skip
        if kind == "tool":
            yield _family("signalbox_tool_calls_unknown_total", "Writes whose outcome is unknown.", kind, kept, "unknown")
            yield _family("signalbox_tool_calls_denied_total", "Calls that policy denied; they were not sent.", kind, kept, "denied")
        else:
            yield _family("signalbox_model_cost_usd_total", "What the calls cost.", kind, kept, "cost_micro", 1e-6)
            yield _family("signalbox_model_input_tokens_total", "Tokens sent.", kind, kept, "tokens_in")
            yield _family("signalbox_model_output_tokens_total", "Tokens received.", kind, kept, "tokens_out")


def _retries(scope: Scope) -> list[Family]:
    found = _keyed("console_callhour", "''", "retry_classes", scope).get("", {})
    errors = _keyed("console_callhour", "''", "classes", scope, "kind = 'tool'").get("", {})
    both = {name: {"retries": found.get(name, 0), "errors": errors.get(name, 0)} for name in {*found, *errors}}
    kept = bounded(both, "errors", MOST_CLASSES)
    return [
        _family("signalbox_call_retries_total", "Retries that were scheduled, by the class of the failure.", "class", kept, "retries"),
        _family("signalbox_tool_failures_total", "Calls of tools that failed, by the class of the failure.", "class", kept, "errors"),
    ]


def _family(name: str, help_: str, label: str, kept: dict[str, dict[str, float]], figure: str, unit: float = 1) -> Family:
    return Family(name, "counter", help_, [("", {label: key}, found.get(figure, 0) * unit) for key, found in kept.items()])


def _summary(
    name: str, help_: str, label: str, kept: dict[str, dict[str, float]], figures: tuple[str, str], slow: dict[str, list[float | None]]
) -> Family:
    samples: list[Sample] = []
    count, whole = figures
    for key, found in kept.items():
        for quantile, ms in zip(("0.5", "0.95"), slow.get(key, ()), strict=False):
            samples += [("", {label: key, "quantile": quantile}, ms / 1000)] if ms is not None else []
        samples += [("_sum", {label: key}, found.get(whole, 0) / 1000), ("_count", {label: key}, found.get(count, 0))]
    return Family(name, "summary", help_, samples)


def _sums(table: str, label: str, names: tuple[str, ...], scope: Scope, where: str = "true") -> dict[str, dict[str, float]]:
    sql = SUMS.format(label=label, sums=", ".join(f"sum({name})::bigint" for name in names), table=table, scope=_limit(scope), where=where)
    return {key: dict(zip(names, values, strict=True)) for key, *values in _ask(sql, scope)}


def _keyed(table: str, label: str, field: str, scope: Scope, where: str = "true") -> dict[str, dict[str, float]]:
    made: dict[str, dict[str, float]] = {}
    for key, name, value in _ask(KEYED.format(label=label, table=table, field=field, scope=_limit(scope), where=where), scope):
        made.setdefault(key, {})[name] = int(value)
    return made


def _limit(scope: Scope) -> str:
    return "" if scope is None else "tenant_id = %(tenant)s and"


def _ask(sql: str, scope: Scope) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, {"tenant": scope})
        return list(cursor.fetchall())
