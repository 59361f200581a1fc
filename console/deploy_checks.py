"""What `manage.py check --deploy` says of an installation that is not fit to be used by people."""

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register

KEPT = {  # variable -> what is made without it
    "SECRET_KEY": "each host makes a key of its own, and a session of one is none on the other",
    "SEALING_KEYS": "credentials are sealed with a key in the state folder, which no backup of the database has",
    "AUDIT_SIGNING_KEYS": "checkpoints are signed with a key in the state folder, which other hosts do not have",
}


@register(Tags.security, deploy=True)
def fit_for_people(app_configs: Any, **_: Any) -> list[CheckMessage]:
    return list(warnings())


def warnings() -> Iterator[CheckMessage]:
    if urlsplit(settings.PUBLIC_URL).scheme != "https":
        yield Warning(
            "PUBLIC_URL is not https: cookies and keys travel in the clear.", hint="Put a proxy with TLS before it.", id="signalbox.W001"
        )
    for name, without in KEPT.items():
        if not os.environ.get(name):
            yield Warning(f"{name} is not set: {without}.", hint="See docs/production.md.", id="signalbox.W002")
    if len({settings.WEB_URL, settings.ENGINE_URL, settings.OWNER_URL}) < 3:
        what = "The web, the engines and the owner do not have a role of their own in the database each."
        hint = "Set DATABASE_URL, DATABASE_ENGINE_URL and DATABASE_OWNER_URL: see docs/operations.md."
        yield Warning(what, hint=hint, id="signalbox.W003")
    if settings.DEMO:
        yield Warning("The demo is loaded: its passwords are in a file.", hint="Unset SIGNALBOX_DEMO.", id="signalbox.W004")
