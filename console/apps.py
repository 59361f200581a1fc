from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


def give_grants(using: str, **_: Any) -> None:
    from .database import grant

    grant(using)


class ConsoleConfig(AppConfig):
    name = "console"

    def ready(self) -> None:
        post_migrate.connect(give_grants, sender=self)
