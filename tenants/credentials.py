"""Credentials sealed at rest. The keys live outside the database; the plaintext names the tenant and credential it belongs to."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import transaction

from .errors import Refused
from .live_secrets import Opened, remember
from .models import Credential, Tenant

log = logging.getLogger(__name__)


class Unreadable(Refused):
    """A sealed value that no key of ours opens, or that was sealed for another tenant or name."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__("credential_unreadable", f"The credential {name} {why}. Enter it again.", 500, credential=name)


def seal(tenant_id: UUID, name: str, secret: str) -> bytes:
    """Fernet has no associated data, so tenant and name are inside and are checked by `open`."""
    return _keys().encrypt(json.dumps([str(tenant_id), name, secret]).encode())


def open(tenant_id: UUID, name: str, sealed: bytes | memoryview, keys: MultiFernet | None = None) -> str:
    """The secret. `keys`: instead of all of ours. Raises Unreadable, which never carries the sealed or the plain text."""
    try:
        plain = (keys or _keys()).decrypt(bytes(sealed))
    except InvalidToken:
        raise Unreadable(name, "cannot be opened with the keys in SEALING_KEYS or in the state folder") from None
    bound_tenant, bound_name, secret = json.loads(plain)
    if (bound_tenant, bound_name) != (str(tenant_id), name):
        raise Unreadable(name, "was sealed for another tenant or under another name")
    return str(secret)


def opened(row: Credential) -> Opened:
    """Raises Unreadable. From here on the logs of this process leave the secret out."""
    found = Opened(row.name, row.kind, open(row.tenant_id, row.name, row.sealed), row.header or None, row.version)
    remember(found)
    return found


def open_all(tenant_id: UUID) -> dict[str, Opened]:
    """Name -> credential, of one tenant. One that cannot be opened is left out and logged: only its own tools stop."""
    found = {}
    for row in Credential.objects.filter(tenant_id=tenant_id):
        try:
            found[row.name] = opened(row)
        except Unreadable as unreadable:
            log.error("tenant %s: %s", tenant_id, unreadable.message)
    return found


def opens(row: Credential, keys: MultiFernet | None = None) -> bool:
    try:
        open(row.tenant_id, row.name, row.sealed, keys)
    except Unreadable:
        return False
    return True


def unreadable(using: str = "default", at_most: int = 5000) -> Iterator[str]:
    """`tenant/name` of each credential, among the newest, that none of our keys opens. Raises Refused when a key is no key."""
    for row in Credential.objects.using(using).select_related("tenant").order_by("-id")[:at_most]:
        if not opens(row):
            yield f"{row.tenant.slug}/{row.name}"


@transaction.atomic
def store(tenant: Tenant, name: str, kind: str, secret: str, header: str = "") -> Credential:
    """Create or replace. The caller audits (names and versions only) and bumps the tenant's controls."""
    sealed = seal(tenant.id, name, secret)
    row, made = Credential.objects.get_or_create(tenant=tenant, name=name, defaults={"kind": kind, "header": header, "sealed": sealed})
    if not made:
        row = locked(row)
        row.kind, row.header, row.sealed, row.version = kind, header, sealed, row.version + 1
        row.save()
    remember(Opened(name, kind, secret))
    return row


def locked(row: Credential) -> Credential:
    """As it is now, until the transaction ends: a rotation may have sealed it anew since it was read."""
    return Credential.objects.select_for_update(no_key=True).get(pk=row.pk)


def newest() -> MultiFernet:
    """The newest key alone."""
    return MultiFernet(_fernets()[:1])


def _keys() -> MultiFernet:
    return MultiFernet(_fernets())


def _fernets() -> list[Fernet]:
    return _load(settings.SEALING_KEYS, Path(settings.HOME))


@lru_cache(maxsize=4)
def _load(listed: str, home: Path) -> list[Fernet]:
    """The newest key seals, all of them open. Without SEALING_KEYS one is made once and kept with mode 0600."""
    keys = [key.strip() for key in listed.split(",") if key.strip()] or [kept_key(home / "sealing")]
    try:
        return [Fernet(key) for key in keys]
    except ValueError:
        raise Refused("bad_sealing_key", "SEALING_KEYS must be Fernet keys: 32 bytes in urlsafe base64 each.", 500) from None


def kept_key(path: Path) -> str:
    """32 bytes at random in urlsafe base64, made the first time.

    Written whole under another name first, then linked: who starts at the same moment reads all of it or nothing.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix="sealing-") as draft:  # made with mode 0600
            draft.write(Fernet.generate_key())
            draft.flush()
            os.fsync(draft.fileno())
            with suppress(FileExistsError):
                os.link(draft.name, path)
    return path.read_text().strip()
