"""whitenoise in both colours: its own middleware would move every asynchronous view into a thread."""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware


class StaticFiles(WhiteNoiseMiddleware):
    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async and request.path_info.startswith(self.static_prefix or "/static/"):
            return self.later(request)
        if self.is_async:
            return self.get_response(request)  # type: ignore[no-any-return]
        return super().__call__(request)  # type: ignore[no-any-return]

    async def later(self, request: HttpRequest) -> HttpResponseBase:
        found = await sync_to_async(self.read)(request)
        return found or await self.get_response(request)

    def read(self, request: HttpRequest) -> HttpResponseBase | None:
        """The file as a whole: small ones only are served, and the loop never reads a disk."""
        path = request.path_info
        file = self.find_file(path) if self.autorefresh else self.files.get(path)
        if file is None:
            return None
        streamed = self.serve(file, request)
        answer = HttpResponse(b"".join(streamed.streaming_content) if streamed.streaming else streamed.content, status=streamed.status_code)
        for name, value in streamed.items():
            answer[name] = value
        streamed.close()
        return answer
