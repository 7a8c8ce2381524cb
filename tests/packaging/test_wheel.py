"""The wheel as a user gets it: one name in site-packages, no torch, and a server that answers."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import cv2
import pytest
import skimage.data

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.packaging


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (path,) = folder.glob("ferserve-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--constraint", str(ROOT / "constraints.txt"), f"{wheel}[serving]"]
    subprocess.run(command, check=True, timeout=600)
    return python


def test_wheel_holds_exactly_ferserve(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ferserve"}
    # One would hide the other portions of the namespace.
    assert "ferserve/__init__.py" not in names
    portions = ("faces", "handlers", "serving", "torchserve", "training", "v1")
    for portion in portions:
        assert f"ferserve/{portion}/__init__.py" in names
    assert "ferserve/faces/py.typed" in names
    assert "ferserve/faces/assets/index.json" in names
    assert {"ferserve/serving/web/index.html", "ferserve/serving/web/main.js"} <= set(names)
    assert "ferserve/handlers/entry/ferserve_entry.py" in names
    assert wheel.stat().st_size < 36 * 2**20


def test_empty_environment_has_no_torch_and_knows_its_verbs(installed):
    listed = subprocess.run(
        [str(installed), "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, timeout=60
    )
    packages = {entry["name"].lower() for entry in json.loads(listed.stdout)}
    assert not packages & {"torch", "onnxscript", "onnx", "torchvision"}
    command = [str(installed.with_name("ferserve")), "--help"]
    verbs = subprocess.run(command, check=True, capture_output=True, timeout=60, text=True).stdout
    assert "serve" in verbs
    missing = subprocess.run(
        [command[0], "train", "mobilenet"], check=False, capture_output=True, timeout=60, text=True
    )
    assert missing.returncode == 2
    assert "ferserve[training]" in missing.stderr


def test_installed_server_answers_and_ends_cleanly(installed, tmp_path):
    face = cv2.imencode(".png", skimage.data.astronaut()[:, :, ::-1])[1].tobytes()
    command = [str(installed.with_name("ferserve")), "serve", "--grpc-port=0", "--http-port=0", "--admin-port=0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FERSERVE_")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as server:
        try:
            address = _http_address(server)
            request = urllib.request.Request(
                f"{address}/v1/images:analyze", data=face, headers={"Content-Type": "image/png"}
            )
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=30)
    assert len(answer["faces"]) == 1
    assert server.returncode == 0


def _http_address(server):
    """The address that the server prints once it is ready."""
    for line in server.stdout:
        if "http://" in line and "REST" in line:
            return next(word for word in line.split() if word.startswith("http://")).rstrip("/")
    pytest.fail("the server ended without an address")
