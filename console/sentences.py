"""What a call will do, as one plain sentence. Pure.

Made of the tool's name, its effect and the arguments, never of text that a model wrote about itself. An argument gets into the
sentence only if it looks like an identifier; anything else is named ("the account in the arguments") and read in the arguments.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import limits

# verb -> the word between what is done and whom it concerns
VERBS: Mapping[str, str] = {
    **dict.fromkeys(("create", "open", "add", "book", "schedule", "order", "buy"), "for"),
    **dict.fromkeys(("issue", "send", "refund", "pay", "transfer", "post", "forward", "grant", "give", "assign"), "to"),
    **dict.fromkeys(("update", "change", "set", "edit", "rename", "move", "merge", "enable", "disable", "reset"), "for"),
    **dict.fromkeys(("delete", "remove", "erase", "close", "cancel", "revoke", "stop", "archive", "suspend"), "for"),
    **dict.fromkeys(("fetch", "get", "read", "list", "search", "find", "look", "check", "count"), "for"),
    **dict.fromkeys(("publish", "write", "record", "upload", "run", "start", "charge", "approve", "restart"), "for"),
}
MAKING = frozenset(
    "create open add book schedule order buy issue send post forward grant give publish write record upload".split()  # noqa: SIM905
)
MOVES_MONEY = frozenset({"refund", "pay", "transfer", "charge"})
WORD_FOR = {("create", "ticket"): "open", ("create", "incident"): "open", ("create", "case"): "open"}
ADDRESSED = ("to", "recipient", "recipients", "email")
ABOUT = ("account_id", "customer_id", "user_id", "order_id")
GRADES = ("priority", "severity", "urgency")
IDENTIFIER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:+/#-]{0,79}\Z")
GRADE = re.compile(r"[a-z]{2,12}\Z")
CURRENCY = re.compile(r"[A-Z]{3}\Z")
DECIMAL = re.compile(r"\d{1,15}(\.\d{1,6})?\Z")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a sentence; `given`: it stands in the arguments just so."""

    text: str
    given: bool = False


def happens(tool: str, effect: str, args: Any) -> tuple[Part, ...]:
    """`create_ticket will open an urgent ticket for acct_1001`, in parts."""
    end = (Part(". This cannot be undone."),) if effect == "irreversible" else ()
    parts = phrase(tool, args)
    if parts is None:
        what = "reads only" if effect == "read" else "may change something"
        return (Part(tool, given=True), Part(f" will be called with {numbered(args)} and {what}"), *end)
    return (Part(tool, given=True), Part(" will "), *parts, *end)


def headline(tool: str, args: Any) -> str:
    """The same for a line of a list: `Open an urgent ticket for acct_1001`."""
    parts = phrase(tool, args)
    said = plain(parts) if parts is not None else f"call {tool}"
    return said[:1].upper() + said[1:]


def plain(parts: tuple[Part, ...]) -> str:
    return "".join(part.text for part in parts)


def phrase(tool: str, args: Any) -> tuple[Part, ...] | None:
    """`open an urgent ticket for acct_1001`; None when the tool's name holds no verb that is known."""
    verb, noun = named(tool)
    if not verb:
        return None
    given = args if isinstance(args, dict) else {}
    direct = direct_key(verb, noun, given)
    parts = [Part(WORD_FOR.get((verb, noun), verb) + " ")]
    parts += thing(verb, noun, given, direct)
    parts += concerned(verb, given, direct)
    return tuple(parts)


def more_budget(agent: str, add: Mapping[str, Any]) -> str:
    """What a request for more of a run's limits asks for."""
    return f"More budget: {agent} asks for {limits.amounts(add)}"


