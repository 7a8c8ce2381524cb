"""What the images hold, built here by the very steps of the Dockerfile: small enough, and nothing needed is missing."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
import skimage.data

from ferserve.serving.client import Client

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
BUILD = ROOT / "docker" / "image" / "build.sh"
GATEWAY_MAX_BYTES = 400e6
BULK_MAX_BYTES = 500e6
NEEDED_OUTSIDE = ("/proc", "/sys", "/dev")
pytestmark = pytest.mark.packaging


def may_mount():
    """Whether this process may give a program mounts of its own, as root may outside of strict containers."""
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "--mount", "true"], check=False).returncode == 0


alone = pytest.mark.skipif(not may_mount(), reason="needs root's right to mount")


def installs(stage):
    """What the stage asks pip for, as in the Dockerfile."""
    (text,) = re.findall(rf"^FROM \S+ AS {stage}\n(.*?)(?:^FROM|\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL)
    (extras,) = re.findall(r"'\.(\[[a-z,]+\])'", text)
    return extras


def pip_install(python, what):
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--constraint", str(ROOT / "constraints.txt"), what], check=True, timeout=900)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    return next(folder.glob("ferserve-*.whl"))


@pytest.fixture(scope="module")
def roots(wheel, tmp_path_factory):
    """The file systems of the images `gateway` and `bulk`, and the environment's path in both."""
    folder = tmp_path_factory.mktemp("image")
    environment = folder / "opt" / "ferserve"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    pip_install(environment / "bin" / "python", f"{wheel}{installs('install')}")
    built = {}
    for name, stage in (("gateway", None), ("bulk", "bulk-build")):
        whole = folder / f"whole-{name}"
        shutil.copytree(environment, whole, symlinks=True)
        if stage is not None:
            pip_install(environment / "bin" / "python", f"{wheel}{installs(stage)}")
        built[name] = folder / name
        subprocess.run(["sh", str(BUILD), str(environment), str(built[name])], check=True, timeout=600)
        shutil.rmtree(environment)
        whole.rename(environment)
    return built, environment


def size_bytes(root):
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def inside(root, *command):
    """The command's words in a shell that has gone into the root, alone with its mounts, as the images' own user."""
    mounts = "".join(f"mount --rbind {each} {root}{each} && " for each in NEEDED_OUTSIDE)
    words = ["unshare", "--mount", "sh", "-c", f'{mounts}exec chroot --userspec=10001:10001 {root} "$@"', "sh"]
    return [*words, *map(str, command)]


@contextmanager
def serving(command):
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONDONTWRITEBYTECODE": "1"}) as server:
        try:
            addresses = {}
            while not {"gRPC", "REST", "admin"} <= addresses.keys():
                line = server.stdout.readline()
                assert line, f"the server ended with {server.poll()}"
                addresses |= dict([line.split()]) if len(line.split()) == 2 else {}
            yield addresses
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)
    assert server.returncode == 0


def astronaut():
    return cv2.imencode(".png", skimage.data.astronaut()[:, :, ::-1])[1].tobytes()


def test_the_images_are_small_and_hold_no_shell(roots):
    built, _environment = roots
    assert size_bytes(built["gateway"]) < GATEWAY_MAX_BYTES
    assert size_bytes(built["bulk"]) < BULK_MAX_BYTES
    for root in built.values():
        names = {path.name for path in root.rglob("*")}
        assert not names & {"sh", "bash", "dash", "pip", "apt", "dpkg", "setuptools", "torch"}


@alone
def test_the_gateway_serves_from_nothing_but_its_own_root(roots):
    built, environment = roots
    command = inside(
        built["gateway"], environment / "bin" / "ferserve", "serve", "--grpc-port=0", "--http-port=0", "--admin-port=0"
    )
    with serving(command) as addresses:
        for path in ("/docs", "/openapi.json", "/"):
            with urllib.request.urlopen(addresses["REST"] + path, timeout=60) as response:
                assert response.status == 200
        with urllib.request.urlopen(addresses["admin"] + "/metrics", timeout=60) as response:
            assert b"ferserve_build_info" in response.read()
        with Client(addresses["gRPC"]) as client:
            assert len(client.analyze(astronaut()).faces) == 1
    assert not list(built["gateway"].glob("**/.cache"))


@alone
@pytest.mark.parametrize("detector", ["ferdet", "haar"])
def test_the_image_for_folders_scores_one_into_parquet(roots, detector):
    built, environment = roots
    photos = built["bulk"] / "tmp" / detector
    photos.mkdir()
    (photos / "face.png").write_bytes(astronaut())
    command = ["score", f"/tmp/{detector}", "--out", f"/tmp/{detector}.parquet", "--detector", detector, "--json"]
    run = subprocess.run(
        inside(built["bulk"], environment / "bin" / "ferserve", *command),
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["faces"] == 1
    assert (built["bulk"] / "tmp" / f"{detector}.parquet").stat().st_size > 0


@alone
def test_the_images_list_the_archives_that_they_hold(roots):
    built, environment = roots
    command = inside(built["gateway"], environment / "bin" / "ferserve", "models", "--json")
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=os.environ)
    held = [archive["name"] for archive in json.loads(run.stdout)]
    assert held == ["mobilenet"]
    files = {path.name for path in built["gateway"].rglob("*.mar")}
    assert files == {f"{name}.mar" for name in held}


@alone
def test_the_gateways_image_says_what_it_lacks(roots):
    built, environment = roots
    command = inside(built["gateway"], environment / "bin" / "ferserve", "score", "/tmp", "--out", "/tmp/faces.parquet")
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=os.environ)
    assert run.returncode == 2
    assert "No module named 'pyarrow'" in run.stderr
    assert "ferserve[serving]" in run.stderr


def test_every_package_and_library_has_its_licence(roots):
    built, environment = roots
    for root in built.values():
        home = root / environment.relative_to("/")
        lines = (home / "LICENCES.txt").read_text(encoding="utf-8").splitlines()
        listed = {line.partition(" ")[0].lower().replace("-", "_") for line in lines}
        metadata = list(home.glob("lib/python3.*/site-packages/*.dist-info"))
        assert {path.name.partition("-")[0].lower() for path in metadata} <= listed
        assert {"python", "libc6", "libstdc++6", "ca_certificates"} <= listed
        assert not {"pip", "setuptools"} & listed
        texts = [Path(line.partition("(Debian): ")[2]) for line in lines if "(Debian): " in line]
        assert len(texts) > 5
        assert all((root / text.relative_to("/")).is_file() for text in texts)


def test_a_package_that_has_changed_is_named(tmp_path):
    spec = importlib.util.spec_from_file_location("slim", BUILD.with_name("slim.py"))
    slim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slim)
    with pytest.raises(FileNotFoundError, match=r"expected something at \*\*/tests in"):
        slim.slim(tmp_path)
