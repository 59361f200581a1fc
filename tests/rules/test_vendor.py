import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
USED = re.compile(r'{% icon "([a-z0-9-]+)"|icon\("([a-z0-9-]+)"\)')


@pytest.fixture
def vendor() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vendor_static", ROOT / "scripts" / "vendor_static.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_vendored_file_is_the_one_that_was_locked(vendor: ModuleType) -> None:
    assert vendor.problems() == []


def test_the_lock_file_names_no_registry(vendor: ModuleType) -> None:
    text = vendor.LOCK.read_text()

    assert "http" not in text
    assert all(entry["integrity"].startswith("sha512-") for entry in json.loads(text)["packages"].values())


def test_a_changed_a_missing_and_an_added_file_are_each_found(vendor: ModuleType, tmp_path: Path) -> None:
    for path in (ROOT / "static").rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(ROOT / "static")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    vendor.STATIC, vendor.VENDOR = tmp_path, tmp_path / "vendor"
    vendor.LOCK = vendor.VENDOR / "vendor.lock.json"
    (tmp_path / "vendor/htmx/htmx.min.js").write_text("other")
    (tmp_path / "vendor/plotly/plotly.css").unlink()
    (tmp_path / "vendor/htmx/more.js").write_text("more")

    assert vendor.problems() == [
        "vendor/plotly/plotly.css is missing",
        "vendor/htmx/htmx.min.js differs from the lock file",
        "vendor/htmx/more.js is not in the lock file",
    ]


def test_a_licence_lies_beside_every_vendored_package(vendor: ModuleType) -> None:
    for folder in (ROOT / "static" / "vendor").iterdir():
        if folder.is_dir():
            assert list(folder.glob("LICENSE*")), folder.name


def test_every_icon_that_templates_scripts_and_states_use_is_in_the_sprite() -> None:
    from console.status import KINDS

    sprite = (ROOT / "static/icons/sprite.svg").read_text()
    symbols = set(re.findall(r'<symbol id="i-([a-z0-9-]+)"', sprite))
    sources = [*(ROOT / "templates").rglob("*.html"), *(ROOT / "static/js").glob("*.js")]
    used = {name for path in sources for pair in USED.findall(path.read_text()) for name in pair if name}
    used |= {look.icon for looks in KINDS.values() for look in looks.values()}

    assert used - symbols == set()


def test_our_live_script_stays_small_and_the_sprite_runs_nothing() -> None:
    import gzip

    live = (ROOT / "static/js/live.js").read_bytes()
    css = (ROOT / "static/signalbox.css").read_bytes()

    assert len(gzip.compress(live, 9)) < 4096
    assert len(gzip.compress(css, 9)) < 15 * 1024
    assert "<script" not in (ROOT / "static/icons/sprite.svg").read_text()


@pytest.mark.parametrize("more", [("run.js", "tail.js"), ("approvals.js",), ("matrix.js",), ("run.js", "bulk.js"), ("palette.js",)])
def test_the_scripts_of_a_page_stay_within_thirty_kilobytes(more: tuple[str, ...]) -> None:
    import gzip

    loaded = [ROOT / "static/vendor/htmx/htmx.min.js", *(ROOT / "static/js" / name for name in ("app.js", "keys.js", "live.js", *more))]

    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in loaded if path.exists()) < 30 * 1024
