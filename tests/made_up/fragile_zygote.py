"""The program that preparers are forked from, with preparers that marked pictures hurt. For tests of what is left."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ferserve.serving.preparer import PreparedPhoto, Preparer, Steps
from ferserve.serving.preparers import process, zygote

FATAL, STUCK, WRONG, ONCE = b"FATAL", b"STUCK", b"WRONG", b"ONCE "
"""At the end of a picture's bytes: it ends the process, never ends itself, is a fault of the program, or ends the
process unless the file exists that follows."""


class FragilePreparer(Preparer):
    """Looks at the last bytes of a picture first."""

    def photo(self, data: bytes, *arguments: Any, **named: Any) -> Steps[PreparedPhoto]:
        """Prepare a photo, if that is what it is."""
        yield
        if data.endswith(FATAL):
            os.kill(os.getpid(), signal.SIGSEGV)
        elif data.endswith(STUCK):
            time.sleep(600)
        elif data.endswith(WRONG):
            raise ZeroDivisionError("made up")
        elif ONCE in data:
            seen = Path(data.rpartition(ONCE)[2].decode())
            if not seen.exists():
                seen.touch()
                os._exit(7)
        return (yield from super().photo(data, *arguments, **named))


if __name__ == "__main__":
    process.Preparer = FragilePreparer
    zygote.main_program(sys.argv[1:])