def named(tool: str) -> tuple[str, str]:
    """create_ticket, createTicket and tickets.create -> ("create", "ticket"); no verb -> ("", "")."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", tool).lower())
    at = next((place for place, word in enumerate(words) if word in VERBS), None)
    if at is None:
        return "", ""
    after = " ".join(words[at + 1 :])
    return words[at], after or singular(" ".join(words[:at]))


def singular(noun: str) -> str:
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun


def direct_key(verb: str, noun: str, given: dict[str, Any]) -> str | None:
    """The argument that names the very thing: `account_id` of delete_account."""
    if verb in MAKING or not noun:
        return None
    return next((key for key in (f"{noun.split()[-1]}_id", "id") if key in given), None)


def thing(verb: str, noun: str, given: dict[str, Any], direct: str | None) -> list[Part]:
    if direct:
        value = named_value(direct, given[direct])
        return [Part(f"{noun} "), value] if value.given else [value]
    sum_ = money(given)
    if verb in MOVES_MONEY and sum_:
        return [sum_]
    grade = next((given[key] for key in GRADES if isinstance(given.get(key), str) and GRADE.match(given[key])), "")
    words = " ".join(word for word in (grade if verb in MAKING else "", noun) if word)
    parts = [Part(f"{article(words)} {words}" if verb in MAKING and words and not noun.endswith("s") else words or "something")]
    return [*parts, Part(" of "), sum_] if sum_ else parts


def money(given: dict[str, Any]) -> Part | None:
    """The amount as it is given, with its currency; nothing is converted or rounded. None: no amount with a currency."""
    amount, currency = given.get("amount"), given.get("currency")
    if isinstance(amount, bool) or not isinstance(currency, str) or not CURRENCY.match(currency):
        return None
    return Part(f"{amount} {currency}", given=True) if DECIMAL.match(str(amount)) else None


def concerned(verb: str, given: dict[str, Any], direct: str | None) -> Iterator[Part]:
    """` to acct_1001`, ` for charge ch_9f2`: whom it concerns, then one more identifier."""
    keys = [key for key in (*ADDRESSED, *ABOUT) if key in given and key != direct]
    others = sorted(key for key in given if key.endswith("_id") and key != direct and key not in keys)
    for place, key in enumerate((keys + others)[:2]):
        if place == 0 and key in keys:
            yield Part(f" {'to' if key in ADDRESSED else VERBS[verb]} ")
            yield named_value(key, given[key])
        else:
            yield Part(f" for {noun_of(key)} ")
            yield named_value(key, given[key], bare=True)


def named_value(key: str, value: Any, *, bare: bool = False) -> Part:
    """The value if it is an identifier, else words that point to the arguments."""
    if isinstance(value, list) and key in ADDRESSED:
        return Part(f"{len(value)} {'address' if len(value) == 1 else 'addresses'}")
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if IDENTIFIER.match(text):
        return Part(text, given=True)
    return Part("(see the arguments)" if bare else f"the {noun_of(key)} in the arguments")


def noun_of(key: str) -> str:
    """account_id -> account; what is not a plain word is not repeated."""
    noun = "address" if key in ADDRESSED else key.removesuffix("_id").replace("_", " ")
    return noun if re.fullmatch(r"[a-z][a-z ]{0,29}", noun) else "thing"


def article(words: str) -> str:
    return "an" if words[:1] in tuple("aeiou") else "a"


def numbered(args: Any) -> str:
    many = len(args) if isinstance(args, dict | list) else 1
    return f"{many} argument" if many == 1 else f"{many or 'no'} arguments"


@dataclass(frozen=True, slots=True)
class Row:
    """One argument for people: its name, the whole of its value, and what kind of value it is. `note` warns."""

    name: str
    kind: str
    text: str
    note: str = ""


KINDS = {bool: "yes or no", int: "number", float: "number", str: "text", list: "list", dict: "object", type(None): "nothing"}
TWO_SCRIPTS = re.compile("[A-Za-z][\u0370-\u03ff\u0400-\u052f]|[\u0370-\u03ff\u0400-\u052f][A-Za-z]")


def rows(args: Any) -> list[Row]:
    """Every argument, none of it cut. Texts are as they are; lists and objects are indented JSON."""
    given = args if isinstance(args, dict) else {"(all of it)": args}
    return [row(str(name), value) for name, value in given.items()]


def row(name: str, value: Any) -> Row:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    note = "mixes letters of two alphabets that look alike" if TWO_SCRIPTS.search(name + "\0" + text) else ""
    return Row(name, KINDS.get(type(value), "value"), text, note)
