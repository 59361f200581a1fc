"""The demo page: break the sandbox on purpose, start a story, and see in its ledger what really happened. Only in the demo."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_POST, require_safe

from runs import intake
from tenants.actors import Actor
from tenants.errors import Refused

from .session import signed_in

JSON = dict[str, Any]
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
TIMEOUT_S = 2
LARGEST = 8 << 20  # bytes of an answer
BACK = timedelta(hours=1)  # how far the ledger is shown
EFFECTS = 20

TARGETS = {
    "model": "The model",
    "search_docs": "search_docs",
    "fetch_account": "fetch_account",
    "list_charges": "list_charges",
    "create_ticket": "create_ticket",
    "close_ticket": "close_ticket",
    "issue_refund": "issue_refund",
    "send_email": "send_email",
    "delete_account": "delete_account",
}
FAULTS = {  # fault -> (what it does in plain words, the same for a line of the list)
    "latency": ("answers 1.5 seconds late", "answers late"),
    "429": ("says that there are too many requests", "refuses: too many requests"),
    "500": ("breaks with an error 500, nothing done", "breaks with an error 500"),
    "drop_before": ("hangs up before it has done anything", "hangs up before doing anything"),
    "drop_after": ("does it, then hangs up without an answer", "does it, then hangs up"),
    "malformed": ("does it and answers with garbage", "answers with garbage"),
    "slow_drip": ("does it and answers one byte at a time", "answers one byte at a time"),
    "hang": ("never answers, nothing done", "never answers"),
}
TIMES = {"1": "the next time", "3": "the next 3 times", "-1": "until cleared"}


@dataclass(frozen=True, slots=True)
class Story:
    """A run that shows something. `shows`: what to look out for."""

    key: str
    title: str
    agent: str
    text: str
    shows: str


STORIES = (
    Story(
        "question", "Ask about a rule", "support-triage", "What is your refund policy?", "Reads the handbook and answers. Nobody is asked."
    ),
    Story(
        "complaint",
        "Complain about a charge",
        "support-triage",
        "URGENT: I was charged twice on acct_1001",
        "Wants to open an urgent ticket, and waits for one person.",
    ),
    Story(
        "refund",
        "Ask for a refund",
        "refund-agent",
        "Please refund the duplicate charge on acct_1004",
        "Finds the duplicate, and waits before money moves.",
    ),
)


class SandboxAway(Exception):
    """The sandbox does not answer, or not with what was expected. Says so in a sentence."""


def in_demo(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Absent outside the demo; for those who may start runs."""

    @signed_in
    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        if not settings.DEMO:
            raise Http404
        actor: Actor = request.actor  # type: ignore[attr-defined]
        actor.need("runs:write")
        return view(request)

    return guarded


@require_safe
@in_demo
def page(request: HttpRequest) -> HttpResponse:
    """`?part=ledger` answers the ledger alone, `?part=faults` the faults that are set."""
    part = request.GET.get("part", "")
    try:
        shown = {"ledger": ledger, "faults": armed}[part]() if part else armed() | ledger()
    except KeyError:
        raise Http404 from None
    except SandboxAway as away:
        shown = {"away": str(away)}
    if part:
        return render(request, f"pages/demo/_{part}.html", shown)
    return render(request, "pages/demo.html", shown | {"stories": STORIES, "targets": TARGETS, "faults": FAULTS, "times": TIMES})


