"""Every page, one line each. What a page fetches again while it is open are its `?part=`s."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from . import approvals, demo, new_run, overview, run, runs, session, tools, unknowns

urlpatterns = [
    path("", overview.page, name="overview"),
    path("runs/", runs.page, name="runs"),
    path("runs/new/", new_run.page, name="new-run"),
    path("runs/<str:run_id>/", run.page, name="run"),
    path("approvals/", approvals.inbox, name="approvals"),
    path("approvals/<str:approval_id>/", approvals.approval, name="approval"),
    path("unknowns/", unknowns.page, name="unknowns"),
    path("unknowns/<str:unknown_id>/", unknowns.one, name="unknown"),
    path("tools/", tools.page, name="tools"),
    path("tools/<str:name>/", tools.one, name="tool"),
    path("demo/", demo.page, name="demo"),
    path("demo/faults/", demo.faults, name="demo-faults"),
    path("demo/run/", demo.start, name="demo-run"),
    path("demo/reset/", demo.reset, name="demo-reset"),
    path("sign-in/", session.SignIn.as_view(), name="sign-in"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("zone/", session.switch_zone, name="zone"),
    path("tenant/", session.switch_tenant, name="tenant"),
]
