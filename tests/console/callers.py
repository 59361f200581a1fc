"""Calls of the API with a key, as a client makes them."""

import json
from dataclasses import dataclass
from typing import Any

from django.test import Client

from tenants import keys
from tenants.actors import Actor
from tenants.models import Member
from tenants.roles import SCOPES

API = "/api/v1"


def key_of(actor: Actor, *scopes: str) -> str:
    """A new key of this member, with every scope unless some are named."""
    member = Member.objects.get(tenant=actor.tenant, user=actor.user)
    return keys.issue(member, "test", scopes or SCOPES)[1]


@dataclass
class Caller:
    """Answers are Django's test responses; `body` is sent as JSON, `raw` as it is."""

    key: str

    def __call__(self, method: str, path: str, body: Any = None, *, raw: bytes | str | None = None, **headers: str) -> Any:
        data = raw if raw is not None else b"" if body is None else json.dumps(body)
        kind = headers.pop("content_type", "application/json")
        extra = {"Authorization": f"Bearer {self.key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return Client().generic(method, API + path, data, content_type=kind, headers=extra)

    def get(self, path: str, **headers: str) -> Any:
        return self("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self("POST", path, body, **headers)

    def put(self, path: str, body: Any = None, **headers: str) -> Any:
        return self("PUT", path, body, **headers)


def caller(actor: Actor, *scopes: str) -> Caller:
    return Caller(key_of(actor, *scopes))


def refusal(response: Any) -> tuple[int, str]:
    """(status, code) of a problem document, whose form is checked on the way."""
    assert response["Content-Type"] == "application/problem+json", response.content
    body = response.json()
    assert body["status"] == response.status_code and body["type"] == f"urn:signalbox:problem:{body['code']}"
    assert body["detail"] and body["request_id"] == response["X-Request-Id"]
    return response.status_code, body["code"]
