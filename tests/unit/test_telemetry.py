"""ONNX Runtime keeps and sends nothing about this machine."""

import os
import subprocess
import sys

SCORE = """
import numpy as np
from ferserve.faces.detectors import default_detector
from ferserve.faces.index import open_archive
from ferserve.faces.session import ScoringSession

default_detector().detect(np.zeros((64, 64, 3), np.uint8))
session = ScoringSession.from_archive(open_archive("default"))
assert session.score(np.zeros((1, *session.crop_shape), np.uint8)).shape == (1, 7)
"""


def test_onnx_runtime_leaves_no_device_id_and_no_events_behind(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    environment.pop("CI", None)  # where it is quiet anyway
    run = subprocess.run(
        [sys.executable, "-c", SCORE],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment | {"HOME": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.rglob("*")) == []
