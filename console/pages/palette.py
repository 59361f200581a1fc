"""The search of every page (Ctrl K): `GET /palette/?q=` answers JSON. Pages by what people call them, what may be done, things by name.

The browser knows the pages of its sidebar and reads ids by itself; nothing here does anything: each entry is an address, and
a change (another tenant) says what its form posts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_safe

from console import finding
from tenants.actors import Actor

from . import rules, shell, switches
from .session import signed_in

LONGEST = 100


@dataclass(frozen=True, slots=True)
class Place:
    """`words`: what else it is called. `open_to`: whom it opens for, and for whom it is worth offering."""

    label: str
    name: str
    icon: str
    words: str = ""
    open_to: Callable[[Actor], bool] = lambda actor: True


def holds(scope: str) -> Callable[[Actor], bool]:
    return lambda actor: actor.can(scope)


PAGES = (
    Place("Overview", "overview", "gauge", "home dashboard health charts"),
    Place("Runs", "runs", "activity", "executions traces history"),
    Place("Approvals", "approvals", "hand", "inbox waiting decide sign-off requests"),
    Place("Recommended actions", "drafts", "pen-line", "drafts proposals"),
    Place("Reviewer health", "reviewer-health", "users", "approvals workload"),
    Place("Incidents", "incidents", "siren", "outage on-call trouble"),
    Place("Runbooks", "runbooks", "book-open", "playbooks procedures"),
    Place("Detectors", "detectors", "activity", "monitors thresholds"),
    Place("Agents", "agents", "bot", "workers assistants"),
    Place("Tools", "tools", "wrench", "functions integrations"),
    Place("Who may call what", "matrix", "shield-check", "permissions matrix access roles"),
    Place("Rules", "rules", "shield", "policy guardrails"),
    Place("Policy versions", "policy-versions", "history", "rules backtest"),
    Place("Imports", "imports", "download", "openapi mcp servers tools"),
    Place("Models", "models", "sparkles", "llm providers breakers tiers"),
    Place("Spend", "spend", "wallet", "billing cost costs money price budget invoice usage"),
    Place("Unknown writes", "unknowns", "circle-question-mark", "reconcile lost timeout"),
    Place("Kill switches", "switches", "power-off", "stop emergency halt off"),
    Place("Releases", "releases", "rocket", "versions deploy rollout canary promote"),
    Place("Evals", "evals", "list-checks", "suites cases quality tests"),
    Place("Evaluations", "evaluations", "list-checks", "evals results"),
    Place("Checks", "checks", "list-checks", "evals path assertions"),
    Place("Scores", "scores", "list-checks", "evals grades"),
    Place("Compare", "compare", "arrow-up-down", "releases difference"),
    Place("Compare two runs", "compare-runs", "arrow-up-down", "difference diff"),
    Place("Memory", "memory", "database", "facts knowledge"),
    Place("Forget about somebody", "memory-forget", "database", "memory erase privacy gdpr", holds("memory:write")),
    Place("Members", "members", "users", "people team roles invite users", holds("config:write")),
    Place("Audit log", "audit", "scroll-text", "who did what trail evidence", holds("audit:read")),
    Place("Changes", "changes", "history", "timeline what changed"),
    Place("Standing grants", "grants", "list-checks", "approve always"),
    Place("Channels", "channels", "bell", "notifications chat email webhooks"),
    Place("Settings", "settings", "settings", "preferences time zone theme density shortcuts"),
    Place("Security", "security", "key-round", "password passkey sessions second factor"),
    Place("API docs", "api-docs", "book-open", "reference openapi keys"),
    Place("What the figures mean", "metric-definitions", "book-open", "metrics definitions"),
)
ACTIONS = (
    Place("New run", "new-run", "plus", "start submit", holds("runs:write")),
    Place("Open incident", "incident-new", "siren", "new report declare", holds("incidents:write")),
    Place("New kill switch", "switch-new", "power-off", "stop emergency halt", switches.may_throw),
    Place("New rule", "rule-new", "shield", "policy guardrail", rules.may_add),
    Place("Invite somebody", "members", "user", "member people", holds("config:write")),
)


@require_safe
@signed_in
def search(request: HttpRequest) -> HttpResponse:
    """`{items: [{label, group, url, icon, post?}]}`, pages first; without words what may be done, and nothing else."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    text = " ".join(request.GET.get("q", "")[:LONGEST].split())
    items = [*(listed(PAGES, "Page", actor, text) if text else ()), *listed(ACTIONS, "Do", actor, text), *elsewhere(actor, text)]
    answer = JsonResponse({"items": items + [found.as_json() for found in finding.named(actor, text)]})
    answer["Cache-Control"] = "private, no-store"
    return answer


def listed(places: tuple[Place, ...], group: str, actor: Actor, text: str) -> Iterator[dict[str, str]]:
    for place in places:
        url = address(place.name)
        if url and place.open_to(actor) and fits(f"{place.label} {place.words}", text):
            yield {"label": place.label, "group": group, "url": url, "icon": place.icon}


def elsewhere(actor: Actor, text: str) -> Iterator[dict[str, object]]:
    """The other tenants that this person may look at."""
    for tenant in shell.tenants_of(actor):
        label = f"Switch to tenant {tenant.slug}"
        if tenant.pk != actor.tenant.pk and fits(f"{label} {tenant.name}", text):
            yield {"label": label, "group": "Do", "url": reverse("tenant"), "icon": "building-2", "post": {"tenant": tenant.slug}}


def fits(about: str, text: str) -> bool:
    """Every word of `text` begins a word of `about`."""
    known = about.lower().replace("-", " ").split()
    return all(any(one.startswith(word) for one in known) for word in text.lower().replace("-", " ").split())


def address(name: str) -> str:
    """Empty where an installation has no such page."""
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""
