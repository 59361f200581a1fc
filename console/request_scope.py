"""Opens a tenant scope around every request. It shows nothing until somebody is known: see `tenants.scope.settle`."""

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from tenants.scope import tenant_scope

Answer = HttpResponseBase | Awaitable[HttpResponseBase]


class RequestScope:
    """Works in both colours. A streamed body is read after it: whoever streams opens a scope for each read."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Answer]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Answer:
        return self._later(request) if self.is_async else self._now(request)

    def _now(self, request: HttpRequest) -> HttpResponseBase:
        with tenant_scope():
            return self.get_response(request)  # type: ignore[return-value]

    async def _later(self, request: HttpRequest) -> HttpResponseBase:
        with tenant_scope():
            return await self.get_response(request)  # type: ignore[misc, no-any-return]
