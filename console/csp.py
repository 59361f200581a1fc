"""Security headers on every answer, static files, the admin and the error pages included."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
}

Answer = HttpResponseBase | Awaitable[HttpResponseBase]


def stamp(response: HttpResponseBase) -> HttpResponseBase:
    """Set the headers; one that a view set itself stays."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if settings.SECURE_HSTS_SECONDS:  # the address that people use is https
        response.headers.setdefault("Strict-Transport-Security", f"max-age={settings.SECURE_HSTS_SECONDS}")
    return response


class SecurityHeaders:
    """Works in both colours, so that the async views are not moved to a thread because of it."""

    async_capable = True
    sync_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Answer]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Answer:
        answer = self.get_response(request)
        return stamp(answer) if isinstance(answer, HttpResponseBase) else self.later(answer)

    async def later(self, answer: Awaitable[HttpResponseBase]) -> HttpResponseBase:
        return stamp(await answer)


class RefusedSockets:
    """ASGI: a WebSocket that is refused before it opened is an HTTP answer, with the headers of every other."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        open_or_over = "websocket.http.response" not in scope.get("extensions", {})

        async def told(message: dict[str, Any]) -> None:
            nonlocal open_or_over
            if open_or_over or message["type"] != "websocket.close":
                await send(message)
            else:
                response = stamp(HttpResponse(status=403, content_type="text/plain"))
                pairs = [(name.lower().encode(), value.encode()) for name, value in response.items()]
                await send({"type": "websocket.http.response.start", "status": 403, "headers": pairs})
                await send({"type": "websocket.http.response.body", "body": b""})
            open_or_over = True

        await self.app(scope, receive, told)
