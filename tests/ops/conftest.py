"""The tools of operators, as Debian and PyPI ship them."""

import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "k8s" / "components" / "monitoring"


def program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is missing: run tests/system_packages.sh"
    return found


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def rules_file() -> Path:
    return MONITORING / "rules.yaml"


@pytest.fixture(scope="session")
def rule_groups(rules_file) -> list[dict]:
    return yaml.safe_load(rules_file.read_text(encoding="utf-8"))["groups"]


@pytest.fixture(scope="session")
def alerts(rule_groups) -> dict[str, dict]:
    return {rule["alert"]: rule for group in rule_groups for rule in group["rules"] if "alert" in rule}


@pytest.fixture(scope="session")
def promtool() -> str:
    return program("promtool")
