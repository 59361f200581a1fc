"""Every page, one line each. What a page fetches again while it is open are its `?part=`s."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from . import approvals, breakers, demo, drafts, imports, models, new_run, overview, run, runs, session, spend, switches, tools, unknowns

urlpatterns = [
    path("", overview.page, name="overview"),
    path("runs/", runs.page, name="runs"),
    path("runs/new/", new_run.page, name="new-run"),
    path("runs/<str:run_id>/", run.page, name="run"),
    path("approvals/", approvals.inbox, name="approvals"),
    path("approvals/<str:approval_id>/", approvals.approval, name="approval"),
    path("drafts/", drafts.page, name="drafts"),
    path("unknowns/", unknowns.page, name="unknowns"),
    path("unknowns/<str:unknown_id>/", unknowns.one, name="unknown"),
    path("spend/", spend.page, name="spend"),
    path("switches/", switches.page, name="switches"),
    path("switches/new/", switches.new, name="switch-new"),
    path("switches/bar/", switches.bar, name="switch-bar"),
    path("switches/<str:switch_id>/", switches.one, name="switch"),
    path("tools/", tools.page, name="tools"),
    path("tools/-/imports/", imports.page, name="imports"),  # no tool's name begins with a dash
    path("tools/<str:name>/", tools.one, name="tool"),
    path("models/", models.page, name="models"),
    path("models/<str:name>/", models.one, name="model"),
    path("breakers/move/", breakers.force, name="breaker"),
    path("demo/", demo.page, name="demo"),
    path("demo/faults/", demo.faults, name="demo-faults"),
    path("demo/run/", demo.start, name="demo-run"),
    path("demo/reset/", demo.reset, name="demo-reset"),
    path("sign-in/", session.SignIn.as_view(), name="sign-in"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("zone/", session.switch_zone, name="zone"),
    path("tenant/", session.switch_tenant, name="tenant"),
]
