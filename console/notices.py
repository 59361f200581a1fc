"""What a notice says, and how each kind of channel writes it. Pure: facts in, JSON out.

A notice names things and never quotes them: no arguments, no answers, no reasons; arguments by their digest. Text goes into JSON as
values, so none of it breaks a message, and what would call people or make links in a chat is spelt so that it does not.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

JSON = Any
APPROVAL_EVENTS = (
    "approval.requested", "approval.reminder", "approval.escalated", "approval.decided", "approval.expired", "approval.break_glass",
)  # fmt: skip
RUN_EVENTS = tuple(
    f"run.{state}"
    for state in (
        "succeeded", "failed", "cancelled", "waiting_approval", "waiting_budget", "needs_reconciliation", "paused", "quarantined",
    )
)  # fmt: skip
INCIDENT_EVENTS = ("incident.opened", "incident.acknowledged", "incident.resolved")
SWITCH_EVENTS = ("switch.engaged", "switch.lifted")
EVENTS = (*APPROVAL_EVENTS, *RUN_EVENTS, *INCIDENT_EVENTS, *SWITCH_EVENTS)
TEST = "channel.test"
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
CALLS_ALL = re.compile(r"@(?=channel|here|everyone|all\b|team\b)", re.IGNORECASE)
CONTROLS = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True, slots=True)
class Notice:
    """`facts`: (label, text), in the order in which they are shown. `data`: what a program is told. `link`: a page; it only shows."""

    event: str
    at: str
    title: str
    facts: tuple[tuple[str, str], ...]
    data: Mapping[str, JSON]
    link: str

    def values(self) -> dict[str, str]:
        """What a template may name: `{title}`, `{event}`, `{link}`, `{at}`, and the facts by their labels in lower case."""
        return {label.lower(): text for label, text in self.facts} | {
            "title": self.title, "event": self.event, "link": self.link, "at": self.at,
        }  # fmt: skip


NAMES = frozenset({
    "title", "event", "link", "at", "agent", "tool", "effect", "risk", "expires", "digest", "state", "by", "group", "outcome",
    "severity", "model", "release", "owner", "runbook", "value", "scope",
})  # fmt: skip


def webhook(notice: Notice) -> JSON:
    return {"type": notice.event, "timestamp": notice.at, "data": {**notice.data, "title": notice.title, "link": notice.link}}


def slack(notice: Notice) -> JSON:
    """Text that people chose is `plain_text`, which knows no mark-up; the fallback line is escaped."""
    fields = [{"type": "plain_text", "text": f"{label}: {calm(text)}"[:2000], "emoji": False} for label, text in notice.facts[:10]]
    title: JSON = {"type": "section", "text": {"type": "plain_text", "text": calm(notice.title)[:3000], "emoji": False}}
    button = {"type": "button", "text": {"type": "plain_text", "text": "Open"}, "url": notice.link}
    return {
        "text": slack_text(notice.title),
        "blocks": [{**title, **({"fields": fields} if fields else {})}, {"type": "actions", "elements": [button]}],
    }


def teams(notice: Notice) -> JSON:
    """An adaptive card. A text run knows no mark-up."""
    lines = [run_of(notice.title, weight="Bolder"), *(run_of(f"{label}: {text}") for label, text in notice.facts)]
    card = {
        "type": "AdaptiveCard", "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "version": "1.4", "body": lines,
        "actions": [{"type": "Action.OpenUrl", "title": "Open", "url": notice.link}],
    }  # fmt: skip
    return carded(card)


def carded(card: JSON) -> JSON:
    return {"type": "message", "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}]}


def run_of(text: str, **look: str) -> JSON:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": teams_text(text), **look}]}


def mail(notice: Notice) -> tuple[str, str]:
    """-> (subject, body), both plain text."""
    lines = [notice.title, "", *(f"{label}: {one_line(text)}" for label, text in notice.facts)]
    return one_line(notice.title)[:200], "\n".join([*lines, "", f"Open: {notice.link}", "Opening it decides nothing.", ""])


def slack_text(text: str) -> str:
    """As Slack asks for it: what is left of `<` and `&` can neither call anybody nor make a link."""
    return calm(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def teams_text(text: str) -> str:
    """Neither a mention nor a link of Markdown."""
    return calm(text).replace("<", "‹").replace(">", "›").replace("](", "] (")


def calm(text: str) -> str:
    """One line, and no `@channel` in it that a chat would take for one."""
    return CALLS_ALL.sub("＠", one_line(text))


def one_line(text: str) -> str:
    return CONTROLS.sub(" ", text)


WRITE: Mapping[str, Callable[[Notice], JSON]] = {"webhook": webhook, "slack": slack, "teams": teams}
ESCAPE: Mapping[str, Callable[[str], str]] = {"webhook": str, "slack": slack_text, "teams": teams_text}


def body(kind: str, notice: Notice, template: JSON = None) -> JSON:
    """What is posted: the kind's own form, or the channel's template with its placeholders filled in."""
    if template is None:
        return WRITE[kind](notice)
    escape = ESCAPE[kind]
    values = {name: escape(text) for name, text in notice.values().items()}
    return filled(template, values | {"link": notice.link})


def filled(template: JSON, values: Mapping[str, str]) -> JSON:
    """A copy. What a notice does not have is empty, as a test message has no tool."""
    if isinstance(template, str):
        return PLACEHOLDER.sub(lambda found: values.get(found[1], "") if found[1] in NAMES else found[0], template)
    if isinstance(template, list):
        return [filled(one, values) for one in template]
    if isinstance(template, dict):
        return {key: filled(value, values) for key, value in template.items()}
    return template


def unknown(template: JSON) -> list[str]:
    """Placeholders that nothing fills."""
    if isinstance(template, str):
        return [name for name in PLACEHOLDER.findall(template) if name not in NAMES]
    parts = template.values() if isinstance(template, dict) else template if isinstance(template, list) else ()
    return [name for part in parts for name in unknown(part)]
