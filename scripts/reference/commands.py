"""docs/reference/commands.md: the commands of `manage.py` that are ours, and the targets of the Makefile."""

import argparse
import pkgutil
import re
from pathlib import Path

from django.core.management import load_command_class

from console.management import commands
from scripts.reference import HEAD, cell

ROOT = Path(__file__).resolve().parents[2]
TARGET = re.compile(r"^([a-z-]+):[^#\n]*## (.*)$", re.MULTILINE)
OF_DJANGO = {"help", "version", "verbosity", "settings", "pythonpath", "traceback", "no_color", "force_color", "skip_checks"}


def written() -> str:
    names = sorted(each.name for each in pkgutil.iter_modules(commands.__path__))
    rows = "\n".join(of(name) for name in names)
    targets = "\n".join(f"| `make {name}` | {cell(about)} |" for name, about in TARGET.findall((ROOT / "Makefile").read_text()))
    return f"""{HEAD}
# Commands

`.venv/bin/python manage.py COMMAND`, in the checkout. Without `DATABASE_URL` they find the database of a running `make run`. Django's own
(`migrate`, `check`, `shell`, `createsuperuser` ...) are there too.

| command | what |
|---|---|
{rows}

| target | what |
|---|---|
{targets}
"""


def of(name: str) -> str:
    command = load_command_class("console", name)
    parser = command.create_parser("manage.py", name)
    given = [option(each) for each in parser._actions if each.dest not in OF_DJANGO]
    return f"| `manage.py {name}` | {cell(command.help)}{''.join(f'<br>{one}' for one in given)} |"


def option(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest).upper()
    about = (action.help or "") % {"default": action.default}
    return f"`{name}`{': ' + cell(about) if about else ''}"
