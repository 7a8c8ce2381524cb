"""A real Envoy in front of gateways, with the settings that ship."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).parents[2]
ENVOY_CONFIG = ROOT / "k8s" / "components" / "envoy" / "envoy-config.yaml"
ENVOY = ROOT / ".cache" / "ops" / "envoy" / "bin" / "envoy"
READY_WITHIN_S = 60.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def until(true: Callable[[], bool], within_s: float, what: str) -> float:
    """Wait until something is true; after how many seconds it was."""
    began_s = time.monotonic()
    while not true():
        assert time.monotonic() < began_s + within_s, f"not within {within_s} s: {what}"
        time.sleep(0.2)
    return time.monotonic() - began_s


def start(program: str | Path, *arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a program whose settings are files."""
    assert shutil.which(program), f"{program} is missing: run tests/system_packages.sh and tests/ops/tools.sh"
    with (folder / f"{Path(program).name}.log").open("wb") as log:
        return subprocess.Popen([str(program), *arguments], stdout=log, stderr=log, cwd=folder)


def write(file: Path, content: object) -> str:
    """Write settings; the file's path."""
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(file)


class Envoy:
    """Spreads calls over gateways.

    Args:
        gateways: their gRPC ports.
        folder: for settings and log.
        faults: settings of Envoy's fault filter, None for no faults.
        health_every_s: how often gateways are asked whether they serve; None for what ships.
    """

    def __init__(
        self,
        gateways: Sequence[int],
        folder: Path,
        *,
        faults: dict[str, Any] | None = None,
        health_every_s: float | None = None,
    ) -> None:
        grpc, ready = free_port(), free_port()
        self.target = f"127.0.0.1:{grpc}"
        self._ready = f"http://127.0.0.1:{ready}/ready"
        settings = yaml.safe_load(ENVOY_CONFIG.read_text(encoding="utf-8"))
        settings["admin"]["address"]["socket_address"]["port_value"] = free_port()
        listeners = settings["static_resources"]["listeners"]
        for listener, port in zip(listeners, (grpc, ready), strict=True):
            listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
        if faults is not None:
            kind = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
            filters = listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
            filters.insert(0, {"name": "envoy.filters.http.fault", "typed_config": {"@type": kind, **faults}})
        (cluster,) = settings["static_resources"]["clusters"]
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
            for port in gateways
        ]
        if health_every_s is not None:
            cluster["health_checks"][0] |= {
                "interval": f"{health_every_s}s",
                "no_traffic_interval": f"{health_every_s}s",
            }
        self.process = start(ENVOY, "-c", write(folder / "envoy.yaml", settings), "-l", "warning", folder=folder)

    def wait_until_ready(self) -> None:
        """Until it has found a gateway that serves."""
        until(self._is_ready, READY_WITHIN_S, "Envoy finds a gateway")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)

    def _is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(self._ready).status_code == 200
        return False
