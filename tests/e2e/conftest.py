"""A real `ferserve serve` with the default archive, in a process of its own on free loopback ports."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.proxies import Envoy


class Served:
    """A running gateway and where it listens; `grpc` is host:port, `rest` and `admin` are http:// addresses.

    What it writes to standard error goes into the file `log`.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FERSERVE_")}
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
        addresses = dict(self._announced())
        self.grpc, self.rest, self.admin = (addresses[name] for name in ("gRPC", "REST", "admin"))

    def _announced(self) -> Iterator[tuple[str, str]]:
        for line in self.process.stdout:
            name, _, address = line.strip().partition(" ")
            yield name, address
            if name == "admin":
                return
        pytest.fail(f"the gateway ended with {self.process.wait()} before it was ready")

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture(scope="session")
def ferserve_command() -> str:
    """Path of the installed command."""
    return str(Path(sys.executable).with_name("ferserve"))


@pytest.fixture(scope="module")
def start_gateway(ferserve_command, tmp_path_factory) -> Iterator[Callable[..., Served]]:
    """Starts gateways with further arguments; all of them are stopped at the end.

    `launcher` stands in the place of the installed command: another program that takes its arguments.
    """
    running = []
    logs = tmp_path_factory.mktemp("logs")

    def start(*arguments: str, launcher: tuple[str, ...] = (ferserve_command,)) -> Served:
        ports = ("--grpc-port=0", "--http-port=0", "--admin-port=0")
        running.append(Served([*launcher, "serve", *ports, *arguments], logs / f"{len(running)}.txt"))
        return running[-1]

    yield start
    for served in running:
        served.stop()


@pytest.fixture(scope="module")
def served(start_gateway) -> Served:
    """One gateway for all tests of a module."""
    return start_gateway()


@pytest.fixture
def start_envoy(tmp_path) -> Iterator[Callable[..., Envoy]]:
    """Starts Envoys in front of gateways' gRPC ports; all of them are stopped at the end."""
    running = []

    def start(gateways: list[int], **settings: object) -> Envoy:
        running.append(Envoy(gateways, tmp_path, **settings))
        return running[-1]

    yield start
    for envoy in running:
        envoy.stop()


@pytest.fixture
def tell(capsys) -> Callable[[str], None]:
    """Writes a line past pytest's capture."""

    def write(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}\n")

    return write
