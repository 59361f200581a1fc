"""The connection: Django looks for it in this module of a backend."""

from typing import Any

from django.db.backends.postgresql import base

from tenants.scope import confine


class DatabaseWrapper(base.DatabaseWrapper):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute_wrappers.append(confine)
