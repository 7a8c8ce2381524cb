"""A TCP proxy that can go silent, as a network does that was lost: nothing arrives, and nobody is told."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Wire:
    """Forwards connections to a port of this machine until it is cut; what is cut stays open and silent."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._cut = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listening]
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut.set()

    def mend(self) -> None:
        """New connections pass again; those of before stay dead."""
        self._cut = threading.Event()

    def close(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._target_port))
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(source, sink, self._cut), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if cut.is_set():
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def wire(target_port: int) -> Iterator[Wire]:
    made = Wire(target_port)
    yield made
    made.close()
