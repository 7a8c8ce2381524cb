"""Environment variables of a worker; TorchServe hands its own environment on to its workers."""

from typing import Final

DETECTOR: Final = "FERSERVE_HANDLER_DETECTOR"
"""What searches photos, as `--detector` of the gateway."""
PRECISION: Final = "FERSERVE_HANDLER_PRECISION"
"""What a GPU computes in: `auto` (the default), `fp32` or `fp16`; see `ferserve.handlers.scorer`."""
THREADS: Final = "OMP_NUM_THREADS"
"""torch's own. Without it a worker on the CPU computes on one thread, as the gateway does: a second worker gains more
than a second thread, and on a busy machine threads that wait for each other took twenty times as long."""
