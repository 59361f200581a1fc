"""Unknown writes as pages: the cases that are open, one case with everything that is known of it, and a person's word on it.

Live data may fetch parts of a page again (`?part=`): the list, the state of a case, what is known. The form is in none of them.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from console import records, sentences
from console.api import paging
from console.api.unknowns import find, visible
from console.templatetags.signalbox import milliseconds
from runs import reconcile
from runs.models import Call, Observation, Run, UnknownWrite
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import encode
from tenants.models import Member
from tenants.roles import NEEDS, ORDER
from tools.definitions import ErrorClass

from .approval_list import briefly, call_headline
from .session import signed_in

Context = dict[str, Any]
Result, How = UnknownWrite.Result, UnknownWrite.How
LISTED = 50  # cases in the list
MAY_SETTLE = NEEDS["approvals:decide"]
HOW = {How.PERSON: "by a person", How.VERIFIED: "by the tool's own check", How.LATE_EVIDENCE: "by what its engine saw, told late"}

SILENCE = {  # error class of the call -> why nobody knows
    reconcile.LOST: "the engine that sent it never said what came of it",
    ErrorClass.INVALID_OUTPUT: "its answer could not be understood",
    "": "its answer never came",
}
VERDICTS = {  # verdict of a probe -> (icon, tone, words)
    "applied": ("circle-check", "ok", "The tool's check says: applied"),
    "not_applied": ("circle-x", "fail", "The tool's check says: not applied"),
    "cannot_tell": ("circle-question-mark", "idle", "The tool's check cannot tell"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that is known of a case. `at`: when, or None where that is not known. `detail`: foreign text."""

    at: datetime | None
    icon: str
    tone: str
    words: str
    detail: str = ""


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """`?tab=open|settled`, `&cursor=` of the settled ones; `?part=list` answers the list alone."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    shown = listing(request, actor, "settled" if request.GET.get("tab") == "settled" else "open")
    part = request.GET.get("part") == "list"
    return render(request, "pages/unknowns/_list.html" if part else "pages/unknowns.html", shown)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, unknown_id: str) -> HttpResponse:
    """GET shows (`?confirm=applied|not_applied` with that step open), POST `{result, evidence, resend}` settles."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    case = find(actor, unknown_id)
    if request.method == "POST":
        return settle(request, actor, case)
    call = call_of(case)
    part = request.GET.get("part")
    if part == "status":
        return render(request, "pages/unknowns/_status.html", state_of(case, call))
    if part == "known":
        return render(request, "pages/unknowns/_known.html", state_of(case, call) | {"entries": entries(case, call)})
    return show(request, actor, case, confirm=request.GET.get("confirm"))


def show(request: HttpRequest, actor: Actor, case: UnknownWrite, status: int = 200, **more: Any) -> HttpResponse:
    call = call_of(case)
    context = state_of(case, call) | sent(call) | {"entries": entries(case, call)}
    if not case.result:
        may = actor.can("approvals:decide")
        context |= {"may_settle": may, "least": MAY_SETTLE, "others": [] if may else who_may(case)}
        if more.get("confirm") not in Result.values:
            more["confirm"] = ""
    return render(request, "pages/unknown.html", context | more, status=status)


# settling ---------------------------------------------------------------------------------------------------------------------


def settle(request: HttpRequest, actor: Actor, case: UnknownWrite) -> HttpResponse:
    """A refusal shows the page again with what was typed."""
    result, evidence = request.POST.get("result", ""), request.POST.get("evidence", "").replace("\r\n", "\n").strip()
    resend = bool(request.POST.get("resend"))
    typed = {"confirm": result, "evidence": evidence, "resend": resend}
    if len(evidence) > reconcile.EVIDENCE_MAX and actor.can("approvals:decide"):
        error = f"At most {reconcile.EVIDENCE_MAX:,} characters are kept; these are {len(evidence):,}."
        return show(request, actor, case, 422, error=error, **typed)
    try:
        settled = reconcile.resolve(actor, case.id, result=result, evidence=evidence, resend=resend)
    except NotFound:
        raise
    except Refused as refused:
        return refuse(request, actor, find(actor, case.unknown_id), refused, typed)
    messages.success(request, f"Recorded: {settled.tool} was {'not ' * (result == Result.NOT_APPLIED)}applied.")
    return HttpResponse(status=303, headers={"Location": reverse("unknown", args=[case.unknown_id])})


