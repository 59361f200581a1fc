"""Ground under all tests. Pure tests (tests/rules) load neither Django nor a database."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console.postgres import Urls

from .database import Ground

PURE = Path(__file__).parent / "rules"
# What a developer's shell may say about a running console must not reach the tests.
OUTSIDE = (
    "PORT",
    "PUBLIC_URL",
    "SIGNALBOX_ROLE",
    "SIGNALBOX_POOL",
    "SIGNALBOX_MANIFEST",
    "SIGNALBOX_DEMO",
    "SANDBOX_URL",
    "SECRET_KEY",
)

ground = pytest.StashKey[Ground]()


def only_pure(config: pytest.Config) -> bool:
    start = config.invocation_params.dir
    places = [(start / argument.split("::")[0]).resolve() for argument in config.args]
    return all(place == PURE or PURE in place.parents for place in places)


def only_hands_out(config: pytest.Config) -> bool:
    """With `-n`, this process runs no test itself."""
    return bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    if "DJANGO_SETTINGS_MODULE" in os.environ:
        raise pytest.UsageError("Unset DJANGO_SETTINGS_MODULE: the tests point the settings at a database of their own first.")
    if only_pure(config) or only_hands_out(config):
        return
    for name in OUTSIDE:
        os.environ.pop(name, None)
    config.stash[ground] = made = Ground()
    os.environ |= made.urls.environment() | {"SIGNALBOX_HOME": str(made.home), "DJANGO_SETTINGS_MODULE": "console.settings"}
    import django
    from django.conf import settings

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the slow one is slow on purpose
    settings.RATE_LIMITS = dict.fromkeys(settings.RATE_LIMITS, 0.0)  # tests/console/test_rate_limits.py sets what it needs
    django.setup()


def pytest_unconfigure(config: pytest.Config) -> None:
    made = config.stash.get(ground, None)
    if made is not None:
        os.environ.pop("DJANGO_SETTINGS_MODULE", None)
        made.drop()


@pytest.fixture(scope="session")
def django_db_setup(request: pytest.FixtureRequest, django_test_environment: None, django_db_blocker: Any) -> Iterator[None]:
    """A database of this run, migrated by the owner. Tests use it as the plain role."""
    from django.core.management import call_command
    from django.db import connections

    made = request.config.stash[ground]
    made.create()
    with django_db_blocker.unblock():
        call_command("migrate", database="owner", interactive=False, verbosity=0)
        connections.close_all()
    made.keep()
    made.remember_seeds()
    yield
    with django_db_blocker.unblock():
        connections.close_all()


@pytest.fixture
def committed_db(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """For tests whose processes or connections must see committed rows. Afterwards the owner empties every table."""
    from django.db import connections

    if "db" in request.fixturenames:
        raise pytest.UsageError("A test takes `db` (rolled back) or `committed_db`, not both.")
    with django_db_blocker.unblock():
        yield
        connections.close_all()
    request.config.stash[ground].empty()


@pytest.fixture
def urls(request: pytest.FixtureRequest, django_db_setup: None) -> Urls:
    """Connection URLs of the test database: `web` and `engine` (plain roles), `owner`."""
    return request.config.stash[ground].urls
