"""Campaigns of active learning as `build` leaves them, of made-up faces."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ferserve.faces.preprocess import PreprocessSpec


def write_campaign(folder: Path, crops: np.ndarray, *, spec: PreprocessSpec | None = None, shards: int = 2) -> None:
    """A finished build of crops (N, S, S, C), spread over shards; the pictures themselves are gone."""
    spec = spec or PreprocessSpec(size_px=crops.shape[1], channels=crops.shape[3])
    (folder / "shards").mkdir(parents=True)
    settings = {"source": str(folder / "gone"), "preprocess": asdict(spec)}
    web = {"settings": settings, "is_finished": True, "pictures": len(crops) + 1, "dropped": {"no_face": 1}}
    (folder / "web.json").write_text(json.dumps(web))
    for shard, part in enumerate(np.array_split(crops, shards)):
        np.savez(
            folder / "shards" / f"{shard:06d}.npz",
            crops=part, bits=np.zeros((len(part), 4), np.uint64), squares=np.full((len(part), 2), 10 + 10j),
        )  # fmt: skip
        rows = [
            {"picture": f"{shard}-{row}.jpg", "status": "kept", "id": f"{shard:06d}-{row:04d}"}
            for row in range(len(part))
        ]
        (folder / "shards" / f"{shard:06d}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