def refuse(request: HttpRequest, actor: Actor, case: UnknownWrite, refused: Refused, typed: Context) -> HttpResponse:
    if refused.code == "evidence_missing":
        return show(request, actor, case, 422, error=refused.message, **typed)
    call = call_of(case)
    early = quiet_from(call) if refused.code == "too_early" and call else None
    return show(request, actor, case, refused.status, notice=refused, early=early, **typed)


def who_may(case: UnknownWrite) -> list[str]:
    """Names of a few people who may settle it."""
    roles = ORDER[ORDER.index(MAY_SETTLE) :]
    people = Member.objects.filter(tenant_id=case.tenant_id, role__in=roles, user__is_active=True)
    return list(people.order_by("user__username").values_list("user__username", flat=True)[:4])


# the list ---------------------------------------------------------------------------------------------------------------------


def listing(request: HttpRequest, actor: Actor, tab: str) -> Context:
    """Open cases, the oldest in front; settled ones, the newest in front and in pages."""
    rows = visible(actor).select_related("tenant")
    more: str | None = None
    count = rows.filter(result="").count()
    if tab == "settled":
        found, more = paging.page(rows.exclude(result=""), request.GET, "unk")
    else:
        found = list(rows.filter(result="").order_by("id")[:LISTED])
    calls = calls_of(found)
    agents = dict(Run.objects.filter(id__in={case.run_id for case in found}).values_list("id", "agent_id")) if found else {}
    items = [item(case, calls.get((case.run_id, case.step, case.ord)), agents.get(case.run_id, "")) for case in found]
    return {"tab": tab, "items": items, "more": more, "count": count}


def item(case: UnknownWrite, call: Call | None, agent: str) -> Context:
    return {
        "case": case,
        "call": call,
        "sent_at": sent_at(case, call),
        "agent": agent,
        "run_id": encode("agt", case.run_id),
        "headline": call_headline(case.tool, getattr(call, "brief", None)),
        "verdict": str(case.probes[-1]["verdict"]).replace("_", " ") if case.probes else "",
        "how": HOW.get(How(case.how)) if case.how else "",
    }


def calls_of(cases: list[UnknownWrite]) -> dict[tuple[Any, int, int], Call]:
    """(run, step, ord) -> the call, without its result and without large arguments. One query."""
    if not cases:
        return {}
    among = {f"{name}__in": {getattr(case, name) for case in cases} for name in ("run_id", "step", "ord")}
    rows = briefly(Call.objects.filter(**among).defer("result", "decision"))
    return {(call.run_id, call.step, call.ord): call for call in rows}


# one case ---------------------------------------------------------------------------------------------------------------------


def call_of(case: UnknownWrite) -> Call | None:
    """None where retention has been."""
    return Call.objects.filter(run_id=case.run_id, step=case.step, ord=case.ord).select_related("run").first()


def state_of(case: UnknownWrite, call: Call | None) -> Context:
    quiet: datetime | None = quiet_from(call) if call else None
    return {
        "case": case,
        "call": call,
        "run_id": encode("agt", case.run_id),
        "agent": call.run.agent_id if call else "",
        "sent_at": sent_at(case, call),
        "silence": SILENCE.get(call.error_class or "", SILENCE[""]) if call else SILENCE[""],
        "quiet_from": quiet,
        "is_quiet": quiet is None or quiet <= timezone.now(),
        "how": HOW.get(How(case.how)) if case.how else "",
        "resent": bool(case.result == Result.NOT_APPLIED and call and (call.decision or {}).get("resend")),
    }


def sent(call: Call | None) -> Context:
    """What was sent: every argument whole, the exact text, and the key."""
    if call is None or call.args is None:
        return {"rows": None, "exact": "", "size": 0}
    raw = bytes(call.args)
    return {"rows": sentences.rows(json.loads(raw)), "exact": records.text_of(raw), "size": len(raw)}


def quiet_from(call: Call) -> datetime | None:
    """From when on nothing of the call can be on its way, as `runs.reconcile.quiet` has it. None: nothing is."""
    if call.send_deadline is None or call.error_class != reconcile.LOST:
        return call.send_deadline
    return call.send_deadline + timedelta(seconds=2 * settings.LEASE_TTL_S)


# what is known ----------------------------------------------------------------------------------------------------------------


