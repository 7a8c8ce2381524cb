"""A run's epochs as TensorBoard reads them; the extra `tensorboard` brings what it takes."""

from pathlib import Path
from typing import Final

from ferserve.training.data.errors import DataError
from ferserve.training.engine import EpochRow

FOLDER: Final = "tensorboard"


class Board:
    """Writes one point an epoch into `tensorboard/` of a run's folder.

    Args:
        next_epoch: what a resumed run goes on with; points from there on, of a run that was killed, are dropped.
    Raises:
        DataError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, next_epoch: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 -- an extra, loaded when it is asked for
        except ImportError as error:
            raise DataError(
                f"--tensorboard: expected TensorBoard to be installed ({error}): pip install 'ferserve[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=next_epoch)

    def add(self, row: EpochRow) -> None:
        """Write an epoch, and let it be seen at once."""
        values = {
            "loss/training": row.loss,
            "loss/validation": row.validation_loss,
            "accuracy/validation": row.accuracy,
            "rate": row.rate,
            "seconds": row.seconds,
        }
        for name, value in values.items():
            self._writer.add_scalar(name, value, row.epoch)
        self._writer.flush()
