"""What a run writes for TensorBoard, read back by TensorBoard."""

import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ferserve.training.board import FOLDER, Board
from ferserve.training.data.errors import DataError
from ferserve.training.engine import EpochRow


def _row(epoch, accuracy):
    return EpochRow(
        epoch=epoch, input_size_px=48, rate=0.1, loss=1.5, accuracy=accuracy, validation_loss=1.2, seconds=3.0
    )


def test_epochs_are_read_back_and_a_resumed_run_drops_what_it_does_again(tmp_path):
    board = Board(tmp_path, next_epoch=1)
    board.add(_row(1, 0.25))
    board.add(_row(2, 0.5))
    Board(tmp_path, next_epoch=2).add(_row(2, 0.75))
    events = EventAccumulator(str(tmp_path / FOLDER))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("accuracy/validation")] == [(1, 0.25), (2, 0.75)]
    assert {"loss/training", "loss/validation", "rate", "seconds"} <= set(events.Tags()["scalars"])


def test_without_tensorboard_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DataError, match=r"pip install 'ferserve\[tensorboard\]'"):
        Board(tmp_path, next_epoch=1)
