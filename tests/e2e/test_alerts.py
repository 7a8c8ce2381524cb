"""Two gateways behind a real Envoy, a real Prometheus and a real Alertmanager: who is woken when one of them dies."""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import httpx
import pytest
import skimage.data
import yaml

from ferserve.faces.errors import FerserveError
from ferserve.serving.client import Client, ClientConfig

pytestmark = [pytest.mark.e2e, pytest.mark.long]
ROOT = Path(__file__).parents[2]
RULES = ROOT / "k8s" / "components" / "monitoring" / "rules.yaml"
ENVOY_CONFIG = ROOT / "k8s" / "components" / "envoy" / "envoy-config.yaml"
ENVOY = ROOT / ".cache" / "ops" / "envoy" / "bin" / "envoy"
FIRES_AFTER_S, SLACK_S = 180.0, 60.0
"""`for` of FerserveGatewayDown, and what scrapes, evaluations and a busy machine may add."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def until(true: Callable[[], bool], within_s: float, what: str) -> None:
    give_up_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < give_up_s, f"not within {within_s} s: {what}"
        time.sleep(0.2)


class Webhook:
    """Takes what Alertmanager sends: alerts by name and status."""

    def __init__(self) -> None:
        self.came: list[tuple[str, str]] = []
        came = self.came

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                came.extend((alert["labels"]["alertname"], alert["status"]) for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments): ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def run(tmp_path):
    """Start programs whose settings are files; they are stopped after the test."""
    running = []

    def start(program: str | Path, *arguments: str) -> None:
        assert shutil.which(program), f"{program} is missing: run tests/system_packages.sh and tests/ops/tools.sh"
        with (tmp_path / f"{Path(program).name}.log").open("wb") as log:
            running.append(subprocess.Popen([str(program), *arguments], stdout=log, stderr=log, cwd=tmp_path))

    yield start
    for process in running:
        process.terminate()
    for process in running:
        process.wait(30)


def write(file: Path, content: object) -> str:
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(file)


def envoy_settings(folder: Path, gateways: list[int], *, grpc: int, ready: int) -> str:
    """The settings that ship, with this machine's addresses."""
    settings = yaml.safe_load(ENVOY_CONFIG.read_text(encoding="utf-8"))
    settings["admin"]["address"]["socket_address"]["port_value"] = free_port()
    for listener, port in zip(settings["static_resources"]["listeners"], (grpc, ready), strict=True):
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    (cluster,) = settings["static_resources"]["clusters"]
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in gateways
    ]
    return write(folder / "envoy.yaml", settings)


def prometheus_settings(folder: Path, gateways: list[int], *, alertmanager: int) -> str:
    settings = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [str(RULES)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]},
        "scrape_configs": [
            {"job_name": "ferserve", "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in gateways]}]}
        ],
    }
    return write(folder / "prometheus.yaml", settings)


def alertmanager_settings(folder: Path, webhook: Webhook) -> str:
    settings = {
        "route": {"receiver": "test", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "1s"},
        "receivers": [{"name": "test", "webhook_configs": [{"url": webhook.url, "send_resolved": True}]}],
    }
    return write(folder / "alertmanager.yaml", settings)


def answered(admin_port: int) -> int:
    text = httpx.get(f"http://127.0.0.1:{admin_port}/metrics").text
    lines = (
        line for line in text.splitlines() if line.startswith('ferserve_requests_total{code="OK",method="Analyze"')
    )
    return sum(int(float(line.split()[-1])) for line in lines)


def test_the_death_of_one_gateway_wakes_for_that_alone_and_callers_hardly_notice(
    start_gateway, tiny_archive, run, tmp_path
):
    ports = [(free_port(), free_port()) for _ in range(2)]
    flags = [
        (f"--model={tiny_archive}", f"--grpc-port={grpc}", f"--admin-port={admin}", "--threads=1")
        for grpc, admin in ports
    ]
    gateways = [start_gateway(*each) for each in flags]
    webhook, grpc, ready, alertmanager, web = Webhook(), *(free_port() for _ in range(4))
    run(ENVOY, "-c", envoy_settings(tmp_path, [port for port, _ in ports], grpc=grpc, ready=ready), "-l", "warning")
    run(
        "prometheus-alertmanager",
        f"--config.file={alertmanager_settings(tmp_path, webhook)}",
        f"--web.listen-address=127.0.0.1:{alertmanager}",
        "--cluster.listen-address=",
        f"--storage.path={tmp_path / 'alerts'}",
    )
    prometheus = prometheus_settings(tmp_path, [port for _, port in ports], alertmanager=alertmanager)
    run(
        "prometheus",
        f"--config.file={prometheus}",
        f"--web.listen-address=127.0.0.1:{web}",
        f"--storage.tsdb.path={tmp_path / 'series'}",
    )

    def is_ready() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{ready}/ready").status_code == 200
        return False

    until(is_ready, SLACK_S, "Envoy finds a gateway")
    small = cv2.resize(skimage.data.astronaut()[:, :, ::-1], (128, 128), interpolation=cv2.INTER_AREA)
    photo = cv2.imencode(".jpg", small)[1].tobytes()
    with Client(f"127.0.0.1:{grpc}", ClientConfig(timeout_s=30.0)) as client:
        for _ in range(40):
            client.analyze(photo)
        assert min(answered(admin) for _, admin in ports) >= 8

        gateways[0].process.kill()
        failed = 0
        for _ in range(100):
            try:
                client.analyze(photo)
            except FerserveError:
                failed += 1
        assert failed <= 10
        assert webhook.came == []
        fired = ("FerserveGatewayDown", "firing")
        until(lambda: fired in webhook.came, FIRES_AFTER_S + SLACK_S, "the alert fires")

        start_gateway(*flags[0])
        until(lambda: ("FerserveGatewayDown", "resolved") in webhook.came, SLACK_S * 2, "the alert is resolved")
        before = answered(ports[0][1])
        for _ in range(40):
            client.analyze(photo)
        assert answered(ports[0][1]) > before
    assert {name for name, _ in webhook.came} == {"FerserveGatewayDown"}
    webhook.stop()
