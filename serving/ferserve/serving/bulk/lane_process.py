"""The program of a lane's process (`lane.ProcessLane` runs it): hears chunks of pictures, answers with rows.

Its one argument is the descriptor of a socket whose other end the run holds. It ends when that end is closed.
"""

import signal
import sys
from multiprocessing.connection import Connection

import cv2

from ferserve.faces.errors import FerserveError
from ferserve.serving.bulk.chunks import Answer, ChunkScorer
from ferserve.serving.cores import stand_back


def serve(connection: Connection) -> None:
    """Answer until the other side is gone."""
    try:
        scorer = ChunkScorer(connection.recv())
    except FerserveError as error:
        connection.send(error)
        return
    connection.send(None)
    while True:
        asks = connection.recv()
        try:
            answers: list[Answer] | FerserveError = scorer.score(asks)
        except FerserveError as error:  # the disk for crops: the run's end, not a picture's
            answers = error
        connection.send(answers)


def main(descriptor: int) -> None:
    """Be a lane's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the run too, and the run closes its end
    stand_back()
    cv2.setNumThreads(1)  # there is a process for every core
    try:
        serve(Connection(descriptor))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
