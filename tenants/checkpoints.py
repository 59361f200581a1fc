"""Signed checkpoints of the audit trail: where each chain ended at a moment, kept in a table and in a file outside of the database.

The keys live outside of the database as well, so whoever may write every row can neither hide that newest entries are missing nor
write a chain anew from its beginning. Ed25519: the public half is enough to check a checkpoint elsewhere.
"""

import base64
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings

from .credentials import kept_key
from .errors import Refused

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`at`: RFC 3339 in UTC, as it was signed."""

    chain: UUID
    seq: int
    hash: bytes
    at: str
    key: str
    signature: bytes

    def as_json(self) -> dict[str, Any]:
        return {
            "chain": str(self.chain), "seq": self.seq, "hash": self.hash.hex(), "at": self.at, "key": self.key,
            "signature": self.signature.hex(),
        }  # fmt: skip


def signed(chain: UUID, seq: int, digest: bytes, at: str) -> Checkpoint:
    key = _keys()[0]
    return Checkpoint(chain, seq, digest, at, name_of(key), key.sign(_said(chain, seq, digest, at)))


def holds(one: Checkpoint) -> bool:
    """Whether one of our keys signed exactly this."""
    for key in _keys():
        if name_of(key) == one.key:
            try:
                key.public_key().verify(one.signature, _said(one.chain, one.seq, one.hash, one.at))
            except InvalidSignature:
                return False
            return True
    return False


def public_keys() -> dict[str, str]:
    """Name -> the public half in hex, for whoever checks elsewhere."""
    return {name_of(key): key.public_key().public_bytes_raw().hex() for key in _keys()}


def keep(made: Iterable[Checkpoint]) -> None:
    """Append them to the file and to the log. What cannot be written there is logged and kept from nobody else."""
    lines = [json.dumps(one.as_json()) for one in made]
    if not lines:
        return
    for line in lines:
        log.info("audit checkpoint %s", line)
    path = Path(settings.AUDIT_CHECKPOINTS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        log.exception("the audit checkpoints could not be appended to %s", path)


def kept() -> Iterator[Checkpoint]:
    """Those of the file, if there is one here. Raises Refused for a line that is none."""
    path = Path(settings.AUDIT_CHECKPOINTS)
    if not path.exists():
        return
    with path.open() as file:
        for number, line in enumerate(file, 1):
            try:
                yield read(json.loads(line))
            except (ValueError, KeyError, TypeError):
                message = f"Line {number} of {path} is no checkpoint: take it out of the file, and find out how it came there."
                raise Refused("bad_checkpoint_file", message, 500) from None


def read(said: dict[str, Any]) -> Checkpoint:
    digest, signature = bytes.fromhex(said["hash"]), bytes.fromhex(said["signature"])
    return Checkpoint(UUID(said["chain"]), int(said["seq"]), digest, str(said["at"]), str(said["key"]), signature)


def name_of(key: Ed25519PrivateKey) -> str:
    return hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()[:16]


def _said(chain: UUID, seq: int, digest: bytes, at: str) -> bytes:
    return json.dumps(["signalbox audit checkpoint", str(chain), seq, digest.hex(), at], separators=(",", ":")).encode()


def _keys() -> list[Ed25519PrivateKey]:
    return _load(settings.AUDIT_SIGNING_KEYS, Path(settings.HOME))


@lru_cache(maxsize=4)
def _load(listed: str, home: Path) -> list[Ed25519PrivateKey]:
    texts = [text.strip() for text in listed.split(",") if text.strip()] or [kept_key(home / "audit-signing")]
    try:
        return [Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(text)) for text in texts]
    except ValueError:
        raise Refused("bad_signing_key", "AUDIT_SIGNING_KEYS must be 32 bytes in urlsafe base64 each.", 500) from None
