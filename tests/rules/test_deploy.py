"""The files that put it into production, as far as they can be read: a container engine reads the rest."""

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
SERVICES = ("migrate", "jobs", "engine-1", "engine-2", "web")
HARDENED = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes",
    "CapabilityBoundingSet": "", "RestrictSUIDSGID": "yes", "KillMode": "mixed", "User": "signalbox",
}  # fmt: skip
KNOWN = {  # keys of a service in the compose specification that are used here; any other is a slip or needs a look
    "image", "build", "env_file", "environment", "command", "read_only", "tmpfs", "cap_drop", "cap_add", "security_opt", "init",
    "pids_limit", "restart", "networks", "logging", "volumes", "ports", "depends_on", "healthcheck", "stop_grace_period", "shm_size",
}  # fmt: skip


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """The instructions of the Dockerfile, one a line."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_services_are_those_of_the_operations_and_all_keys_are_known(compose: Any) -> None:
    assert set(compose["services"]) == {"db", *SERVICES}
    for name, service in compose["services"].items():
        assert set(service) <= KNOWN, name
    assert set(compose) <= {"name", "services", "networks", "volumes", "x-process", "x-ready"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_process_can_write_nothing_but_its_state_and_has_no_rights(compose: Any, name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    places = [one.split(":")[0] for one in service["tmpfs"]] + [one.split(":")[1] for one in service.get("volumes", ())]
    assert sorted(places) == ["/tmp", "/var/lib/signalbox"]
    assert "hostname" not in service and "network_mode" not in service  # two engines of one name would take each other for dead


def test_every_service_says_when_it_is_well_and_waits_for_the_tables(compose: Any) -> None:
    for name, service in compose["services"].items():
        assert name == "migrate" or service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        if name in ("jobs", "engine-1", "engine-2", "web"):
            assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    for name, service in compose["services"].items():
        for other in service.get("depends_on", {}):
            assert other in compose["services"], name


def test_only_the_web_is_reached_and_only_from_this_host(compose: Any) -> None:
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert ports == {"web": ["127.0.0.1:8000:8000"]}
    assert compose["networks"]["inside"]["internal"] is True and compose["services"]["db"]["networks"] == ["inside"]


def test_named_volumes_and_files_are_there_and_no_secret_is_in_the_files(compose: Any) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists()
        assert not [key for key in service.get("environment", ()) if re.search("PASSWORD|KEY|SECRET|URL", key)]
    for example in ("environment", "environment.db"):
        assert (ROOT / "deploy" / f"{example}.example").exists()
        assert f"deploy/{example}" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_variable_of_the_example_is_a_documented_setting() -> None:
    named = re.findall(r"^([A-Z_]+)=", (ROOT / "deploy" / "environment.example").read_text(), re.MULTILINE)
    told = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert named and set(named) <= set(told)


def test_every_command_that_the_document_names_is_there() -> None:
    named = set(re.findall(r"manage\.py ([a-z_]+)", (ROOT / "docs" / "production.md").read_text()))
    ours = {path.stem for path in (ROOT / "console" / "management" / "commands").glob("*.py")}
    assert named - ours <= {"migrate", "check", "collectstatic", "createsuperuser", "shell"}


def test_the_image_is_made_of_the_lock_and_runs_as_nobody_in_particular(steps: list[str]) -> None:
    assert sum(step.startswith("FROM ") for step in steps) == 2
    assert any("--require-hashes --only-binary :all: -r /build/requirements.lock" in step for step in steps)
    users = [step for step in steps if step.startswith("USER ")]
    assert users == ["USER 10001:10001"] and steps.index(users[0]) > max(n for n, step in enumerate(steps) if step.startswith("RUN "))
    assert not [step for step in steps if step.startswith("ADD ") or re.search(r"curl|wget|apt-get", step)]


def test_what_the_image_copies_is_let_through_and_every_room_is_in_it(steps: list[str]) -> None:
    copied = [step.split()[1] for step in steps if step.startswith("COPY ") and "--from" not in step]
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == let_through - {"docs"}
    assert {"tenants", "tools", "approvals", "runs", "console", "templates", "static", "manage.py"} <= set(copied)
    assert all((ROOT / one).exists() for one in copied)


def test_the_image_says_how_the_web_is_started_as_the_supervisor_does(steps: list[str]) -> None:
    from console.supervision import programs

    web = next(program for program in programs(port=8000, engines=1, jobs=True, sandbox_port=None) if program.name == "web")
    told = next(step for step in steps if step.startswith("CMD "))
    unit = next(path for path in UNITS if path.stem == "signalbox-web").read_text()
    for word in web.command[2:]:
        assert f'"{word}"' in told or word == "127.0.0.1"
        assert f" {word}" in unit


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_hardened_and_ends_its_main_process_first(path: Path) -> None:
    reader = configparser.ConfigParser(strict=False, interpolation=None)
    reader.optionxform = str  # type: ignore[assignment, method-assign]
    reader.read(path)
    service = dict(reader["Service"])
    assert {name: service.get(name) for name in HARDENED} == HARDENED
    assert service["EnvironmentFile"] == "/etc/signalbox/environment" and reader["Install"]["WantedBy"] == "multi-user.target"


def test_there_is_a_unit_for_each_process() -> None:
    assert [path.stem for path in UNITS] == ["signalbox-engine@", "signalbox-jobs", "signalbox-web"]
