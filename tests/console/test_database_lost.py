"""A connection that the database ends in the middle of a request: who asked is told to try again, and nothing is called a fault."""

import time
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.db import ProgrammingError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from psycopg_pool import PoolTimeout
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.problems import answer
from console.postgres import Urls
from tenants.models import Tenant

from .callers import refusal

pytestmark = pytest.mark.urls(__name__)
OTHER: list[psycopg.Connection[Any]] = []  # what sees the views' connections end
ENDS = {
    "idle in a transaction": "set local idle_in_transaction_session_timeout = '1ms'",
    "a transaction too long": "set local transaction_timeout = '1ms'",
    "terminated": None,
}


class Cut(APIView):
    authentication_classes = permission_classes = ()

    @transaction.atomic
    def get(self, request: Request, how: str) -> Response:
        with connection.cursor() as cursor:
            (pid,) = cursor.execute("select pg_backend_pid()").fetchone()
            if order := ENDS[how]:
                cursor.execute(order)
            else:
                OTHER[0].execute("select pg_terminate_backend(%s)", [pid])
        while OTHER[0].execute("select 1 from pg_stat_activity where pid = %s", [pid]).fetchone():
            time.sleep(0.001)
        return Response({"tenants": Tenant.objects.count()})


def broken(request: HttpRequest) -> HttpResponse:
    """A fault of ours, which PostgreSQL files under the same class as the end of an idle transaction."""
    with transaction.atomic(), connection.cursor() as cursor:
        with suppress(ProgrammingError):
            cursor.execute("select nothing")
        try:
            cursor.execute("select 1")
        except Exception as error:
            return answer(error)
    return HttpResponse()


def exhausted(request: HttpRequest) -> HttpResponse:
    return answer(PoolTimeout("no connection within 10 s"))


urlpatterns = [path("cut/<how>", Cut.as_view()), path("broken", broken), path("exhausted", exhausted)]


@pytest.mark.parametrize("how", ENDS)
def test_a_connection_ended_in_the_middle_of_a_request_is_told_as_try_again(committed_db: None, urls: Urls, how: str) -> None:
    client = Client()
    with psycopg.connect(urls.engine, autocommit=True) as other:
        OTHER[:] = [other]
        told = client.get(f"/cut/{how}")
    assert refusal(told) == (503, "database_unavailable") and told["Retry-After"] == "2"
    assert refusal(client.get("/exhausted")) == (503, "database_unavailable")


def test_a_transaction_that_we_broke_ourselves_is_a_fault(committed_db: None) -> None:
    assert refusal(Client(raise_request_exception=False).get("/broken")) == (500, "internal")
