"""The desk's built-in customers: twenty accounts and their charges, the same in every start. Everything is invented."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

#: name, plan, country, monthly price in USD; account n of the list is acct_1001 + n.
_CUSTOMERS = (
    ("Harbour Cycles", "team", "NL", 49.0),
    ("Juniper Bakery", "starter", "DE", 19.0),
    ("Tidewater Surveying", "business", "GB", 199.0),
    ("Copper Lane Dental", "team", "US", 49.0),
    ("Quillfeather Press", "starter", "IE", 19.0),
    ("Alder & Finch Legal", "business", "US", 199.0),
    ("Pinecrest Montessori", "team", "CA", 49.0),
    ("Saltmarsh Ceramics", "starter", "FR", 19.0),
    ("Lanternfish Games", "team", "SE", 89.0),
    ("Old Mill Physiotherapy", "starter", "AT", 19.0),
    ("Bluestem Roofing", "team", "US", 49.0),
    ("Meridian Freight", "business", "US", 1240.0),
    ("Heron House Hotels", "business", "PT", 399.0),
    ("Thistle Street Coffee", "starter", "GB", 19.0),
    ("Amberfield Orchards", "team", "ES", 49.0),
    ("Northgate Robotics", "business", "FI", 399.0),
    ("Paper Lantern Events", "team", "IT", 89.0),
    ("Driftwood Outfitters", "starter", "NZ", 19.0),
    ("Cobalt Street Clinic", "business", "CH", 199.0),
    ("Windrose Language School", "team", "BE", 49.0),
)
#: These were charged twice for their last invoice, four seconds apart.
DUPLICATED = frozenset({"acct_1001", "acct_1004", "acct_1009", "acct_1012", "acct_1017"})
_PAST_DUE = frozenset({"acct_1008", "acct_1018"})
_FIRST_INVOICE = datetime(2026, 3, 2, 9, 14, 7, tzinfo=UTC)


def build_accounts() -> dict[str, dict[str, Any]]:
    """New, independent account objects by id, in the shape `fetch_account` answers with."""
    accounts = {}
    for index, (name, plan, country, _) in enumerate(_CUSTOMERS):
        account_id = f"acct_{1001 + index}"
        accounts[account_id] = {
            "account_id": account_id,
            "name": name,
            "email": f"billing@{name.split()[0].lower()}.example",
            "plan": plan,
            "status": "past_due" if account_id in _PAST_DUE else "active",
            "country": country,
            "opened_on": f"20{21 + index % 4}-{1 + index % 12:02}-{1 + index:02}",
        }
    return accounts


def build_charges() -> dict[str, list[dict[str, Any]]]:
    """New, independent charges by account id, oldest first; amounts in USD, times RFC 3339 UTC."""
    return {f"acct_{1001 + index}": _history(index, price) for index, (*_, price) in enumerate(_CUSTOMERS)}


def _history(index: int, price: float) -> list[dict[str, Any]]:
    account_id = f"acct_{1001 + index}"
    charges = []
    for month in range(3):
        at = _FIRST_INVOICE + timedelta(days=30 * month, minutes=17 * index)
        charges.append(_charge(account_id, f"INV-{20_600 + 110 * month + index}", price, at))
    if account_id in DUPLICATED:
        charges.append(_charge(account_id, charges[-1]["invoice"], price, at + timedelta(seconds=4)))
    return charges


def _charge(account_id: str, invoice: str, amount: float, at: datetime) -> dict[str, Any]:
    mark = hashlib.sha256(f"{account_id} {invoice} {at.isoformat()}".encode()).hexdigest()[:8]
    return {
        "charge_id": f"ch_{mark}",
        "invoice": invoice,
        "amount": amount,
        "currency": "USD",
        "status": "paid",
        "charged_at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
