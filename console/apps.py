from typing import Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


def give_grants(using: str, **_: Any) -> None:
    from .database import grant

    grant(using)


class ConsoleConfig(AppConfig):
    name = "console"

    def ready(self) -> None:
        from . import deploy_checks  # noqa: F401 - registers them

        # once a migrate, after every table is there; the signal is only sent for apps that have models
        post_migrate.connect(give_grants, sender=apps.get_app_config("runs"))
