"""Whether a worker works: it is, if it scores grey crops for real."""

import numpy as np

from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.workers.protocol import Worker, check_shape, grey_batch


async def prove(worker: Worker, *, faces: int = 1, timeout_s: float) -> None:
    """Have grey crops scored.

    Raises:
        WorkerFailedError: something else came back than a row of seven finite scores for each.
        TimeoutError: nothing came back in time.
    """
    batch = np.repeat(grey_batch(worker.describe().crop_shape), faces, axis=0)
    scores = await worker.infer(batch, timeout_s=timeout_s)
    check_shape(scores, faces)
    if not np.isfinite(scores).all():
        raise WorkerFailedError("expected finite scores of a grey crop, got NaN or infinity")
