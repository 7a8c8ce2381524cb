"""Take large archives that are not the default out of this environment, and out of the index that names them.

An image holds what is served unasked, and what costs it little; another archive is mounted and named by its path.
"""

import json
import sys
import sysconfig
from pathlib import Path

LARGE_BYTES = 5e6


def keep_small(assets: Path) -> list[str]:
    """Names of the archives that were taken out of a folder with an `index.json`."""
    index_file = assets / "index.json"
    index = json.loads(index_file.read_text(encoding="utf-8"))
    taken = []
    for name, entry in list(index["archives"].items()):
        file = assets / entry["file"]
        if name != index["default"] and file.stat().st_size > LARGE_BYTES:
            file.unlink()
            del index["archives"][name]
            taken.append(name)
    index_file.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return taken


if __name__ == "__main__":
    purelib = Path(sysconfig.get_path("purelib"))
    sys.stdout.write(f"archives left out: {', '.join(keep_small(purelib / 'ferserve' / 'faces' / 'assets'))}\n")
