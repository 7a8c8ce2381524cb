"""What is checked in under k8s/components/monitoring is what its program writes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "k8s" / "components" / "monitoring"


def test_dashboards_and_rules_are_those_that_the_program_writes(tmp_path):
    subprocess.run([sys.executable, str(ROOT / "k8s" / "generate"), str(tmp_path)], check=True, timeout=60)
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert len(written) == 4
    assert written == {name: (MONITORING / name).read_text(encoding="utf-8") for name in written}
