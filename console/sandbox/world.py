"""The desk behind the tools: accounts, charges, tickets, refunds and mail in memory, and the ledger of what was applied.

Everything here is synchronous and quick, so that one request is one indivisible step of the event loop.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from console.sandbox import handbook
from console.sandbox.accounts import build_accounts, build_charges
from console.sandbox.arguments import find_error

READS = ("search_docs", "fetch_account", "list_charges", "lookup")
WRITES = ("create_ticket", "close_ticket", "issue_refund", "send_email", "delete_account")
#: Mail leaves once for every request, whatever the key says: a second send is a second mail and shows in the ledger.
UNKEYED = frozenset({"send_email"})
_RECEIVED_KEPT = 50_000


@dataclass(frozen=True, slots=True)
class Effect:
    """A write that was applied. `at` is seconds since the epoch, in whole microseconds as the ledger shows it."""

    tool: str
    key: str | None
    args_sha256: str
    at: float

    def as_json(self) -> dict[str, Any]:
        """{tool, key, args_sha256, at}; `at` as RFC 3339 UTC."""
        return {"tool": self.tool, "key": self.key, "args_sha256": self.args_sha256, "at": rfc3339(self.at)}


class Refusal(Exception):
    """A request the desk does not carry out; nothing was applied."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class World:
    """State of the desk. `perform` is its only door."""

    def __init__(self) -> None:
        self._tools: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
            "search_docs": self._search_docs,
            "fetch_account": self._fetch_account,
            "list_charges": self._list_charges,
            "lookup": self._lookup,
            "create_ticket": self._create_ticket,
            "close_ticket": self._close_ticket,
            "issue_refund": self._issue_refund,
            "send_email": self._send_email,
            "delete_account": self._delete_account,
        }
        self.reset()

    def reset(self) -> None:
        """Back to the built-in data, with an empty ledger."""
        self.accounts = build_accounts()
        self.charges = build_charges()
        self.tickets: dict[str, str] = {}  # id -> open or closed
        self.effects: list[Effect] = []
        self.received: deque[dict[str, Any]] = deque(maxlen=_RECEIVED_KEPT)
        self._answers: dict[str, tuple[Effect, dict[str, Any]]] = {}
        self._refunded_cents: dict[str, int] = {}

    def perform(self, tool: str, key: str | None, args: Any, now: float) -> tuple[int, dict[str, Any]]:
        """One request of one tool: (HTTP status, JSON body). A write that succeeds enters the ledger once for each key."""
        if error := find_error(tool, args):
            return 422, {"error": error}
        digest = args_sha256(args)
        try:
            if tool in READS:
                return 200, self._tools[tool](args, "")
            return 200, self._write(Effect(tool, key, digest, round(now, 6)), args)
        except Refusal as refusal:
            return refusal.status, {"error": str(refusal)}

    def _write(self, effect: Effect, args: dict[str, Any]) -> dict[str, Any]:
        known = self._answers.get(effect.key) if effect.key and effect.tool not in UNKEYED else None
        if known and (known[0].tool, known[0].args_sha256) != (effect.tool, effect.args_sha256):
            raise Refusal(422, "this idempotency key was used with other arguments")
        if known:
            return known[1] | {"already_applied": True}
        # The id follows from the key, so that a restarted world never gives an old id to something new.
        mark = effect.key if effect.key not in self._answers else None
        seed = f"{mark or (len(self.effects), effect.at)} {effect.args_sha256}"
        body = self._tools[effect.tool](args, hashlib.sha256(seed.encode()).hexdigest()[:8])
        self.effects.append(effect)
        if effect.key:
            self._answers.setdefault(effect.key, (effect, body))
        return body

    def _account(self, account_id: str) -> dict[str, Any]:
        if account_id not in self.accounts:
            raise Refusal(404, f"there is no account {account_id}")
        return self.accounts[account_id]

    def _search_docs(self, args: dict[str, Any], mark: str) -> dict[str, Any]:
        return {"passages": handbook.search(args["query"], args.get("limit", 3))}

    def _fetch_account(self, args: dict[str, Any], mark: str) -> dict[str, Any]:
        return dict(self._account(args["account_id"]))

    def _list_charges(self, args: dict[str, Any], mark: str) -> dict[str, Any]:
        self._account(args["account_id"])
        return {"account_id": args["account_id"], "charges": deepcopy(self.charges[args["account_id"]])}

    def _lookup(self, args: dict[str, Any], mark: str) -> dict[str, Any]:
        known = self._answers.get(args["idem_key"])
        if known is None:
            return {"found": False, "tool": None, "at": None}
        return {"found": True, "tool": known[0].tool, "at": rfc3339(known[0].at)}

    def _create_ticket(self, args: dict[str, Any], mark: str) -> dict[str, Any]:
        self._account(args["account_id"])
        self.tickets[f"tkt_{mark}"] = "open"
        return {"ticket_id": f"tkt_{mark}", "priority": args["priority"], "status": "open"}

    def _close_ticket(self, args: dict[str, Any], mark: str) -> dict[str, Any]:
        if args["ticket_id"] not in self.tickets:
            raise Refusal(404, f"there is no ticket {args['ticket_id']}")
        if self.tickets[args["ticket_id"]] == "closed":
            raise Refusal(409, f"{args['ticket_id']} is closed already")
        self.tickets[args["ticket_id"]] = "closed"
        return {"ticket_id": args["ticket_id"], "status": "closed"}

    def _issue_refund(self, args: dict[str, Any], mark: str) -> dict[str, Any]:
        self._account(args["account_id"])
        charge = next((c for c in self.charges[args["account_id"]] if c["charge_id"] == args["charge_id"]), None)
        if charge is None:
            raise Refusal(404, f"there is no charge {args['charge_id']} on {args['account_id']}")
        done, cents = self._refunded_cents.get(charge["charge_id"], 0), round(args["amount"] * 100)
        left = round(charge["amount"] * 100) - done
        if not left:
            raise Refusal(409, f"{charge['charge_id']} is refunded already")
        if cents > left:
            raise Refusal(422, f"amount is more than the {left / 100:.2f} {charge['currency']} left to refund")
        self._refunded_cents[charge["charge_id"]] = done + cents
        charge["status"] = "refunded" if cents == left else "partly_refunded"
        return {"refund_id": f"rf_{mark}", "amount": args["amount"], "currency": args["currency"], "status": "sent"}

    def _send_email(self, args: dict[str, Any], mark: str) -> dict[str, Any]:
        return {"message_id": f"msg_{mark}", "status": "sent"}

    def _delete_account(self, args: dict[str, Any], mark: str) -> dict[str, Any]:
        self._account(args["account_id"])
        del self.accounts[args["account_id"]]
        return {"account_id": args["account_id"], "status": "deleted"}


def args_sha256(args: Any) -> str:
    """SHA-256 (hex) of the arguments in canonical JSON: sorted keys, no spaces, whole numbers without a fraction."""
    text = json.dumps(_whole_numbers(args), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def rfc3339(at: float) -> str:
    """Seconds since the epoch as RFC 3339 UTC with microseconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_since(text: str) -> float:
    """Seconds since the epoch from a number or an ISO 8601 time (UTC when it names no zone). Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a query string turns "+00:00" into " 00:00"
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
