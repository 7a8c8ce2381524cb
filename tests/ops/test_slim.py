"""What the image leaves out nothing loads: an installation without it scores a folder."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import onnxruntime
import pyarrow as pa
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (cv2, onnxruntime, pa)
SCORE = """
import sys, cv2, onnxruntime, pyarrow
from ferserve.serving.cli import main
for package in (cv2, onnxruntime, pyarrow):
    assert package.__file__.startswith(sys.argv[1]), package.__file__
sys.argv = ["ferserve", *sys.argv[2:]]
main()
"""


def program():
    spec = importlib.util.spec_from_file_location("slim", ROOT / "docker" / "slim.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def linked(source: str, target: str) -> str:
    """A hard link where the file system can; the program only ever removes names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


@pytest.fixture
def slimmed(tmp_path):
    """The three packages as the image has them, and the bytes that they lost."""
    for package in PACKAGES:
        folder = Path(package.__file__).parent
        shutil.copytree(folder, tmp_path / folder.name, copy_function=linked, ignore=shutil.ignore_patterns("tests"))
    libraries = Path(cv2.__file__).parent.with_name("opencv_python_headless.libs")
    shutil.copytree(libraries, tmp_path / libraries.name, copy_function=linked)
    return tmp_path, program().slim(tmp_path)


def test_what_is_left_scores_a_folder_into_parquet_with_each_detector(slimmed, face_photo, tmp_path):
    packages, freed_bytes = slimmed
    assert freed_bytes > 80e6
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "face.jpg").write_bytes(face_photo)
    for detector in ("ferdet", "haar"):
        out = tmp_path / f"{detector}.parquet"
        arguments = ["score", str(photos), "--out", str(out), "--detector", detector, "--json"]
        run = subprocess.run(
            [sys.executable, "-c", SCORE, str(packages), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"PYTHONPATH": str(packages)},
        )
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["faces"] == 1
        assert out.is_file()


def test_a_package_that_has_changed_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected something at pyarrow/\*flight\*"):
        program().slim(tmp_path)
