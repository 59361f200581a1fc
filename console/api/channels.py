"""Channels over HTTP: where a tenant is told of what happens, a test message, and what was sent."""

from typing import Annotated, Any

from drf_spectacular.utils import extend_schema
from pydantic import Field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import channels, records
from console.channels import ChannelSpec
from console.models import Channel

from .approvers import acting, body, plain
from .deliveries import DELIVERY
from .deliveries import record as delivery_record
from .schemas import TEXTS, answers, listed
from .schemas import record as shape

CHANNEL = shape(
    "name tenant kind url url_secret secret_name created_at", objects="template", flags="enabled", addresses=TEXTS, events=TEXTS
)
SENT = 100


class WantedChannel(ChannelSpec):
    """The whole channel as it will be."""

    reason: Annotated[str, Field(max_length=1000)] = ""


def record(channel: Channel) -> dict[str, Any]:
    about = {"name": channel.name, "tenant": channel.tenant.slug, "created_at": records.time(channel.created_at)}
    return about | channels.as_json(channel)


class Channels(APIView):
    @extend_schema(operation_id="list_channels", responses=answers({200: listed(CHANNEL)}))
    def get(self, request: Request) -> Response:
        actor = acting(request, "config:read")
        return Response({"items": [record(one) for one in channels.visible(actor)], "next_cursor": None})


class OneChannel(APIView):
    @extend_schema(operation_id="get_channel", responses=answers({200: CHANNEL}))
    def get(self, request: Request, name: str) -> Response:
        actor = acting(request, "config:read")
        return Response(record(channels.find(actor, name)))

    @extend_schema(operation_id="put_channel", request=plain(WantedChannel), responses=answers({200: CHANNEL, 201: CHANNEL}))
    def put(self, request: Request, name: str) -> Response:
        actor, wanted = acting(request, "config:write"), WantedChannel.model_validate(body(request))
        spec = ChannelSpec.model_validate(wanted.model_dump(exclude={"reason"}))
        made, new = channels.put(actor, actor.tenant, name, spec, wanted.reason)
        return Response(record(made), status=201 if new else 200)

    @extend_schema(operation_id="delete_channel", responses=answers({204: {}}))
    def delete(self, request: Request, name: str) -> Response:
        actor = acting(request, "config:write")
        channels.delete(actor, channels.find(actor, name))
        return Response(status=204)


class TryChannel(APIView):
    @extend_schema(operation_id="test_channel", request=None, responses=answers({202: DELIVERY}))
    def post(self, request: Request, name: str) -> Response:
        actor = acting(request, "config:write")
        return Response(delivery_record(channels.test(actor, channels.find(actor, name))), status=202)


class ChannelDeliveries(APIView):
    @extend_schema(operation_id="list_channel_deliveries", responses=answers({200: listed(DELIVERY)}))
    def get(self, request: Request, name: str) -> Response:
        actor = acting(request, "config:read")
        rows = channels.find(actor, name).deliveries.order_by("-id")[:SENT]
        return Response({"items": [delivery_record(row) for row in rows], "next_cursor": None})
