"""How the simulated model decides when no script tells it: fixed rules over the conversation and the tools offered.

A rule returns one turn: {"calls": [{name, arguments}]} with exactly one call, or {"text": ...}. Each tool is called at
most once (a search that found nothing: twice), so every story ends, whatever comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from console.sandbox import own_tools
from console.sandbox.conversation import Conversation, Outcome
from console.sandbox.critic import critique
from console.sandbox.script import strip_directive

Turn = dict[str, Any]
DEFAULT_ACCOUNT = "acct_1001"

_POLICY = re.compile(
    r"policy|policies|how long|how do|how much|how many|can i\b|may i\b|do you|what is|what's|what are|what happens|when"
    r" (do|does|will|can)|explain|tell me about",
    re.I,
)
_COMPLAINT = re.compile(r"urgent|charged (me |us )?(twice|double|again)|double.charged?|complain|overcharged", re.I)
_REFUND = re.compile(r"refund|money back|charged (me |us )?(twice|double)|duplicate charge|double.charged?", re.I)
_DELETE = re.compile(r"\b(delete|deletion|erase|close)\b.*\baccounts?\b|\b(delete|erase|close)\b.*\bacct_", re.I | re.S)
_MAIL = re.compile(r"\be-?mail\b|\bsend\b.*\b(message|note|mail)\b|\bwrite to\b", re.I | re.S)


def decide(conversation: Conversation) -> Turn:
    """The next turn of the conversation."""
    if verdict := critique(conversation.text):
        return verdict
    if own_tools.concerns(conversation):
        return own_tools.use(conversation)
    return _choose(conversation)(conversation)


def _choose(c: Conversation) -> Callable[[Conversation], Turn]:
    named, rule = c.account_id() is not None, "policy" in c.text.lower()
    asks = bool(_POLICY.search(c.text)) and (rule or not named)
    refund = bool(_REFUND.search(c.text)) and not asks
    complains = bool(_COMPLAINT.search(c.text)) and not rule
    rules: list[tuple[bool, Callable[[Conversation], Turn]]] = [
        (bool(_DELETE.search(c.text)) and not asks, _delete),
        (refund and _had(c, "issue_refund", "list_charges"), _refund),
        (complains or (refund and _had(c, "create_ticket")), _complaint),
        (bool(_MAIL.search(c.text)) and named, _mail),
        (asks or (refund and not named), _policy),
        (named, _account),
    ]
    return next((story for fits, story in rules if fits), _small_talk)


def _had(c: Conversation, *tools: str) -> bool:
    return any(tool in c.offered or c.of(tool) for tool in tools)


def _due(c: Conversation, tool: str) -> bool:
    return tool in c.offered and c.of(tool) is None


def _call(name: str, **arguments: Any) -> Turn:
    return {"calls": [{"name": name, "arguments": arguments}]}


def _policy(c: Conversation) -> Turn:
    searches = [outcome for outcome in c.outcomes if outcome.tool == "search_docs"]
    nothing = [outcome for outcome in searches if outcome.ok and not outcome.data.get("passages")]
    if "search_docs" in c.offered and not searches:
        return _call("search_docs", query=_plain(c.text, 200), limit=3)
    if "search_docs" in c.offered and len(searches) == len(nothing) == 1:
        return _call("search_docs", query="policy overview", limit=3)
    return {"text": _from_passages(c) or _no_passages(searches)}


def _no_passages(searches: list[Outcome]) -> str:
    if not searches:
        return "I could not look this up: the handbook is not available to me now."
    if not searches[-1].ok:
        return f"I could not look this up: {_sentence(searches[-1].message)}"
    return "The handbook has nothing about this."


def _from_passages(c: Conversation) -> str:
    found = c.of("search_docs")
    passages = found.data.get("passages") if found and found.ok else None
    quotes = [p for p in passages if isinstance(p, dict)][:2] if isinstance(passages, list) else []
    return " ".join(f"{p.get('text', '')} ({p.get('title', 'handbook')}, {p.get('section', '')})" for p in quotes)


def _complaint(c: Conversation) -> Turn:
    account_id = c.account_id() or DEFAULT_ACCOUNT
    if _due(c, "fetch_account"):
        return _call("fetch_account", account_id=account_id)
    if _due(c, "search_docs"):
        return _call("search_docs", query="disputed or duplicate charges", limit=3)
    if _due(c, "create_ticket"):
        name = _field(c, "fetch_account", "name")
        summary = f"{name} ({account_id}) writes: " if name else f"{account_id} writes: "
        return _call("create_ticket", account_id=account_id, priority="urgent", summary=_plain(summary + c.text, 240))
    told = _told(c, "create_ticket", "The ticket was not created")
    if not told:
        ticket_id = _field(c, "create_ticket", "ticket_id")
        told = f"I opened the urgent ticket {ticket_id}." if ticket_id else "The ticket had been opened already."
        told += " The billing team answers urgent tickets within four working hours."
    return {"text": f"I am sorry about this charge on {account_id}. {told}"}


def _refund(c: Conversation) -> Turn:
    account_id = c.account_id() or DEFAULT_ACCOUNT
    for read in ("fetch_account", "list_charges"):
        if _due(c, read):
            return _call(read, account_id=account_id)
        if failed := _failed(c, read):
            return {"text": f"I could not check {account_id}, so nothing was refunded: {failed}"}
    if c.of("list_charges") is None:
        return {"text": f"I cannot see the charges of {account_id} now, so nothing was refunded."}
    charge = _duplicate(c)
    if charge is None and c.of("issue_refund") is None:
        return {"text": f"I found no duplicate charge on {account_id}, so nothing was refunded."}
    if charge and _due(c, "issue_refund"):
        wanted = {key: charge.get(key) for key in ("charge_id", "amount", "currency")}
        return _call("issue_refund", account_id=account_id, **wanted, reason="duplicate")
    told = _told(c, "issue_refund", "The refund was not issued")
    if not told:
        refund_id = _field(c, "issue_refund", "refund_id")
        told = f"The duplicate charge on {account_id} is refunded" + (f" as {refund_id}" if refund_id else " already")
        told += ". The bank shows it after three to five working days."
    return {"text": told}


def _duplicate(c: Conversation) -> dict[str, Any] | None:
    """The later of two paid charges for the same invoice and amount."""
    listed = c.of("list_charges")
    charges = listed.data.get("charges") if listed else None
    seen = set()
    for charge in charges if isinstance(charges, list) else ():
        mark = (charge.get("invoice"), charge.get("amount"))
        if charge.get("status") == "paid" and mark in seen:
            return dict(charge)
        seen.add(mark)
    return None


def _delete(c: Conversation) -> Turn:
    account_id = c.account_id()
    if account_id is None:
        return {"text": "Which account should be deleted? Please write its id, such as acct_1001."}
    if _due(c, "fetch_account"):
        return _call("fetch_account", account_id=account_id)
    if failed := _failed(c, "fetch_account"):
        return {"text": f"The account was not deleted: {failed}"}
    if _due(c, "delete_account"):
        return _call("delete_account", account_id=account_id)
    told = _told(c, "delete_account", "The account was not deleted")
    return {"text": told or f"The account {account_id} is deleted. This cannot be undone."}


def _mail(c: Conversation) -> Turn:
    account_id = c.account_id()
    if _due(c, "fetch_account"):
        return _call("fetch_account", account_id=account_id)
    address = _field(c, "fetch_account", "email")
    if not address:
        reason = _failed(c, "fetch_account") or f"I do not know the address of {account_id}."
        return {"text": f"The message was not sent: {reason}"}
    if _due(c, "send_email"):
        body = f"Hello {_field(c, 'fetch_account', 'name')},\n\n{_plain(c.text, 1500)}\n\nThe support desk"
        return _call("send_email", to=address, subject=f"About your account {account_id}", body=body)
    return {"text": _told(c, "send_email", "The message was not sent") or f"The message to {address} is sent."}


def _account(c: Conversation) -> Turn:
    account_id = c.account_id()
    if _due(c, "fetch_account"):
        return _call("fetch_account", account_id=account_id)
    found = c.of("fetch_account")
    if found is None:
        return {"text": f"I cannot look up {account_id} now."}
    if not found.ok:
        return {"text": f"I could not look up {account_id}: {_sentence(found.message)}"}
    name, plan, status = (found.data.get(key, "unknown") for key in ("name", "plan", "status"))
    return {"text": f"{account_id} is {name}, on the {plan} plan; its status is {str(status).replace('_', ' ')}."}


def _small_talk(c: Conversation) -> Turn:
    return {"text": "Hello. I can look up accounts, answer questions about our policies and open tickets."}


def _told(c: Conversation, tool: str, undone: str) -> str:
    """What the user must hear when the write did not certainly happen; empty when it did."""
    outcome = c.of(tool)
    if outcome is None:
        return f"{undone}: I have no right to do that here."
    if outcome.unknown:
        return f"It is not known yet whether this was done; a person is looking into it. {_sentence(outcome.message)}"
    return "" if outcome.ok else f"{undone}: {_sentence(outcome.message)}"


def _failed(c: Conversation, tool: str) -> str:
    outcome = c.of(tool)
    return _sentence(outcome.message) if outcome and not outcome.ok else ""


def _field(c: Conversation, tool: str, field: str) -> str:
    outcome = c.of(tool)
    return str(outcome.data.get(field) or "") if outcome and outcome.ok else ""


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _plain(text: str, longest: int) -> str:
    """One line without directives or control characters, cut to `longest` characters."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", strip_directive(text)).split())[:longest] or "no text"
