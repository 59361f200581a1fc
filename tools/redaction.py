"""Secrets out of texts, by value: the credentials of a tenant in every spelling they come back in, and tokens of known makers.

A tool that echoes its headers, an error page that quotes a key, a model that repeats one: what this finds is replaced before
anything is stored, logged, shown, or told to the model. Pure, and safe to apply twice.

Known by value, from `MIN` characters: plain, JSON-escaped, HTML-escaped, URL-encoded, hex, and base64 (standard and urlsafe, padded
or not, and inside a longer text at each of its three alignments). Not known: encodings of encodings, and text that was cut inside a
secret, except at its very end (`said`).
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol
from urllib.parse import quote, quote_plus

MIN: Final = 6  # a shorter secret would blank out ordinary text
_GRAM: Final = 6
_MAX_STRIDE: Final = 16
_ODD: Final = re.compile(r"[^A-Za-z0-9._-]")
_MARK: Final = re.compile(r"\[credential [A-Za-z0-9._-]{1,100}\]")
_PERCENT: Final = re.compile(r"%[0-9A-F]{2}")
# Only what nothing else looks like: a fixed beginning, then as many characters of the alphabet as the maker gives out.
_BODY: Final = r"[A-Za-z0-9+/=\\:,\s-]"  # of a key in PEM, also with its line ends escaped
_TOKENS: Final = (
    (
        "private key",
        ("-----BEGIN ",),
        rf"-----BEGIN (?:[A-Z0-9]+ ){{0,3}}PRIVATE KEY-----{_BODY}*?(?:-----END [A-Z0-9 ]{{3,40}}-----|\Z|(?!{_BODY}))",
    ),
    ("signalbox", ("sbx_",), r"\bsbx_[A-Za-z0-9]{6,16}_[A-Za-z0-9_-]{32,}"),
    ("openai", ("T3BlbkFJ",), r"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}T3BlbkFJ[A-Za-z0-9_-]{20,}"),
    ("anthropic", ("sk-ant-",), r"\bsk-ant-[a-z0-9]{3,8}-[A-Za-z0-9_-]{80,}"),
    ("github", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"\bgh[pousr]_[A-Za-z0-9]{36,}"),
    ("github", ("github_pat_",), r"\bgithub_pat_[A-Za-z0-9_]{60,}"),
    ("gitlab", ("glpat-",), r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("slack", ("xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-"), r"\bxox[abprs]-[0-9]{8,}-[A-Za-z0-9-]{10,}"),
    ("stripe", ("k_live_",), r"\b[rs]k_live_[A-Za-z0-9]{24,}"),
    ("aws", ("AKIA", "ASIA"), r"\bA(?:KIA|SIA)[A-Z2-7]{16}\b"),
    ("google", ("AIza",), r"\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
)
_BY_SIGN: Final = tuple((sign, f"[token {maker}]", re.compile(pattern)) for maker, signs, pattern in _TOKENS for sign in signs)
_SHORTEST_TOKEN: Final = 20


class Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def secret(self) -> str: ...


class Redactor:
    """Built once for a set of secrets; what it costs afterwards does not grow with their number.

    A text is sampled every few characters and the samples are looked up among the beginnings of all spellings: any occurrence
    holds one. Only spellings that were met are then searched for.
    """

    __slots__ = ("_at", "_forms", "_gram", "_heads", "_keys", "_longest", "_marks", "_numeric", "_stride")

    def __init__(self, credentials: Iterable[Named] = ()) -> None:
        self._forms: dict[str, str] = {}  # spelling -> what it is replaced by
        self._numeric = False
        for credential in credentials:
            self._learn(credential)
        self._marks = frozenset(self._forms.values())
        shortest = min(map(len, self._forms), default=MIN)
        self._longest = max(map(len, self._forms), default=0)
        self._gram = min(_GRAM, shortest - 2)
        self._stride = min(shortest - self._gram + 1, _MAX_STRIDE)
        self._at: dict[str, list[str]] = {}
        self._heads: dict[str, list[str]] = {}
        for form in self._forms:
            self._heads.setdefault(form[:MIN], []).append(form)
            for start in range(self._stride):
                self._at.setdefault(form[start : start + self._gram], []).append(form)
        self._keys = frozenset(self._at)

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._marks)} credentials>"

    def _learn(self, credential: Named) -> None:
        """A password that goes out behind a user name is a secret by itself."""
        secrets = [credential.secret]
        if credential.kind == "basic":
            secrets.append(credential.secret.partition(":")[2])
        mark = f"[credential {_ODD.sub('_', credential.name)[:100]}]"
        for secret in secrets:
            if len(secret) >= MIN:
                self._numeric = self._numeric or secret.lstrip("-").replace(".", "", 1).isdigit()
                for form in spellings(secret):
                    self._forms.setdefault(form, mark)

    def text(self, text: str) -> tuple[str, int]:
        """-> (the text without secrets, how many places were replaced)."""
        return self._replaced(text, self._found(text) if self._keys else [])

    def said(self, text: str) -> tuple[str, int]:
        """As `text`, for a message that somebody may have cut: a secret's beginning at the very end goes too."""
        return self._replaced(text, self._found(text) + self._cut(text) if self._keys else [])

    def value(self, value: Any) -> tuple[Any, int]:
        """-> (the JSON value without secrets in its texts, keys and numbers, how many). Expects limited depth."""
        count = 0

        def walk(item: Any) -> Any:
            nonlocal count
            if isinstance(item, str):
                item, found = self.text(item) if len(item) >= MIN else (item, 0)
                count += found
            elif isinstance(item, dict):
                return _unique((walk(key), walk(inner)) for key, inner in item.items())
            elif isinstance(item, list | tuple):
                return [walk(inner) for inner in item]
            elif self._numeric and isinstance(item, int | float) and not isinstance(item, bool):
                text, found = self.text(json.dumps(item))
                count, item = count + found, text if found else item
            return item

        walked = walk(value)
        return (walked, count) if count else (value, 0)

    def _found(self, text: str) -> list[tuple[int, int, str]]:
        gram, end = self._gram, len(text) - self._gram + 1
        met = {text[i : i + gram] for i in range(0, end, self._stride)} & self._keys
        forms = {form for piece in met for form in self._at[piece] if form in text}
        return [(at, at + len(form), self._forms[form]) for form in forms for at in _places(text, form)]

    def _cut(self, text: str) -> list[tuple[int, int, str]]:
        for start in range(max(0, len(text) - self._longest + 1), len(text) - MIN + 1):
            for form in self._heads.get(text[start : start + MIN], ()):
                if form.startswith(text[start:]):
                    return [(start, len(text), self._forms[form])]
        return []

    def _replaced(self, text: str, spans: list[tuple[int, int, str]]) -> tuple[str, int]:
        count = 0
        if spans:
            kept = [match.span() for match in _MARK.finditer(text) if match[0] in self._marks]
            merged = _merged(span for span in spans if not any(low <= span[0] and span[1] <= high for low, high in kept))
            for start, end, mark in reversed(merged):
                text = text[:start] + mark + text[end:]
            count = len(merged)
        if len(text) >= _SHORTEST_TOKEN:
            for sign, mark, pattern in _BY_SIGN:
                if sign in text:
                    text, found = pattern.subn(mark, text)
                    count += found
        return text, count


