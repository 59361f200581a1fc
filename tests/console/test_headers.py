"""The strict policy is on every answer: pages, errors, the admin, the API, and where nobody is signed in."""

import pytest
from django.test import Client

from console.csp import HEADERS
from tenants.models import Controls, Member, Tenant, User

ADDRESSES = (
    "/", "/runs/", "/runs/new/", "/approvals/", "/tools/", "/unknowns/", "/switches/", "/switches/new/", "/sign-in/", "/nothing",
    "/runs/agt_no/",
    "/admin/login/", "/admin/", "/api/v1/docs/", "/api/v1/runs", "/api/v1/nothing", "/healthz", "/readyz", "/static/theme.js",
)  # fmt: skip


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("address", ADDRESSES)
def test_every_answer_carries_the_policy(db: None, address: str, known: bool) -> None:
    client = Client()
    if known:
        tenant = Tenant.objects.create(slug="acme")
        Controls.objects.get_or_create(tenant=tenant)
        person = User.objects.create(username="ann", is_staff=True)
        Member.objects.create(tenant=tenant, user=person, role="admin")
        client.force_login(person)
    answer = client.get(address)
    assert answer.status_code < 500 or address == "/readyz"
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert address.startswith("/static/") or answer.headers["X-Request-Id"]
