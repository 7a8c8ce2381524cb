"""No pixel reaches a disk or the log: a gateway that cannot write a single byte to a file answers as ever."""

import base64
import subprocess
import sys

import cv2
import httpx
import numpy as np
import pytest
import skimage.data

from ferserve.serving.client import Client

pytestmark = pytest.mark.e2e
NO_FILES = ("bash", "-c", 'exec 2> >(cat >&2); ulimit -f 0; exec "$@"', "launcher")
"""Any write to a file fails in what this starts, by the system's own limit; standard error goes through a pipe."""
LARGE_BYTES = 2 * 2**20
"""Beyond what web frameworks keep of an upload in memory before they spool it to a file."""


@pytest.fixture(scope="module")
def large_photo() -> bytes:
    """A face and so much noise beside it that the file is large."""
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    noise[:512, :512] = skimage.data.astronaut()[:, :, ::-1]
    encoded = cv2.imencode(".png", noise)[1].tobytes()
    assert len(encoded) > LARGE_BYTES
    return encoded


@pytest.fixture(scope="module")
def unable_to_write(start_gateway, ferserve_command, tiny_archive):
    return start_gateway("--model", str(tiny_archive), launcher=(*NO_FILES, ferserve_command))


def test_the_limit_holds(tmp_path):
    file = tmp_path / "file"
    command = [*NO_FILES, sys.executable, "-c", f"import pathlib; pathlib.Path({str(file)!r}).write_text('x')"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert "File too large" in run.stderr
    assert file.stat().st_size == 0


def test_every_way_to_send_a_photo_works_without_a_file(unable_to_write, large_photo):
    url = f"{unable_to_write.rest}/v1/images:analyze"
    batch = f"{unable_to_write.rest}/v1/images:batchAnalyze"
    text = base64.b64encode(large_photo).decode()
    answers = [
        httpx.post(url, content=large_photo, headers={"content-type": "image/png"}, timeout=60),
        httpx.post(url, files={"image": ("secret-name.png", large_photo, "image/png")}, timeout=60),
        httpx.post(url, json={"image": text}, timeout=60),
        httpx.post(batch, files=[("images", (f"{n}.png", large_photo, "image/png")) for n in range(3)], timeout=60),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert "error" not in answers[3].text
    with Client(unable_to_write.grpc) as client:
        client.analyze(large_photo, timeout_s=60)
        client.classify([large_photo], timeout_s=60)
        assert [reply.id for reply in client.stream([(1, large_photo)])] == [1]


def test_the_log_holds_nothing_of_what_was_sent(unable_to_write, large_photo):
    url = f"{unable_to_write.rest}/v1/images:analyze"
    httpx.post(url, content=large_photo[:5000], headers={"content-type": "image/png"}, timeout=60)
    httpx.post(url, files={"image": ("secret-name.png", b"no picture", "image/png")}, timeout=60)
    assert unable_to_write.stop() == 0
    said = unable_to_write.log.read_text(encoding="utf-8")
    assert said.strip()
    for part in ("secret-name", "PNG", "no picture", base64.b64encode(large_photo[:60]).decode()):
        assert part not in said
    assert all(len(line) < 1000 for line in said.splitlines())