NOTHING: Final = Redactor()


def spellings(secret: str) -> Iterator[str]:
    """Every form in which a secret is looked for, each of at least `MIN` characters."""
    raw = secret.encode("utf-8", "surrogatepass")
    forms = [secret, secret.strip(), html.escape(secret), html.escape(secret, quote=False), raw.hex(), raw.hex().upper()]
    for ascii_only in (True, False):
        escaped = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        forms += [escaped, escaped.replace("/", "\\/"), json.dumps(escaped, ensure_ascii=ascii_only)[1:-1]]
    encoded = [quote(raw, safe=""), quote(raw), quote(raw, safe="!'()*~"), quote_plus(raw)]
    forms += [*encoded, *(_PERCENT.sub(lambda pair: pair[0].lower(), form) for form in encoded)]
    return (form for form in dict.fromkeys([*forms, *_base64(raw)]) if len(form) >= MIN)


def _base64(raw: bytes) -> Iterator[str]:
    """Whole, and the part that stays the same inside a longer text: only whole characters of six bits that are the secret's."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode()
        yield from (whole, whole.rstrip("="))
        for before, first in ((0, 0), (1, 2), (2, 3)):
            yield encode(b"\0" * before + raw).decode()[first : (before + len(raw)) * 8 // 6]


def _places(text: str, form: str) -> Iterator[int]:
    at = text.find(form)
    while at >= 0:
        yield at
        at = text.find(form, at + 1)


def _merged(spans: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Overlapping spans as one, under the name of the first and longest."""
    merged: list[tuple[int, int, str]] = []
    for start, end, mark in sorted(spans, key=lambda span: (span[0], -span[1])):
        if merged and start < merged[-1][1]:
            first, last, name = merged[-1]
            merged[-1] = (first, max(last, end), name)
        else:
            merged.append((start, end, mark))
    return merged


def _unique(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Two keys that became the same mark stay two."""
    made: dict[Any, Any] = {}
    for key, inner in pairs:
        made[key if key not in made else f"{key} {len(made) + 1}"] = inner
    return made
