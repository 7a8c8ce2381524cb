"""Write what is generated under k8s/: the dashboards as JSON, and the rules as the operator's PrometheusRule.

    python k8s/generate [DIR]        DIR stands in the place of k8s/components/monitoring

Needs grafana-foundation-sdk, whose version decides the output and is pinned in pyproject.toml's extra `test`.
"""

import json
import sys
from pathlib import Path

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from pages import PAGES
from panels import build

MONITORING = Path(__file__).resolve().parents[1] / "components" / "monitoring"
RULES = "rules.yaml"


def write(folder: Path) -> None:
    """Write every generated file into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        text = json.dumps(build(page).build(), cls=JSONEncoder, indent=1, sort_keys=True)
        (folder / f"{page.uid}.json").write_text(text + "\n", encoding="utf-8")
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "ferserve"},
        "spec": yaml.safe_load((MONITORING / RULES).read_text(encoding="utf-8")),
    }
    text = yaml.safe_dump(rule, sort_keys=False, width=120)
    text = f"# Written by `python k8s/generate` from {RULES}.\n{text}"
    (folder / "prometheus-rule.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else MONITORING)
