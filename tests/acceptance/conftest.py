"""One whole installation for all stories. A failed story shows the ends of its processes' logs."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ground

from .stack import Stack


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, django_db_setup: None) -> Iterator[Stack]:
    made = Stack(request.config.stash[ground].urls)
    made.up()
    yield made
    try:
        assert made.python("from tests.history import faults; print(*faults('acme', 'globex'), sep='\\n')").split("\n") == ["", ""]
    finally:
        made.down()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    report = yield
    used = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(used, Stack):
        report.sections.append(("logs of the installation", used.tails()))
    return report
