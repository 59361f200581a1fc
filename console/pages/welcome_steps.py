"""The first steps of an installation: what each is, and whether it is done, read from the rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings
from django.urls import reverse

from approvals.models import ApprovalDecision
from console.api.registry import seen_by
from runs.models import Agent, ModelDefinition, Run
from tenants.actors import Actor
from tenants.models import Credential
from tools.models import Tool

EXAMPLE = Path(settings.BASE_DIR) / "examples" / "first" / "agent.yaml"
APPLY = ".venv/bin/python manage.py apply examples/first/agent.yaml"


@dataclass(frozen=True, slots=True)
class Example:
    """Something to copy: `words` say what it is and where it goes."""

    words: str
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """`state`: what the rows say now. `url` and `action`: where it is done, empty where nothing in the console does it."""

    title: str
    about: str
    done: bool
    state: str
    url: str = ""
    action: str = ""
    examples: tuple[Example, ...] = ()
    optional: bool = False


def steps(actor: Actor) -> list[Step]:
    return [model_step(actor), tool_step(actor), agent_step(actor), run_step(actor), approval_step(actor)]


def model_step(actor: Actor) -> Step:
    models = list(ModelDefinition.objects.order_by("name").values_list("name", "credential"))
    held = set(Credential.objects.filter(tenant=actor.tenant).values_list("name", flat=True))
    ready = [name for name, credential in models if not credential or credential in held]
    if ready:
        state = f"{ready[0]} can be asked." if len(ready) == 1 else f"{len(ready)} models can be asked."
    elif models:
        state = f"{models[0][0]} wants the credential {models[0][1]}, which {actor.tenant.slug} does not have."
    else:
        state = "No model is defined."
    return Step(
        "Name a model",
        "An endpoint that speaks OpenAI chat completions or Anthropic messages, with its price and, where it asks for a key, a "
        "credential that is sealed.",
        bool(ready),
        state,
        reverse("models"),
        "Models",
        tuple(model_examples()),
    )


def model_examples() -> Iterator[Example]:
    if not settings.DEMO:
        port = settings.SANDBOX_URL.rpartition(":")[2].strip("/")
        yield Example("No account at hand? This plays a simulated model:", f".venv/bin/python manage.py sandbox --port {port}")
    yield from section("The model's part of examples/first/agent.yaml:", "egress", "models")


def tool_step(actor: Actor) -> Step:
    names = list(Tool.objects.filter(seen_by(actor), enabled=True).order_by("name").values_list("name", flat=True)[:4])
    return Step(
        "Register a tool",
        "An HTTP endpoint or a Python function of yours. Its effect says who is asked: a read is allowed, a write waits for a person.",
        bool(names),
        f"Registered: {listed(names)}." if names else "No tool is registered.",
        reverse("imports"),
        "Import from OpenAPI or MCP",
        (
            Example("A stock room to try it with, in a terminal of its own:", "python3 examples/first/stockroom.py"),
            *section("The tools' part of examples/first/agent.yaml:", "tools"),
        ),
    )


def agent_step(actor: Actor) -> Step:
    agents = list(Agent.objects.filter(seen_by(actor)).order_by("name").values_list("name", "live_id"))
    live = [name for name, release in agents if release]
    if live:
        state = f"Live: {listed(live[:4])}."
    elif agents:
        state = f"{agents[0][0]} has no live release: promote one."
    else:
        state = "No agent is defined."
    body = f"curl -X POST {settings.PUBLIC_URL}/api/v1/config/apply -H 'Content-Type: application/yaml' \\\n"
    return Step(
        "Take an agent live",
        "A release: instructions, tools, models and limits that never change. Applying a document makes one and takes it live.",
        bool(live),
        state,
        reverse("releases") if agents else reverse("agents"),
        "Releases" if agents else "Agents",
        (
            *section("The agent's part of examples/first/agent.yaml:", "agents"),
            Example("Apply the whole file (again changes nothing; --dry-run only tells):", APPLY),
            Example(
                "Or over the API, with a platform admin's key and addresses written out (over the API nothing is put in for ${...}):",
                body + '  -H "Authorization: Bearer $SIGNALBOX_API_KEY" --data-binary @agent.yaml',
            ),
        ),
    )


def run_step(actor: Actor) -> Step:
    done = Run.objects.filter(tenant=actor.tenant).exists()
    agent = Agent.objects.filter(seen_by(actor), live__isnull=False).order_by("name").values_list("name", flat=True).first()
    question = "What is left of the tea? Order 20." if agent in (None, "stock-keeper") else "Hello"
    return Step(
        "Start a run",
        "One question to one agent. Every step, call, decision and cost is written down and can be followed while it happens.",
        done,
        f"{actor.tenant.slug} has runs." if done else f"No run of {actor.tenant.slug} yet.",
        reverse("runs") if done else reverse("new-run"),
        "Runs" if done else "New run",
        (
            Example(
                "From a program:",
                f"curl -X POST {settings.PUBLIC_URL}/api/v1/runs \\\n"
                '  -H "Authorization: Bearer $SIGNALBOX_API_KEY" -H "Content-Type: application/json" -H "Prefer: wait=20" \\\n'
                f'  -d \'{{"agent": "{agent or "stock-keeper"}", "input": "{question}"}}\'',
            ),
        ),
    )


def approval_step(actor: Actor) -> Step:
    done = ApprovalDecision.objects.filter(approval__tenant=actor.tenant).exists()
    return Step(
        "Decide an approval",
        "A write that waits. Nobody decides about their own run, so a second person does: invite one under Members.",
        done,
        "A person has decided." if done else "Nobody has decided about a call yet.",
        reverse("approvals"),
        "Approvals",
        optional=True,
    )


def listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")


def section(words: str, *keys: str) -> tuple[Example, ...]:
    """The parts of the example under these top-level keys; nothing where the file is not."""
    parts = example()
    text = "\n".join(parts[key] for key in keys if key in parts)
    return (Example(words, text),) if text else ()


@cache
def example() -> dict[str, str]:
    """Top-level key -> its lines, key included."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in EXAMPLE.read_text().splitlines() if EXAMPLE.exists() else ():
        if line and line[0] not in " #":
            lines = parts.setdefault(line.partition(":")[0], [])
        lines.append(line)
    return {key: "\n".join(found).rstrip() for key, found in parts.items()}
