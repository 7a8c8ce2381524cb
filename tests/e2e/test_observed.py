"""A real Prometheus scrapes a real gateway under a little load: every rule and every panel has something to say."""

import json
import math
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import cv2
import httpx
import pytest
import skimage.data
import yaml
from tests.integration.certificates import HOSTS, authority, write

from ferserve.serving.client import ChannelTls, Client, ClientConfig
from ferserve.serving.errors import DeadlineError, OverloadedError

pytestmark = pytest.mark.e2e
MONITORING = Path(__file__).parents[2] / "k8s" / "components" / "monitoring"
PATIENCE_S = 60.0
PAUSE_S = 0.02
"""Between two requests of one caller: enough work for the gateway, and little for the machine."""
PHOTO_PX = 256
SETTINGS = """
[admission]
max_images = 2
[analyzer]
threads = 1
[embedded]
threads = 1
[log]
format = "json"
requests = true
"""
"""So little room that a few callers find the queue busy and some are refused."""
TLS_SETTINGS = """
[tls]
certificate_file = "{}"
key_file = "{}"
"""


class Prometheus:
    """A running server, asked over HTTP."""

    def __init__(self, folder: Path, target: str) -> None:
        program = shutil.which("prometheus")
        assert program, "prometheus is missing: run tests/system_packages.sh"
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(MONITORING / "rules.yaml")],
            "scrape_configs": [{"job_name": "ferserve", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        flags = {
            "config.file": folder / "prometheus.yaml",
            "storage.tsdb.path": folder / "data",
            "web.listen-address": address,
        }
        with (folder / "log.txt").open("wb") as log:
            arguments = [f"--{name}={value}" for name, value in flags.items()]
            self.process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
        self._client = httpx.Client(base_url=f"http://{address}", timeout=10)

    def values(self, expression: str) -> list[float]:
        """The values that an expression has now, numbers only."""
        try:
            answer = self._client.get("/api/v1/query", params={"query": expression})
        except httpx.TransportError:  # not listening yet
            return []
        assert answer.status_code in {200, 503}, f"{expression}: {answer.text}"
        results = answer.json()["data"]["result"] if answer.status_code == 200 else []
        return [value for value in (float(result["value"][1]) for result in results) if not math.isnan(value)]

    def stop(self) -> None:
        self._client.close()
        self.process.terminate()
        self.process.wait(30)


class Load:
    """Callers who send photos side by side, and now and then no picture, until told to stop."""

    def __init__(self, rest: str, grpc: str, ca_file: Path, photo: bytes) -> None:
        self._rest, self._grpc, self._photo = rest, grpc, photo
        self._trusting = ssl.create_default_context(cafile=ca_file)
        self._config = ClientConfig(tls=ChannelTls(ca_file=ca_file))
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(4)
        self._running = [self._threads.submit(self._call_rest, f"caller-{number}") for number in range(3)]
        self._running.append(self._threads.submit(self._call_grpc))

    def _call_rest(self, name: str) -> None:
        with httpx.Client(base_url=self._rest, timeout=60, verify=self._trusting) as client:
            for turn in count():
                headers = {"content-type": "image/jpeg", "x-request-id": f"{name}-{turn}"}
                content = b"no picture" if turn % 5 == 4 else self._photo
                client.post("/v1/images:analyze", content=content, headers=headers)
                if self._stop.wait(PAUSE_S):
                    return

    def _call_grpc(self) -> None:
        with Client(self._grpc, self._config) as client:
            while not self._stop.wait(PAUSE_S):
                with suppress(OverloadedError, DeadlineError):
                    client.analyze(self._photo)

    def stop(self) -> None:
        self._stop.set()
        with self._threads:
            for call in self._running:
                call.result(60)


@pytest.fixture(scope="module")
def loaded(start_gateway, tiny_archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("observed")
    ca, ca_file = authority(folder, "ca")
    server = write(ca.issue_cert(*HOSTS), folder, "server")
    settings = SETTINGS + TLS_SETTINGS.format(server.certificate, server.key)
    (folder / "ferserve.toml").write_text(settings, encoding="utf-8")
    gateway = start_gateway("--config", str(folder / "ferserve.toml"), "--model", str(tiny_archive))
    prometheus = Prometheus(folder, gateway.admin.removeprefix("http://"))
    small = cv2.resize(skimage.data.astronaut()[:, :, ::-1], (PHOTO_PX, PHOTO_PX), interpolation=cv2.INTER_AREA)
    load = Load(gateway.rest, gateway.grpc, ca_file, cv2.imencode(".jpg", small)[1].tobytes())
    yield gateway, prometheus
    try:
        load.stop()
    finally:
        prometheus.stop()


def expressions_of_rules() -> dict[str, str]:
    """By name; alerts with their thresholds out of the way: what they look at must be there before it is too much."""
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    found = {}
    for rule in (rule for group in groups for rule in group["rules"]):
        if "record" in rule:
            found[rule["record"]] = rule["expr"]
        elif "absent(" not in rule["expr"]:
            found[rule["alert"]] = re.sub(r"(<|>|==) [\d.]+(?=$|\n)", ">= 0", rule["expr"])
    return found


def expressions_of_panels() -> dict[str, str]:
    """By dashboard, panel and legend, with Grafana's variables filled in."""
    found = {}
    for path in sorted(MONITORING.glob("*.json")):
        page = json.loads(path.read_text(encoding="utf-8"))
        for panel in page["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"].replace("$__rate_interval", "1m").replace("$job", ".*")
                assert "$" not in query
                found[f"{page['title']}, {panel['title']}, {target['legendFormat']}"] = query
    return found


def test_every_rule_and_every_panel_has_data(loaded):
    _, prometheus = loaded
    silent = expressions_of_rules() | expressions_of_panels()
    assert len(silent) > 60
    give_up_s = time.monotonic() + PATIENCE_S
    while silent and time.monotonic() < give_up_s:
        silent = {name: query for name, query in silent.items() if not prometheus.values(query)}
        time.sleep(0.5)
    assert not sorted(silent)


def test_what_is_logged_of_requests_is_their_id_and_how_they_ended(loaded):
    gateway, _ = loaded
    lines = [json.loads(line) for line in gateway.log.read_text(encoding="utf-8").splitlines()]
    answered = [line for line in lines if line["message"] == "answered"]
    assert {"/v1/images:analyze", "Analyze"} <= {line["method"] for line in answered}
    assert any(re.fullmatch(r"caller-\d-\d+", line["request_id"]) for line in answered)
    known = {"time", "level", "logger", "message", "request_id", "method", "code", "duration_ms"}
    assert all(set(line) == known for line in answered)
