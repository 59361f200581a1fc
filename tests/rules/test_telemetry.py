"""The spans of a run out of its events: which there are, when they were, what they say, and what they never say."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from console.telemetry import names, otlp
from console.telemetry.content import Content
from console.telemetry.spans import MARKS, About, Span, of_run
from console.telemetry.target import target
from runs.tracing import accepted, trace_of

RUN = "agt_01J9M7R2K3N4P5Q6R7S8T9V0W1"
OTHER_RUN = "agt_01J9M7R2K3N4P5Q6R7S8T9V0W2"
BEGAN = datetime(2026, 11, 22, 11, 0, tzinfo=UTC)
GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
DAY = 86_400.0
PROMPT, ARGUMENT, RESULT, ANSWER, SECRET = "the-question", "the-argument", "the-result", "the-answer", "hunter2-hunter2"


class Story:
    """Events of one run in the API's form, each at a second since its beginning."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def at(self, second: float, kind: str, step: int | None = None, ord: int | None = None, **fields: Any) -> "Story":
        at = (BEGAN + timedelta(seconds=second)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        absent = ("model", "tool", "latency_ms", "input_tokens", "output_tokens", "result", "error_type", "retryable", "data", "cost_usd")
        place = None if step is None or ord is None else f"{RUN}.{step}.{ord}"
        told = {"seq": len(self.events) + 1, "run_id": RUN, "step_id": step, "call_id": place, "event": kind, "at": at, "v": 1}
        self.events.append(told | dict.fromkeys(absent) | fields)
        return self

    def began(self) -> "Story":
        return self.at(0, "run_accepted", data={"agent": "triage", "release": "rel_1"}).at(0.1, "run_started")

    def model(self, second: float, step: int, attempt: int = 1, name: str = "primary", error: str = "", ms: int = 900) -> "Story":
        data = {"attempt": attempt}
        self.at(second, "model_call_started", step, 0, model=name, data=data | {"role": "planner", "reserve_micro": 9})
        if error:
            told = {"result": "error", "error_type": error, "retryable": True, "cost_usd": "0", "data": data | {"status": 503}}
            return self.at(second + 1, "model_call_failed", step, 0, model=name, latency_ms=ms, **told)
        spent = {"input_tokens": 100, "output_tokens": 10, "cost_usd": "0.002"}
        finished = data | {"finish": "stop", "result_sha256": "0" * 64}
        return self.at(second + 1, "model_call_completed", step, 0, model=name, latency_ms=ms, result="ok", data=finished, **spent)

    def tool(self, second: float, step: int, ord: int, name: str = "create_ticket", attempt: int = 1, error: str = "") -> "Story":
        data = {"attempt": attempt}
        self.at(second, "tool_call_started", step, ord, tool=name, data=data | {"args_sha256": "0" * 64})
        kind, result = ("tool_call_failed", "error") if error else ("tool_call_completed", "ok")
        answered = data | {"status": 503 if error else 200}
        return self.at(second + 1, kind, step, ord, tool=name, latency_ms=400, result=result, error_type=error or None, data=answered)

    def ended(self, second: float, state: str = "succeeded", outcome: str = "completed", step: int = 3) -> "Story":
        return self.at(second, "run_completed", step, data={"state": state, "outcome": outcome, "stop": None})


def spans(story: Story, *calls: dict[str, Any], **about: Any) -> list[Span]:
    return of_run(About(RUN, "acme", providers={"primary": "openai", "spare": "anthropic"}, **about), story.events, calls)


def drawn(made: list[Span]) -> list[str]:
    """`name start..end !failed [events]`, seconds since the beginning, children indented."""
    lines = []
    for one in made:
        start, end = ((at // 1_000_000 - round(BEGAN.timestamp() * 1000)) / 1000 for at in (one.start, one.end))
        events = " ".join(mark.name for mark in one.marks)
        indent = "  " if one.parent_id == made[0].id else ""
        lines.append(f"{indent}{one.name} {start:.9g}..{end:.9g}{' !' if one.failed else ''}{f' [{events}]' if events else ''}")
    return lines


def eventful() -> Story:
    """A retry, a fallback, a denied call, and an approval that took three days."""
    story = Story().began().model(1, 1, error="transient_upstream").at(2, "retry_scheduled", 1, 0, model="primary", data={"attempt": 2})
    story.model(3, 1, 2, error="transient_upstream").at(4, "fallback_activated", 1, 0, model="primary", data={"to": "spare"})
    story.model(4, 1, 3, "spare").at(5, "plan_decided", 1, data={"calls": ["create_ticket", PROMPT], "offered": ["create_ticket"]})
    ruled = {"decision": "deny", "by": "no-mail", "rev": 7}
    story.at(5, "policy_decided", 1, 1, tool="send_email", result="denied", data=ruled)
    story.at(5, "policy_violated", 1, 1, tool="send_email", result="denied", error_type="policy", data=ruled)
    story.at(5, "approval_requested", 1, 2, tool="create_ticket", data={"approval_id": "apr_1", "digest": "0" * 64, "needed": 1})
    story.at(5, "run_parked", data={"state": "waiting_approval"})
    decided = {"approval_id": "apr_1", "by": "maria", "verdict": "approve", "state": "approved"}
    story.at(3 * DAY, "approval_decided", 1, 2, tool="create_ticket", result="ok", data=decided).at(3 * DAY, "run_resumed")
    story.tool(3 * DAY + 1, 1, 2, error="timeout").at(3 * DAY + 2, "retry_scheduled", 1, 2, tool="create_ticket", data={"attempt": 2})
    return story.tool(3 * DAY + 3, 1, 2, attempt=2).model(3 * DAY + 5, 2, name="spare").ended(3 * DAY + 6, step=2)


@pytest.mark.mission("P8.3")
def test_a_run_is_a_tree_of_its_sends_with_everything_else_as_events() -> None:
    root = "invoke_agent triage 0..259206 [run_started policy_decided policy_violated approval_requested run_parked approval_decided"
    assert drawn(spans(eventful())) == [
        f"{root} run_resumed]",
        "  chat primary 1..1.9 ! [retry_scheduled]",
        "  chat primary 3..3.9 ! [fallback_activated]",
        "  chat spare 4..4.9",
        "  execute_tool create_ticket 259201..259201.4 ! [retry_scheduled]",
        "  execute_tool create_ticket 259203..259203.4",
        "  chat spare 259205..259205.9",
    ]


def test_spans_say_in_the_conventions_names_what_was_spent_and_what_came_of_it() -> None:
    root, first, _, third, fourth, *_ = spans(eventful())
    assert root.attributes | {"gen_ai.usage.input_tokens": 200, "signalbox.cost_usd": 0.004} == root.attributes
    who = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "triage", "signalbox.tenant": "acme", "signalbox.release": "rel_1"}
    assert root.attributes | who == root.attributes
    assert (root.attributes["signalbox.outcome"], root.attributes["signalbox.state"], root.failed) == ("completed", "succeeded", False)
    assert (first.attributes["error.type"], first.attributes["http.response.status_code"]) == ("transient_upstream", 503)
    assert third.attributes["gen_ai.provider.name"] == "anthropic" and third.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert (third.attributes["gen_ai.request.model"], third.attributes["gen_ai.usage.output_tokens"]) == ("spare", 10)
    assert (fourth.attributes["gen_ai.tool.name"], fourth.attributes["gen_ai.tool.call.id"]) == ("create_ticket", f"{RUN}.1.2")
    ruling = root.marks[1]
    assert (ruling.attributes["signalbox.decision"], ruling.attributes["signalbox.by"]) == ("deny", "no-mail")
    assert "signalbox.by" not in root.marks[5].attributes, "who decided is a person's name: it stays here"


def test_a_failed_run_is_a_failed_root_and_a_cancelled_one_is_not() -> None:
    failed = spans(Story().began().ended(5, "failed", "step_limit"))[0]
    assert (failed.failed, failed.attributes["error.type"]) == (True, "step_limit")
    assert not spans(Story().began().ended(5, "cancelled", "cancelled"))[0].failed


def test_a_send_whose_answer_nobody_took_lasts_until_its_engine_was_seen_to_be_gone() -> None:
    story = Story().began().at(1, "tool_call_started", 1, 1, tool="search_docs", data={"attempt": 1}).at(40, "run_taken_over")
    story.tool(50, 1, 1, "search_docs", attempt=2).at(60, "model_call_started", 2, 0, model="primary", data={"attempt": 1})
    _, lost, again, unanswered = spans(story.ended(70, "cancelled", "cancelled"))
    assert drawn([lost, again, unanswered]) == [
        "execute_tool search_docs 1..40 !", "execute_tool search_docs 50..50.4", "chat primary 60..70 !",
    ]  # fmt: skip
    assert lost.attributes["signalbox.lost"] is True and lost.attributes["error.type"] == "unanswered"


def test_an_unknown_write_is_an_error_and_what_settled_it_is_told_by_the_run() -> None:
    story = Story().began().at(1, "tool_call_started", 1, 1, tool="send_email", data={"attempt": 1})
    story.at(2, "tool_call_failed", 1, 1, tool="send_email", latency_ms=900, result="unknown", error_type="timeout", data={"attempt": 1})
    story.at(2, "tool_call_unknown", 1, 1, tool="send_email", result="unknown", error_type="timeout", data={"attempt": 1})
    settled = {"result": "applied", "how": "person", "by": "maria", "unknown_id": "unk_1", "resend": False}
    story.at(DAY, "tool_call_reconciled", 1, 1, tool="send_email", result="ok", data=settled)
    root, sent = spans(story.ended(DAY + 1))
    assert drawn([sent]) == ["execute_tool send_email 1..1.9 ! [tool_call_unknown]"]
    assert (root.marks[-1].name, root.marks[-1].attributes["signalbox.result"]) == ("tool_call_reconciled", "applied")


def test_a_call_that_was_never_sent_has_no_span() -> None:
    story = Story().began().at(1, "tool_call_failed", 1, 1, tool="send_email", result="error", error_type="policy", data={"sent": False})
    assert drawn(spans(story.ended(2))) == ["invoke_agent triage 0..2 [run_started tool_call_failed]"]


@pytest.mark.parametrize("back", [-0.5, -30, -DAY])
def test_a_clock_that_is_set_back_makes_no_span_end_before_it_begins_or_leave_its_root(back: float) -> None:
    story = Story().began().at(1, "model_call_started", 1, 0, model="primary", data={"attempt": 1})
    story.at(1 + back, "model_call_completed", 1, 0, model="primary", latency_ms=700, result="ok", data={"attempt": 1})
    story.at(1 + back, "tool_call_started", 1, 1, tool="search_docs", data={"attempt": 1}).ended(1.1 + back)
    root, *children = spans(story)
    assert all(root.start <= one.start <= one.end <= root.end for one in children)
    assert children[0].end - children[0].start == 700_000_000


def test_the_same_run_has_the_same_ids_and_other_runs_others() -> None:
    first, again = spans(eventful()), spans(eventful())
    assert first == again
    assert len({one.id for one in first}) == len(first) and all(len(one.id) == 16 for one in first)
    assert {one.trace_id for one in first} == {trace_of(RUN, None).id} and first[0].parent_id == ""
    assert trace_of(RUN, None).id != trace_of(OTHER_RUN, None).id and trace_of(RUN, None).root != trace_of(OTHER_RUN, None).root


def test_in_the_callers_trace_the_run_hangs_under_the_callers_span() -> None:
    made = spans(eventful(), traceparent=GIVEN)
    assert {one.trace_id for one in made} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert made[0].parent_id == "00f067aa0ba902b7" and {one.parent_id for one in made[1:]} == {made[0].id}


def test_a_request_carries_the_id_of_its_span() -> None:
    made = spans(eventful(), traceparent=GIVEN)
    trace = trace_of(RUN, GIVEN)
    assert [trace.header(1, 0, 3).split("-")[2], trace.header(1, 2, 2).split("-")[2]] == [made[3].id, made[5].id]
    assert trace.header(1, 0, 1) == f"00-{trace.id}-{made[1].id}-01" and trace.root_header.split("-")[2] == made[0].id


@pytest.mark.parametrize(
    "given",
    [None, "", "nonsense", GIVEN.upper(), GIVEN[:-1], GIVEN + "-more", "ff" + GIVEN[2:],
     GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
     GIVEN.replace("00f067aa0ba902b7", "0" * 16),
     "00-aa-bb-01", GIVEN + "\n", "\N{ARABIC-INDIC DIGIT ZERO}0" + GIVEN[2:]],
)  # fmt: skip
def test_what_is_no_traceparent_is_passed_over(given: str | None) -> None:
    assert accepted(given) == "" and trace_of(RUN, given) == trace_of(RUN, None)


def test_the_callers_flags_go_on_and_its_version_does_not() -> None:
    assert accepted(GIVEN) == GIVEN
    assert trace_of(RUN, "cc" + GIVEN[2:-2] + "00").root_header == f"00-{GIVEN[3:35]}-{trace_of(RUN, GIVEN).root}-00"


def row(ord: int, attempt: int = 1, **more: Any) -> dict[str, Any]:
    return {"call_id": f"{RUN}.1.{ord}", "kind": "tool" if ord else "model", "attempt": attempt, "args": None, "result": None} | more


def told() -> tuple[Story, list[dict[str, Any]]]:
    """A run with a prompt, arguments, results and an answer in its rows."""
    story = Story().began().model(1, 1).tool(3, 1, 1).ended(5, step=1)
    reply = {
        "text": ANSWER,
        "calls": [{"id": "c1", "name": "create_ticket", "arguments": json.dumps({"note": ARGUMENT})}],
        "finish": "stop",
        "model": "m-1",
    }
    return story, [row(0, result=reply), row(1, args={"note": ARGUMENT}, result={"ok": True, "text": RESULT, "key": SECRET})]


def masked(value: Any) -> Any:
    return json.loads(json.dumps(value).replace(SECRET, "[credential desk]"))


def written(made: list[Span]) -> list[bytes]:
    document = otlp.document(made, "signalbox")
    return [otlp.as_json(document), otlp.as_protobuf(document)]


def test_no_prompt_argument_result_or_answer_leaves_unless_it_was_switched_on() -> None:
    story, calls = told()
    for raw in written(spans(story, *calls)):
        assert not [word for word in (PROMPT, ARGUMENT, RESULT, ANSWER, SECRET) if word.encode() in raw]
        assert b"create_ticket" in raw and b"m-1" in raw


def test_content_that_was_switched_on_leaves_masked() -> None:
    story, calls = told()
    made = spans(story, *calls, content=Content(PROMPT, "session-1", masked))
    root, chat, tool = (one.attributes for one in made)
    assert json.loads(str(root[names.INPUT_MESSAGES])) == [{"role": "user", "parts": [{"type": "text", "content": PROMPT}]}]
    assert ANSWER in str(root[names.OUTPUT_MESSAGES]) and root[names.CONVERSATION] == "session-1"
    assert json.loads(str(chat[names.OUTPUT_MESSAGES]))[0]["parts"][1]["name"] == "create_ticket"
    assert json.loads(str(tool[names.TOOL_ARGUMENTS])) == {"note": ARGUMENT}
    assert RESULT in str(tool[names.TOOL_RESULT]) and "[credential desk]" in str(tool[names.TOOL_RESULT])
    assert all(SECRET.encode() not in raw for raw in written(made))


def test_a_row_speaks_for_the_last_send_of_its_call_alone() -> None:
    story = Story().began().tool(1, 1, 1, error="timeout").tool(3, 1, 1, attempt=2).ended(5)
    _, first, second = spans(story, row(1, 2, args={"note": ARGUMENT}), content=Content("", "", masked))
    assert names.TOOL_ARGUMENTS not in first.attributes and ARGUMENT in str(second.attributes[names.TOOL_ARGUMENTS])


def test_a_name_that_a_model_made_up_is_not_told() -> None:
    hostile = "<script>" + "drop table " * 400
    story = Story().began().at(1, "policy_violated", 1, 1, tool=hostile, result="denied", error_type="policy", data={"by": hostile})
    story.at(2, "run_parked", data={"state": "paused", "reason": hostile, "surprise": PROMPT, "from": [PROMPT]})
    made = spans(story.tool(3, 1, 2, name=hostile).ended(5))
    assert made[0].marks[1].attributes["gen_ai.tool.name"] == "_OTHER" and made[1].name == "execute_tool _OTHER"
    assert all(b"drop table" not in raw and PROMPT.encode() not in raw for raw in written(made))


def test_events_beyond_what_a_span_may_have_are_counted() -> None:
    story = Story().began()
    for second in range(MARKS + 10):
        story.at(second, "run_claimed")
    root = spans(story.ended(999))[0]
    assert (len(root.marks), root.dropped) == (MARKS, 11)
    assert otlp.span(root)["droppedEventsCount"] == 11


def test_the_binary_form_is_what_protobuf_makes_of_it() -> None:
    mark = {"timeUnixNano": "1", "name": "e", "attributes": []}
    number = {"key": "n", "value": {"intValue": "-1"}}
    span = {
        "traceId": "0a" * 16,
        "spanId": "0b" * 8,
        "name": "é",
        "kind": 3,
        "attributes": [number],
        "events": [mark],
        "status": {"code": 2},
    }
    ids = b"\x0a\x10" + b"\x0a" * 16 + b"\x12\x08" + b"\x0b" * 8
    value = b"\x0a\x01n\x12\x0b\x18" + b"\xff" * 9 + b"\x01"
    event = b"\x09" + b"\x01" + b"\x00" * 7 + b"\x12\x01e"
    assert (
        otlp.packed("Span", span)
        == ids + b"\x2a\x02\xc3\xa9" + b"\x30\x03" + b"\x4a\x10" + value + b"\x5a\x0c" + event + b"\x7a\x02\x18\x02"
    )
    assert otlp.packed("AnyValue", {"doubleValue": 0.5}) == b"\x21" + b"\x00" * 6 + b"\xe0\x3f"
    assert otlp.packed("AnyValue", {"boolValue": False}) == b"\x10\x00", "a value that is false is there all the same"
    assert otlp.varint(300) == b"\xac\x02"


# where it goes --------------------------------------------------------------------------------------------------------


def test_the_environment_says_where_it_goes() -> None:
    to = target("http://collector:4318/", "x-key=a%20b, Authorization=Basic%20cXdl", "http/json")
    assert to and (to.url, to.host_port, to.content_type) == ("http://collector:4318/v1/traces", "collector:4318", "application/json")
    assert to.headers == (("x-key", "a b"), ("Authorization", "Basic cXdl")) and "cXdl" not in repr(to)
    plain = target("https://otlp.example.com/base")
    assert plain and (plain.host_port, plain.url, plain.protocol) == (
        "otlp.example.com:443", "https://otlp.example.com/base/v1/traces", "http/protobuf",
    )  # fmt: skip
    assert (to6 := target("http://[::1]:4318")) and to6.host_port == "[::1]:4318"
    assert target("") is None


@pytest.mark.parametrize(
    ("endpoint", "headers", "protocol", "named"),
    [
        ("http://c:4318", "", "grpc", "PROTOCOL"), ("c:4318", "", "", "ENDPOINT"), ("ftp://c", "", "", "ENDPOINT"),
        ("http://c:99999", "", "", "ENDPOINT"), ("http://me:pw@c", "", "", "ENDPOINT"), ("http://c", "s3cret", "", "HEADERS"),
        ("http://c", "a b=s3cret", "", "HEADERS"), ("http://c", "a=s3cret%0d%0ab:c", "", "HEADERS"),
        ("http://c", "Host=s3cret", "", "HEADERS"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_named_and_not_quoted(endpoint: str, headers: str, protocol: str, named: str) -> None:
    with pytest.raises(ValueError, match=f"OTEL_EXPORTER_OTLP_{named}") as wrong:
        target(endpoint, headers, protocol)
    assert "s3cret" not in str(wrong.value) and "pw@" not in str(wrong.value)
