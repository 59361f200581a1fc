"""T47: whatever is made of the API's own document, no answer is a fault and each is one that the document states."""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from django.db import transaction
from schemathesis import GenerationMode

from tests.crash.figures import figure
from tests.runtime.waiting import make_world, person

from .callers import caller, refusal
from .fuzzing import Sending, drawn, hostile, judge, operations, sent, with_body
from .test_api_errors import SEEDS, furnished

LONG = bool(os.environ.get("CHAOS"))
PARTS = 8 if LONG else 1
DRAWN = 22 if LONG else 1  # of each operation by what its schema allows, and as many by what it does not; the small form takes one of both
LEAST = 10_000 if LONG else 300
ANSWERED: Counter[int] = Counter()  # hundreds of the status -> answers
MET: set[str] = set()  # operations that were sent something
DONE: set[str] = set()  # those among them that did it
WRONG: dict[tuple[str, int, str], str] = {}  # (operation, status, what is wrong) -> a request that did it


def route(path: str) -> str:
    """`/api/v1/runs/{run_id}` as `test_api_errors` writes it."""
    return re.sub(r"\{(\w+)\}", r"<str:\1>", path.removeprefix("/api/v1/"))


def requests_of(name: str, names: dict[str, str], turn: int) -> Iterator[Sending]:
    operation = operations()[name]
    path = {one.name: names.get(one.name, "x") for one in operation.path_parameters}
    if operation.body:
        for body in SEEDS.get(route(operation.path), []):
            yield with_body(operation, path, json.dumps(body).encode())
    wrong = bool(operation.body or operation.query)  # there is something to be wrong in
    if LONG or not wrong or turn % 2:
        yield from drawn(operation, GenerationMode.POSITIVE, DRAWN, names)
    if wrong and (LONG or not turn % 2):
        yield from drawn(operation, GenerationMode.NEGATIVE, DRAWN, names)
    corpus = list(hostile(operation, names))
    yield from corpus if LONG else corpus[turn % len(corpus) :][:2] if corpus else ()


@pytest.fixture(scope="module")
def told() -> Iterator[None]:
    began = time.monotonic()
    yield
    if len(MET) < len(operations()):
        return  # a part of it was asked for, or it failed
    assert ANSWERED.total() >= LEAST
    if LONG:
        of = {f"of_{hundred}00": ANSWERED[hundred] for hundred in (2, 4, 5)}
        title = "requests made from the API's own document, and a hostile corpus at every parameter and body"
        of |= {"operations": len(MET), "of_them_done": len(DONE), "schema_violations": len(WRONG)}
        figure("T47", title, n=ANSWERED.total(), seconds=time.monotonic() - began, **of)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("part", range(PARTS))
def test_every_answer_is_one_that_the_document_states(db: None, part: int) -> None:
    api, names = furnished(make_world())
    before = len(WRONG)
    for turn, name in enumerate(sorted(operations())[part::PARTS]):
        with transaction.atomic():  # each operation meets the same rows
            for sending in requests_of(name, names, turn):
                answer = sent(api.key, sending)
                ANSWERED[answer.status_code // 100] += 1
                MET.add(name)
                if answer.status_code < 400:
                    DONE.add(name)
                if fault := judge(sending, answer):
                    WRONG[name, answer.status_code, fault] = f"{sending.request.path_url[:300]} {str(sending.request.body)[:300]}"
            transaction.set_rollback(True)
    assert len(WRONG) == before, "\n".join(f"{what}: {by}" for what, by in WRONG.items())


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/metrics/series?since=9999-12-31T23:59:59.999999-23:59", (422, "validation")),
        ("/metrics/summary?since=24h&until=0001-01-01T00:00:00Z", (422, "validation")),
        ("/events/export?until=0001-01-01T00:00:00%2B23:59", (400, "bad_until")),
        ("/runs?since=9999-12-31T23:59:59.999999-23:59", (400, "bad_since")),
    ],
)
def test_a_moment_past_the_end_of_the_calendar_is_refused(db: None, address: str, expected: tuple[int, str]) -> None:
    assert refusal(caller(make_world().operator).get(address)) == expected


def test_an_audit_trail_without_a_line_still_says_what_it_is(db: None) -> None:
    answer = caller(person(make_world().tenant, "root", "admin")).get("/audit?format=jsonl&action=nothing")
    assert (answer.status_code, answer["Content-Type"], answer.content) == (200, "application/x-ndjson; charset=utf-8", b"")
