"""What images are built from, and what starts them on a laptop; tests/packaging/test_image.py builds their insides."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ferserve.faces.errors import FerserveError
from ferserve.serving.config import ServeConfig
from ferserve.serving.settings import read_settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def test_hadolint_has_nothing_to_say():
    command = [str(Path(sys.executable).with_name("hadolint")), "--no-color", str(ROOT / "Dockerfile")]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


def test_the_last_stages_are_not_root_and_check_their_health():
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    shipped = [stage for stage in stages if re.match(r"\S+ AS (gateway|bulk|torchserve)\n", stage)]
    assert len(shipped) == 3
    for stage in shipped:
        assert "USER 10001:10001" in stage
        assert "HEALTHCHECK" in stage
        assert "pip install" not in stage


def test_all_that_is_copied_is_let_in_and_nothing_else():
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert let_in == copied
    assert all((ROOT / path).exists() for path in copied)


def test_the_wheel_can_be_built_from_what_is_copied():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for needed in ("README.md", "LICENSE", "NOTICE"):
        assert needed in text
        assert f"!{needed}" in (ROOT / ".dockerignore").read_text(encoding="utf-8")


def test_the_list_of_licences_names_every_package_once():
    run = subprocess.run(
        [sys.executable, str(ROOT / "docker" / "image" / "licences.py")],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = run.stdout.splitlines()
    names = [line.partition(" ")[0].lower() for line in lines]
    assert {"numpy", "onnxruntime", "ferserve"} <= set(names)
    assert len(set(lines)) == len(lines)
    assert next(line for line in lines if line.startswith("ferserve ")).endswith("Apache-2.0")


def test_every_port_of_the_laptop_is_on_loopback():
    ports = [port for service in COMPOSE["services"].values() for port in service["ports"]]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_file_that_is_mounted_is_there_and_every_image_has_a_version():
    for service in COMPOSE["services"].values():
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists()


def test_the_gateways_variables_are_settings():
    environ = COMPOSE["services"]["gateway"]["environment"]
    assert read_settings(ServeConfig, file=None, environ=environ, flags={}).log.format == "json"
    with pytest.raises(FerserveError, match="FROMAT"):
        read_settings(ServeConfig, file=None, environ={"FERSERVE_LOG__FROMAT": "json"}, flags={})


def test_the_laptops_prometheus_takes_its_settings(promtool, tmp_path):
    text = (ROOT / "docker" / "prometheus.yaml").read_text(encoding="utf-8")
    (tmp_path / "prometheus.yaml").write_text(text, encoding="utf-8")
    rules = (ROOT / "k8s" / "components" / "monitoring" / "rules.yaml").read_text(encoding="utf-8")
    (tmp_path / "rules.yaml").write_text(rules, encoding="utf-8")
    command = [promtool, "check", "config", str(tmp_path / "prometheus.yaml")]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    (target,) = yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"gateway:{ServeConfig().admin.port}"
