"""Suites, cases, evaluations and scores -> the JSON that the API shows, and the lines that leave as an export."""

from collections.abc import Iterator
from typing import Any

from django.http import StreamingHttpResponse

from runs.evals import suites
from runs.models import Case, Evaluation, Score, Suite
from tenants.actors import Actor
from tenants.ids import encode
from tenants.scope import tenant_scope

from . import records
from .live.case_lines import stream

JSON = dict[str, Any]
LINES = "application/x-ndjson"
BATCH = 200


def suite_record(actor: Actor, suite: Suite) -> JSON:
    """Which other tenants see it is the platform's to know."""
    seen = suite.tenants if actor.platform_admin else [slug for slug in suite.tenants if slug == actor.tenant.slug]
    return {
        "name": suite.name, "description": suite.description, "tenants": seen, "revision": suite.revision, "sha256": suites.digest(suite),
        "cases": suites.current(suite).count(), "created_at": records.time(suite.created_at), "updated_at": records.time(suite.updated_at),
    }  # fmt: skip


def case_record(case: Case) -> JSON:
    return {
        "case_id": str(case), "key": case.key, "version": case.version, "sha256": case.sha256, "case": case.spec,
        "tenant": case.tenant.slug if case.tenant else None, "run_id": encode("agt", case.run_id) if case.run_id else None,
        "added_by": case.added_by.username if case.added_by else None, "added_at": records.time(case.added_at),
    }  # fmt: skip


def evaluation_record(made: Evaluation) -> JSON:
    return {
        "evaluation_id": str(made), "suite": made.suite.name, "suite_sha256": made.suite_sha256, "revision": made.revision,
        "release": made.release.release_id, "tenant": made.tenant.slug, "repetitions": made.repetitions, "state": made.state,
        "max_cost_usd": records.usd(made.ceiling_micro), "done": made.done, "total": made.total, "result": made.result,
        "started_by": made.started_by.username, "at": records.time(made.at), "ended_at": records.time(made.ended_at),
    }  # fmt: skip


def score_record(score: Score) -> JSON:
    return {
        "score_id": str(score), "run_id": encode("agt", score.run_id), "tenant": score.tenant.slug,
        "evaluation_id": encode("evl", score.evaluation_id) if score.evaluation_id else None,
        "case": score.case.key if score.case else None, "case_version": score.case.version if score.case else None,
        "repetition": score.repetition, "checks_version": score.checks_version, "measures": score.measures, "failing": score.failing,
        "at": records.time(score.at),
    }  # fmt: skip


def export(actor: Actor, suite: Suite) -> StreamingHttpResponse:
    answer = StreamingHttpResponse(stream(lines(actor, suite)), content_type=LINES)
    answer["Content-Disposition"] = f'attachment; filename="{suite.name}.jsonl"'
    return answer


def lines(actor: Actor, suite: Suite) -> Iterator[str]:
    """Of one revision, however long it takes to read them: each part in a scope of its own, because the request's is over."""
    after: str | None = ""
    while after is not None:
        with tenant_scope(actor.tenants):
            part = list(suites.export_jsonl(suite, suite.revision, after, BATCH))
        yield "".join(line for _, line in part)
        after = part[-1][0] if len(part) == BATCH else None
