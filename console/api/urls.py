"""`/api/v1`. The two views that may wait stand in `console.live.http`."""

from django.urls import path
from drf_spectacular.views import SpectacularAPIView

from console.live.http import events_or_stream, submit_and_wait

from . import approvals, ceilings, deliveries, docs, drafts, imports, models, registry, runs, switches, unknowns

urlpatterns = [
    path("runs", submit_and_wait(runs.Runs.as_view())),
    path("runs/<str:run_id>", runs.OneRun.as_view()),
    path("runs/<str:run_id>/steps", runs.Steps.as_view()),
    path("runs/<str:run_id>/events", events_or_stream(runs.Events.as_view()), name="api-events"),
    path("runs/<str:run_id>/cancel", runs.Cancel.as_view()),
    path("runs/<str:run_id>/retry", runs.Retry.as_view()),
    path("runs/<str:run_id>/deliveries", deliveries.Deliveries.as_view()),
    path("runs/<str:run_id>/extend", runs.Extend.as_view()),
    path("runs/<str:run_id>/<str:verb>", runs.NotBuilt.as_view()),
    path("deliveries/<str:delivery_id>/redeliver", deliveries.Redeliver.as_view()),
    path("drafts", drafts.Drafts.as_view()),
    path("drafts/<str:draft_id>/carry-out", drafts.CarryOut.as_view()),
    path("drafts/<str:draft_id>/dismiss", drafts.Dismiss.as_view()),
    path("approvals", approvals.Approvals.as_view()),
    path("approvals/<str:approval_id>", approvals.OneApproval.as_view()),
    path("approvals/<str:approval_id>/decision", approvals.Decide.as_view()),
    path("unknowns", unknowns.Unknowns.as_view()),
    path("unknowns/<str:unknown_id>", unknowns.OneUnknown.as_view()),
    path("unknowns/<str:unknown_id>/resolve", unknowns.Resolve.as_view()),
    path("switches", switches.Switches.as_view()),
    path("switches/<str:switch_id>", switches.OneSwitch.as_view()),
    path("switches/<str:switch_id>/lift", switches.LiftSwitch.as_view()),
    path("tools", registry.Tools.as_view()),
    path("tools/<str:name>", registry.OneTool.as_view()),
    path("tools/<str:name>/classify", imports.Classify.as_view()),
    path("tools/<str:name>/accept", imports.Accept.as_view()),
    path("tools/<str:name>/reject", imports.Reject.as_view()),
    path("imports/openapi", imports.FromOpenApi.as_view()),
    path("imports/mcp", imports.FromMcp.as_view()),
    path("models", models.Models.as_view()),
    path("models/<str:name>", models.OneModel.as_view()),
    path("breakers", models.Breakers.as_view()),
    path("breakers/<str:breaker_id>", models.OneBreaker.as_view()),
    path("agents", registry.Agents.as_view()),
    path("agents/<str:name>", registry.OneAgent.as_view()),
    path("agents/<str:name>/releases", registry.Releases.as_view()),
    path("releases/<str:release_id>/<str:verb>", registry.MoveRelease.as_view()),
    path("ceilings", ceilings.Ceilings.as_view()),
    path("config/apply", registry.Apply.as_view()),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", docs.page, name="api-docs"),
]
