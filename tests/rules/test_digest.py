import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.digest import FIELDS, moved, sealed
from approvals.digest import digest as digest_of

SENT: dict[str, Any] = {
    "tenant": "t", "run": "agt_1", "call": "3.1", "tool_version": "v", "credential": "desk@2",
    "policy": "p", "args_sha256": "a", "destination": "POST http://desk/tickets",
    "effect": "write", "key": "K",
}  # fmt: skip


def digest(**fields: Any) -> str:
    return digest_of(sealed(**fields))


@pytest.mark.mission("X2")
def test_the_digest_is_the_hash_of_canonical_json_so_that_others_can_compute_it():
    canonical = (
        '{"args_sha256":"a","call":"3.1","credential":"desk@2","destination":"POST http://desk/tickets","effect":"write","key":"K",'
        '"policy":"p","run":"agt_1","tenant":"t","tool_version":"v"}'
    )
    assert digest(**SENT) == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.mission("X2")
@pytest.mark.parametrize("field", FIELDS)
def test_a_change_of_any_field_changes_the_digest(field):
    assert digest(**SENT | {field: SENT[field] + "."}) != digest(**SENT)


def test_no_key_and_an_empty_key_are_different():
    assert digest(**SENT | {"key": None}) != digest(**SENT | {"key": ""})


@pytest.mark.parametrize("value", [3, 3.0, b"t", None, True])
def test_only_text_is_hashed_since_a_number_has_more_than_one_spelling(value):
    with pytest.raises(TypeError, match="tenant"):
        digest(**SENT | {"tenant": value})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=20, max_size=20))
def test_two_things_to_send_share_a_digest_only_if_they_are_the_same(texts):
    one, other = (dict(zip(FIELDS, half, strict=True)) for half in (texts[:10], texts[10:]))
    assert (digest(**one) == digest(**other)) == (one == other)


@pytest.mark.mission("X2")
def test_drift_is_named_in_words():
    other = sealed(**SENT | {"args_sha256": "b", "policy": "q"})
    assert moved(sealed(**SENT), other) == "arguments, policy"
    assert moved(other, other) == ""
