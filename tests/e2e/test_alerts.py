"""Two gateways behind a real Envoy, a real Prometheus and a real Alertmanager: who is woken when one of them dies."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import httpx
import pytest
import skimage.data
from tests.e2e.proxies import free_port, start, until, write

from ferserve.faces.errors import FerserveError
from ferserve.serving.client import Client, ClientConfig

pytestmark = [pytest.mark.e2e, pytest.mark.long]
ROOT = Path(__file__).parents[2]
RULES = ROOT / "k8s" / "components" / "monitoring" / "rules.yaml"
FIRES_AFTER_S, SLACK_S = 180.0, 60.0
"""`for` of FerserveGatewayDown, and what scrapes, evaluations and a busy machine may add."""


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
    yield lambda program, *arguments: running.append(start(program, *arguments, folder=tmp_path))
    for process in running:
        process.terminate()
    for process in running:
        process.wait(30)


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
    start_gateway, start_envoy, tiny_archive, run, tmp_path
):
    ports = [(free_port(), free_port()) for _ in range(2)]
    flags = [
        (f"--model={tiny_archive}", f"--grpc-port={grpc}", f"--admin-port={admin}", "--threads=1")
        for grpc, admin in ports
    ]
    gateways = [start_gateway(*each) for each in flags]
    webhook, alertmanager, web = Webhook(), free_port(), free_port()
    envoy = start_envoy([port for port, _ in ports])
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

    envoy.wait_until_ready()
    small = cv2.resize(skimage.data.astronaut()[:, :, ::-1], (128, 128), interpolation=cv2.INTER_AREA)
    photo = cv2.imencode(".jpg", small)[1].tobytes()
    with Client(envoy.target, ClientConfig(timeout_s=30.0)) as client:
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

        def takes_part_again() -> bool:
            client.analyze(photo)
            return answered(ports[0][1]) > 0

        until(takes_part_again, SLACK_S, "Envoy gives the new gateway calls")
    assert {name for name, _ in webhook.came} == {"FerserveGatewayDown"}
    webhook.stop()
