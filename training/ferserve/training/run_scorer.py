"""A finished run as a scorer: its best weights in torch, calibrated as its archive would be."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ferserve.training.evaluate import predict_logits
from ferserve.training.finish import Calibration, load_best
from ferserve.training.recipe import Recipe
from ferserve.training.scorers import Scorer


def open_run(folder: Path, *, threads: int) -> Scorer:
    """The run in a folder.

    Raises:
        DataError: it is not finished.
    """
    torch.set_num_threads(threads)
    recipe = Recipe.read(folder / "recipe.json")
    calibration = Calibration.read(folder)
    net, _ = load_best(folder, recipe)
    net.fold_norms()

    def score(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = predict_logits(net, torch.from_numpy(np.ascontiguousarray(crops)), size_px=recipe.final_size_px)
        return np.asarray(calibration.scaling.scores(logits), np.float32)

    sha256 = hashlib.sha256((folder / "best.pt").read_bytes()).hexdigest()
    return Scorer(
        name=str(folder),
        model=recipe.name,
        version=recipe.version,
        recipe_sha256=recipe.sha256,
        sha256=sha256,
        spec=recipe.preprocess,
        precision="fp32",
        uncertain_below=calibration.uncertain_below,
        score=score,
    )
