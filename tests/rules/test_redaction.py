"""Secrets are found by value in every spelling they come back in, and nothing else is touched."""

import base64
import html
import json
import logging
import random
import secrets
import string
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from console import logs
from tenants import live_secrets
from tools.definitions import Credential
from tools.redaction import MIN, NOTHING, Redactor

SECRET = 'p@ss/word+"quoted"&<näive> 42~\\'
KEY = "q7Zp0vTgX2bN9sLd"
HIDDEN = Redactor([Credential("desk", "bearer", SECRET), Credential("mail", "bearer", KEY)])
Spelling = Callable[[str], str]


def inside_base64(offset: int, encode: Callable[[bytes], bytes] = base64.b64encode) -> Spelling:
    return lambda secret: encode(b"x" * offset + secret.encode() + b"yyyy").decode()


SPELLINGS: dict[str, Spelling] = {
    "plain": lambda s: s,
    "json": lambda s: json.dumps(s),
    "json_utf8": lambda s: json.dumps(s, ensure_ascii=False),
    "json_in_json": lambda s: json.dumps(json.dumps({"k": s})),
    "json_slash": lambda s: json.dumps(s).replace("/", "\\/"),
    "html": html.escape,
    "url": lambda s: quote(s, safe=""),
    "url_lower": lambda s: "".join(
        f"%{b:02x}" if chr(b) not in string.ascii_letters + string.digits + "_.-~" else chr(b) for b in s.encode()
    ),
    "url_path": quote,
    "form": quote_plus,
    "hex": lambda s: s.encode().hex(),
    "hex_upper": lambda s: s.encode().hex().upper(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64_bare": lambda s: base64.b64encode(s.encode()).decode().rstrip("="),
    "base64url": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "base64url_bare": lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
    **{f"base64_at_{n}": inside_base64(n) for n in range(6)},
    **{f"base64url_at_{n}": inside_base64(n, base64.urlsafe_b64encode) for n in range(6)},
}


def rests(secret: str, spelled: str) -> bool:
    """Whether the text still decodes to more of the secret than its last few bits."""
    core = secret.encode()[2:-2]
    for n in range(4):
        for letters in (spelled, spelled.translate(str.maketrans("-_", "+/"))):
            kept = "".join(c for c in letters[n:] if c in string.ascii_letters + string.digits + "+/")
            if core in base64.b64decode(kept[: len(kept) // 4 * 4]):
                return True
    return secret in spelled or secret.encode().hex() in spelled.lower()


@pytest.mark.mission("P10.2")
@pytest.mark.parametrize("secret", [SECRET, KEY])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("around", ["{}", "before {} after", "a{}b"])
def test_a_secret_is_found_in_every_spelling(secret: str, spelling: str, around: str) -> None:
    spelled = around.format(SPELLINGS[spelling](secret))
    said, found = HIDDEN.text(spelled)
    assert found == 1
    assert f"[credential {'desk' if secret == SECRET else 'mail'}]" in said
    assert not rests(secret, said)
    assert HIDDEN.text(said) == (said, 0)


def test_values_and_keys_and_numbers_of_json_are_searched_and_two_keys_stay_two() -> None:
    redactor = Redactor([Credential("pin", "bearer", "8675309"), Credential("k", "bearer", KEY)])
    value = {KEY: 1, f"x-{KEY}": [KEY, {"deep": f"Bearer {KEY}"}], "n": 8675309, "t": True, "f": 1.5, "none": None, KEY.encode().hex(): 2}
    said, found = redactor.value(value)
    assert KEY not in json.dumps(said) and "8675309" not in json.dumps(said)
    assert (found, len(said)) == (6, len(value))
    assert said["x-[credential k]"] == ["[credential k]", {"deep": "Bearer [credential k]"}]
    assert (said["n"], said["t"], said["f"], said["none"]) == ("[credential pin]", True, 1.5, None)
    assert redactor.value(said) == (said, 0)


def test_a_clean_value_is_given_back_itself() -> None:
    value = {"a": ["text", 1, None, {"b": "more text, and longer"}]}
    assert HIDDEN.value(value)[0] is value and NOTHING.value(value) == (value, 0)


def test_the_password_of_a_basic_credential_is_a_secret_by_itself() -> None:
    redactor = Redactor([Credential("desk", "basic", "clerk:hunter22-hunter22")])
    for text in ("clerk:hunter22-hunter22", "wrong password hunter22-hunter22", base64.b64encode(b"clerk:hunter22-hunter22").decode()):
        assert "[credential desk]" in redactor.text(text)[0]
        assert "hunter22" not in redactor.text(text)[0]


def test_secrets_that_overlap_or_hold_one_another_are_replaced_whole() -> None:
    redactor = Redactor(Credential(f"c{n}", "bearer", s) for n, s in enumerate(("abcdef", "abcdefgh", "efghijkl")))
    assert redactor.text("<abcdefgh>") == ("<[credential c1]>", 1)
    assert redactor.text("<abcdefghijkl>") == ("<[credential c1]>", 1)
    assert redactor.text("abcdefabcdef")[0].count("[credential c0]") == 2


def test_marks_are_left_alone_even_by_a_secret_that_is_an_ordinary_word() -> None:
    redactor = Redactor([Credential("a", "bearer", "credential"), Credential("b", "bearer", KEY)])
    once, found = redactor.text(f"credential {KEY}")
    assert (once, found) == ("[credential a] [credential b]", 2)
    assert redactor.text(once) == (once, 0)
    hidden = redactor.text(f"[credential {KEY}]")[0]  # a mark with a secret for its name is no mark of ours
    assert KEY not in hidden


def test_a_short_secret_is_not_searched_and_an_odd_name_stays_out_of_the_mark() -> None:
    assert Redactor([Credential("a", "bearer", "x" * (MIN - 1))]).text("x" * 40) == ("x" * 40, 0)
    assert Redactor([Credential('a"]\n', "bearer", KEY)]).text(KEY)[0] == "[credential a___]"


@pytest.mark.parametrize("length", range(MIN, len(KEY)))
def test_a_message_that_was_cut_inside_a_secret_loses_the_beginning_too(length: int) -> None:
    assert HIDDEN.said(f"wrong key {KEY[:length]}") == ("wrong key [credential mail]", 1)
    assert HIDDEN.said(f"{KEY[:length]} is wrong") == (f"{KEY[:length]} is wrong", 0)


def test_every_place_of_every_secret_is_found_among_hundreds() -> None:
    rnd = random.Random(7)
    known = [Credential(f"c{n}", "bearer", secrets.token_urlsafe(rnd.randint(5, 60))) for n in range(300)]
    redactor = Redactor(known)
    for credential in known:
        filler = "".join(rnd.choices(string.printable, k=rnd.randint(0, 40)))
        for spelled in (credential.secret, credential.secret.encode().hex(), base64.b64encode(b"z" + credential.secret.encode()).decode()):
            said, found = redactor.text(f"{filler}{spelled}{filler}")
            assert found >= 1 and credential.secret not in said, credential.name


TOKENS = {
    "github": ["ghp_" + "a1B2" * 9, "github_pat_" + "a1B2_" * 14],
    "aws": ["AKIAIOSFODNN7EXAMPLE"],
    "anthropic": ["sk-ant-api03-" + "aB3_" * 24],
    "openai": ["sk-proj-" + "a1B2" * 8 + "T3BlbkFJ" + "a1B2" * 8],
    "gitlab": ["glpat-" + "aB3_" * 5],
    "slack": ["xoxb-1234567890-abcdefghij"],
    "stripe": ["sk_live_" + "a1B2" * 6],
    "google": ["AIza" + "a" * 35],
    "signalbox": ["sbx_01ABCDEFGH12_" + "aB3_" * 10],
    "private key": [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIB/+=\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\\nMIIB\\n-----END PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk",
    ],
}


@pytest.mark.parametrize(("maker", "token"), [(maker, token) for maker, tokens in TOKENS.items() for token in tokens])
def test_tokens_of_known_makers_are_masked_whoever_they_belong_to(maker: str, token: str) -> None:
    assert NOTHING.text(f"use {token}") == (f"use [token {maker}]", 1)
    assert NOTHING.text(f"use [token {maker}]") == (f"use [token {maker}]", 0)


@pytest.mark.parametrize(
    "text",
    [
        "sk-1234567890abcdef",
        "A task-force of AKIA and gh_pages, see ghp_short",
        "Paste it between -----BEGIN PRIVATE KEY----- (first line) and the end. Then go on as usual.",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "sbx_01ABCDEFGH12_… is shown once",
        "AKIA is a prefix; AKIAIOSFODNN7EXAMPLES is too long",
        "0123456789abcdef" * 8,
    ],
)
def test_what_only_resembles_a_token_stays(text: str) -> None:
    kept, _ = NOTHING.text(text)
    assert kept == text or kept.endswith("(first line) and the end. Then go on as usual.")


# Logs


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    before = logging.getLogRecordFactory()
    monkeypatch.setattr(live_secrets, "_seen", {})
    logging.setLogRecordFactory(logs.record)
    live_secrets.remember(live_secrets.Opened("desk", "bearer", KEY))
    yield logging.getLogger("tests.redaction")
    logging.setLogRecordFactory(before)


@pytest.mark.mission("P10.2")
def test_a_log_record_never_holds_a_secret_that_this_process_opened(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    local = {"key": KEY}
    log.error("sent %s to %s", KEY, {"Authorization": f"Bearer {KEY}"})
    log.error("two %s", "too", "many " + KEY)
    try:
        raise ValueError(f"refused {base64.b64encode(KEY.encode()).decode()} of {len(local)}")
    except ValueError:
        log.exception("it failed", stack_info=True)
    try:
        raise KeyError("harmless")
    except KeyError:
        log.exception("it failed otherwise")
    held = "".join(repr(vars(record)) + logging.Formatter().format(record) for record in caplog.records)
    assert KEY not in held + caplog.text and base64.b64encode(KEY.encode()).decode() not in held
    assert "sent [credential desk] to" in caplog.text and "two %s" in caplog.text
    assert "ValueError: refused [credential desk] of 1" in caplog.text and "KeyError: 'harmless'" in caplog.text
    assert caplog.records[2].exc_info is None and caplog.records[3].exc_info is not None


def test_a_secret_that_is_opened_later_is_left_out_from_then_on(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    live_secrets.remember(live_secrets.Opened("late", "basic", "clerk:" + KEY[::-1]))
    log.info("plain")
    log.warning("again %s", KEY[::-1])
    assert "again [credential late]" in caplog.text
