"""What is written for another process is read as it was, in whatever pieces it comes."""

import pickle
import socket
import struct
import threading

import pytest

from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.faces.errors import InvalidImageError
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.serving.preparer import CropsWork, OcclusionWork, PhotoWork
from ferserve.serving.preparers.messages import Abandon, Begin, Connection, Frames, Said, frame
from ferserve.serving.preparers.protocol import PARKED
from ferserve.serving.requests import AnalyzeOptions, OcclusionQuestion

SPEC = PreprocessSpec(size_px=48, channels=1)
PHOTO = PhotoWork(data=b"picture", options=AnalyzeOptions(max_faces=3), spec=SPEC)


@pytest.fixture
def ends():
    ours, its = socket.socketpair()
    with ours, its:
        yield ours, its


def begin(work):
    return Begin(7, work, 1.5, 1000, parks=True)


@pytest.mark.parametrize(
    "work",
    [
        PHOTO,
        CropsWork(faces=(b"one", b"", b"three"), spec=SPEC),
        OcclusionWork(photo=PHOTO, question=OcclusionQuestion(face=1, grid=4)),
    ],
    ids=lambda work: type(work).__name__,
)
def test_work_arrives_as_it_was(ends, work):
    ours, its = ends
    for part in frame(begin(work)):
        ours.sendall(part)
    came = Connection(its).receive()
    assert came == begin(work)
    assert type(came.work) is type(work)


def test_a_picture_is_sent_from_where_it_lies_and_arrives_as_bytes(ends):
    ours, its = ends
    data = bytes(range(256)) * 2**14
    work = PhotoWork(data=data, options=AnalyzeOptions(), spec=SPEC)
    head, picture = frame(begin(work))
    assert len(head) < 1000
    assert picture.obj is data
    sender = threading.Thread(target=lambda: [ours.sendall(part) for part in (head, picture)])
    sender.start()  # it is more than fits into the socket
    came = Connection(its).receive()
    sender.join()
    assert came.work.data == data
    assert type(came.work.data) is bytes


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_messages_come_in_pieces(piece):
    sent = [Said(1, PARKED), Said(2, InvalidImageError("expected more")), Said(3, MemoryNeededError(5)), Abandon(4)]
    data = b"".join(part for message in sent for part in frame(message))
    frames, came = Frames(), []
    for first in range(0, len(data), piece):
        came += frames.messages(data[first : first + piece])
    assert came[0] == sent[0]
    assert came[0].outcome is PARKED
    assert (came[1].outcome.message, came[1].outcome.reason) == ("expected more", InvalidImageError.reason)
    assert came[2].outcome.needed_bytes == 5
    assert came[3] == Abandon(4)


def test_answers_have_nothing_beside_them():
    with pytest.raises(ValueError, match="without buffers, got 2"):
        list(Frames().messages(struct.pack("<QI", 5, 2) + b"12345"))


def test_the_end_of_the_other_side_is_an_error(ends):
    ours, its = ends
    connection = Connection(its)
    assert not connection.has_more()
    ours.sendall(frame(Abandon(1))[0][:6])
    assert connection.has_more()
    ours.close()
    with pytest.raises(EOFError):
        connection.receive()


def test_there_is_one_parked():
    assert pickle.loads(pickle.dumps(PARKED)) is PARKED
