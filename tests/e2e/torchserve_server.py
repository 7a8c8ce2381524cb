"""A real TorchServe in an environment of its own: Java 17, and torch beside TorchServe (1.3 GB, built once)."""

import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".cache" / "torchserve-venv"
STARTED = "Model server started."
PORTS = ("grpc-port", "http-port", "management-grpc-port", "management-http-port", "metrics-port")


def built_venv() -> Path:
    """The environment, built unless it stands there for the same requirements; one process builds, the others wait."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = [project["dependencies"], project["optional-dependencies"]["torchserve"], project["entry-points"]]
    wanted = hashlib.sha256(json.dumps(parts).encode() + (ROOT / "constraints.txt").read_bytes())
    ready = VENV / ".ready"
    VENV.parent.mkdir(exist_ok=True)
    with (VENV.parent / "torchserve-venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.is_file() or ready.read_text() != wanted.hexdigest():
            subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True, timeout=120)
            pip = [str(VENV / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
            arguments = ["--constraint", str(ROOT / "constraints.txt"), "--editable", f"{ROOT}[torchserve]"]
            subprocess.run(pip + arguments, check=True, timeout=900)
            ready.write_text(wanted.hexdigest())
    return VENV


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class TorchServe:
    """A running server; `grpc` and `management` are host:port, `rest` is an http:// address. `start` starts it again.

    What it writes goes into the file `log`.
    """

    def __init__(self, folder: Path, archives: Sequence[str] = (), *options: str) -> None:
        ports = free_ports(len(PORTS))
        self.grpc, self.management = f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[2]}"
        self.rest = f"http://127.0.0.1:{ports[1]}"
        self.log = folder / "log.txt"
        command = [str(built_venv() / "bin" / "ferserve"), "torchserve", "serve", *archives, *options]
        self._command = [*command, f"--folder={folder / 'server'}"]
        self._command += [f"--{name}={port}" for name, port in zip(PORTS, ports, strict=True)]
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens; its workers may still be loading, requests wait for them."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FERSERVE_")}
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        listens = threading.Event()
        self._copier = threading.Thread(target=self._copy_log, args=(listens,), daemon=True)
        self._copier.start()
        if not listens.wait(timeout=120) or self.process.poll() is not None:
            pytest.fail(f"TorchServe did not start: {self.log.read_text()}")

    def _copy_log(self, listens: threading.Event) -> None:
        """Until the server and all its workers, which write to the same pipe, are gone."""
        assert self.process.stdout is not None
        with self.process.stdout as lines, self.log.open("ab", buffering=0) as log:
            for line in lines:
                log.write(line)
                if STARTED in line.decode(errors="replace"):
                    listens.set()
        listens.set()

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self._copier.join(timeout=60)
        assert not self._copier.is_alive(), "a worker outlived its server"
        return code
