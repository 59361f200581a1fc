"""Undoing an applied write over HTTP."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import records
from runs import undo
from tenants.actors import Actor
from tenants.errors import NotFound

from .drafts import body
from .runs import find, record
from .schemas import RUN, UNDO, answers


class UndoCall(APIView):
    @extend_schema(
        operation_id="undo_call",
        description="A new run makes the one call that undoes this one, under the permissions and approvals of now.",
        request=UNDO,
        responses=answers({202: RUN}),
    )
    def post(self, request: Request, run_id: str, step: str, ord: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:write")
        run = find(actor, run_id)
        if not all(part.isascii() and part.isdigit() and len(part) < 6 for part in (step, ord)):
            raise NotFound("call")
        made = undo.undo(actor, run.id, int(step), int(ord), body(request).reason)
        answer = record(records.RUN_ROWS.get(id=made.id))
        return Response(answer, status=202, headers={"Location": f"/api/v1/runs/{made.run_id}"})