@require_POST
@in_demo
def faults(request: HttpRequest) -> HttpResponse:
    """`{target, fault, times}` sets one; `{clear: target}` clears those of a target, `{clear: "all"}` every one."""
    clear = request.POST.get("clear", "")
    target, fault, times = (request.POST.get(name, "") for name in ("target", "fault", "times"))
    if clear and clear != "all" and clear not in TARGETS:
        raise Refused("bad_fault", "There is no such target.", 400)
    if not clear and not (target in TARGETS and fault in FAULTS and times in TIMES):
        raise Refused("bad_fault", "Choose what breaks, how, and how often.", 400)
    if clear:
        done = "Everything works again." if clear == "all" else f"{TARGETS[clear]} works again."
        return told(request, lambda: sandbox("DELETE", "/faults" if clear == "all" else f"/faults?target={quote(clear)}"), done)
    put = {"target": target, "fault": fault, "times": int(times)}
    return told(request, lambda: sandbox("PUT", "/faults", put), f"{TARGETS[target]} {FAULTS[fault][0]}, {TIMES[times]}.")


@require_POST
@in_demo
def reset(request: HttpRequest) -> HttpResponse:
    """The sandbox as it was at its start. Runs and their history stay."""
    return told(request, lambda: sandbox("POST", "/reset"), "The sandbox is as it was at its start.")


@require_POST
@in_demo
def start(request: HttpRequest) -> HttpResponse:
    """`{story}`: a run of this person, and on to its page."""
    story = next((one for one in STORIES if one.key == request.POST.get("story")), None)
    if story is None:
        raise Refused("bad_story", "There is no such story.", 400)
    actor: Actor = request.actor  # type: ignore[attr-defined]
    accepted = intake.submit(actor, intake.Order(agent=story.agent, input=story.text))
    return redirect("run", accepted.run.run_id)


def told(request: HttpRequest, change: Callable[[], Any], done: str) -> HttpResponseRedirect:
    """Make the change, and say on the page how it went."""
    try:
        change()
        messages.success(request, done)
    except SandboxAway as away:
        messages.error(request, str(away))
    return HttpResponseRedirect(request.path.rsplit("/", 2)[0] + "/")


def armed() -> JSON:
    """The faults that are still due, in words."""
    found = sandbox("GET", "/faults").get("faults", [])
    due = [fault for fault in found if fault.get("times")]
    return {"armed": [{"target": fault["target"], "words": words(fault)} for fault in due]}


def words(fault: JSON) -> str:
    often = "until cleared" if fault["times"] < 0 else "once more" if fault["times"] == 1 else f"{fault['times']} more times"
    seen = f", met {fault['hits']} time{'' if fault['hits'] == 1 else 's'}" if fault.get("hits") else ""
    name = TARGETS.get(fault["target"], fault["target"])
    return f"{name} {FAULTS.get(fault['fault'], (fault['fault'],) * 2)[1]}, {often}{seen}"


def ledger() -> JSON:
    """What was really applied in the last hour, newest first."""
    since = (timezone.now() - BACK).timestamp()
    effects = sandbox("GET", f"/ledger?since={since:.0f}").get("effects", [])
    keys = [effect["key"] for effect in effects if effect["key"]]
    rows = [effect | {"at": moment(effect["at"]), "twice": keys.count(effect["key"]) > 1} for effect in effects[-EFFECTS:]]
    return {"effects": rows[::-1], "count": len(effects)}


def moment(text: str) -> datetime | None:
    return parse_datetime(text)


def sandbox(method: str, path: str, body: JSON | None = None) -> JSON:
    """One exchange with the sandbox on this machine: no proxy, no redirect, and nowhere else. Raises SandboxAway."""
    if urlsplit(settings.SANDBOX_URL).hostname not in LOOPBACK:
        raise SandboxAway("The sandbox must be on this machine: SANDBOX_URL is elsewhere.")
    data = None if body is None else json.dumps(body).encode()
    request = Request(settings.SANDBOX_URL + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT_S) as answer:
            said = json.loads(answer.read(LARGEST))
    except HTTPError as refused:
        refused.close()
        raise SandboxAway(f"The sandbox refused with {refused.code}.") from None
    except (OSError, HTTPException, ValueError):
        raise SandboxAway("The sandbox does not answer. `make run` starts it.") from None
    if not isinstance(said, dict):
        raise SandboxAway("The sandbox answered something else.")
    return said
