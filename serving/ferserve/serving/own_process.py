"""Programs of our own in processes of their own, which end with this one however this one ends.

Each is given one end of a socket, and ends when the other end, which is this process's, is closed.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""For a process that will be forked: NumPy's library starts threads when it is imported, and they do not survive it."""
_SAID: Final = {-number: number.name for number in signal.Signals}


def start_program(
    module: str, its: socket.socket, *inherited: int, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Run a module with the descriptor of its end of a socket as its first argument.

    Args:
        its: is closed here, whatever happens.
        inherited: further descriptors, its further arguments.
        environment: instead of this process's.
    Raises:
        OSError: no process can be started.
    """
    descriptors = [its.fileno(), *inherited]
    with its:
        # -P: a folder of pictures that happens to be the working one may hold a numpy.py.
        return subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", module, *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=2,  # standard output is this process's own; what the program has to say goes where errors go
            env=environment,
        )


def ending_text(code: int) -> str:
    """How a process ended, in words: its exit status, or less than 0 the signal that ended it."""
    if code >= 0:
        return f"ended with status {code}"
    return f"was ended by signal {-code} ({_SAID.get(code, 'unknown')})"
