"""Exports over HTTP: as many lines as there are, a page of rows in memory at a time, and no connection between pages."""

from collections.abc import AsyncIterator, Iterator

from django.http import StreamingHttpResponse
from rest_framework.renderers import JSONRenderer

from console import exports
from runs.models import Event

from .threads import briefly

CONTENT_TYPE = "application/x-ndjson"


class NdjsonRenderer(JSONRenderer):
    """Makes `?format=ndjson` and `Accept: application/x-ndjson` known. The lines are streamed, never rendered."""

    media_type = CONTENT_TYPE
    format = "ndjson"


def response(pages: Iterator[list[Event]], name: str) -> StreamingHttpResponse:
    answer = StreamingHttpResponse(stream(pages), content_type=CONTENT_TYPE)
    answer["Content-Disposition"] = f'attachment; filename="{name}.ndjson"'
    answer["Cache-Control"] = "no-store"
    answer["X-Accel-Buffering"] = "no"
    return answer


async def stream(pages: Iterator[list[Event]]) -> AsyncIterator[bytes]:
    while (page := await briefly(next_of, pages)) is not None:
        if page:
            yield page


def next_of(pages: Iterator[list[Event]]) -> bytes | None:
    """The next page as lines, empty for an empty one; None: there are no more. (StopIteration cannot pass a thread.)"""
    rows = next(pages, None)
    return None if rows is None else exports.lines(rows)