def entries(case: UnknownWrite, call: Call | None) -> list[Entry]:
    """What happened to the case's call in order, then what is still to come."""
    known = [*sends(case, call), *late(case), *(probed(probe) for probe in case.probes)]
    known.append(Entry(case.opened_at, "circle-question-mark", "fail", "Unknown: this case was opened"))
    if case.settled_at:
        words = f"Settled: {'applied' if case.result == Result.APPLIED else 'not applied'}, {HOW[How(case.how)]}"
        known.append(Entry(case.settled_at, "check", "ok", f"{words}, {case.settled_by}" if case.settled_by else words))
    else:
        known += awaited(case, call)
    return sorted(known, key=lambda entry: entry.at or case.opened_at)


def sends(case: UnknownWrite, call: Call | None) -> list[Entry]:
    """Each send, and how it ended. Sends after the case was settled belong to what came later."""
    if call is None:
        return []
    made: list[Entry] = []
    for one in records.attempts(call.run).get((case.step, case.ord), []):
        started = datetime.fromisoformat(one["started_at"])
        if case.settled_at and started > case.settled_at:
            break
        made.append(Entry(started, "arrow-down-to-line", "run", f"Sent, attempt {one['n'] or len(made) + 1}"))
        if one["ended_at"]:
            made.append(
                ended(datetime.fromisoformat(one["ended_at"]), one | {"tool": case.tool, "step": case.step}, call.run.last_error or {})
            )
    return made or [Entry(call.dispatched_at, "arrow-down-to-line", "run", "Sent")]


def ended(at: datetime, one: Context, error: Context) -> Entry:
    """`error`: the run's last one, which may be this one in more words."""
    after = f" after {milliseconds(one['latency_ms'])}" if one["latency_ms"] is not None else ""
    if one["result"] == "ok":
        return Entry(at, "circle-check", "ok", f"Answered{after}")
    status = f", status {one['status']}" if one["status"] else ""
    same = error.get("error_type") == one["error_type"] and (error.get("tool"), error.get("step")) == (one["tool"], one["step"])
    detail = error.get("message") if same else ""
    return Entry(at, "octagon-x", "fail", f"No usable answer{after}", f"{one['error_type'] or 'unknown'}{status}{detail and f': {detail}'}")


def late(case: UnknownWrite) -> list[Entry]:
    """What engines saw that no longer owned the run."""
    said: dict[bool | None, tuple[str, str, str]] = {
        True: ("circle-check", "ok", "it was applied"),
        False: ("circle-x", "fail", "it was not applied"),
    }
    rows = Observation.objects.filter(run_id=case.run_id, step=case.step, ord=case.ord).order_by("id")[:LISTED]
    made = []
    for row in rows:
        icon, tone, words = said.get(row.applied, ("circle-question-mark", "idle", "it did not know either"))
        detail = row.error_class or (json.dumps(row.result, ensure_ascii=False)[:300] if row.result else "")
        made.append(Entry(row.at, icon, tone, f"An engine that had lost the run saw of attempt {row.attempt}: {words}", detail))
    return made


def probed(probe: Context) -> Entry:
    icon, tone, words = VERDICTS.get(probe["verdict"], VERDICTS["cannot_tell"])
    return Entry(datetime.fromisoformat(probe["at"]), icon, tone, words, probe["detail"])


def awaited(case: UnknownWrite, call: Call | None) -> list[Entry]:
    """Of an open case: until when the send may take, from when on nothing is on its way, and the next probe."""
    made: list[Entry] = []
    if call and call.send_deadline:
        quiet, over, nothing = quiet_from(call), "The send had to be over by then", "from then on nothing of it can be on its way"
        if quiet == call.send_deadline:
            made.append(Entry(quiet, "timer", "idle", f"{over}; {nothing}"))
        else:
            made.append(Entry(call.send_deadline, "timer", "idle", over))
            made.append(Entry(quiet, "lock", "idle", nothing.capitalize()))
    if case.next_probe_at:
        made.append(Entry(case.next_probe_at, "search", "run", "The tool's check is asked again"))
    return made


def sent_at(case: UnknownWrite, call: Call | None) -> datetime | None:
    """When it was sent for the last time before the case was opened."""
    if call is None or call.dispatched_at is None:
        return None
    return call.dispatched_at if call.dispatched_at <= (case.settled_at or timezone.now()) else None
