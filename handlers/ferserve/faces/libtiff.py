"""libtiff's own voice: it writes a line to standard error for each oddity of a file, past every setting of logging.

Whoever sends pictures could fill a gateway's log with it, and one that is JSON would not be JSON any more. What is
wrong with a file reaches its sender as an error all the same.
"""

import ctypes

from PIL import _imaging


def silence_libtiff() -> bool:
    """Take away the functions that libtiff in this process writes with; whether that could be done."""
    try:
        library = ctypes.CDLL(_imaging.__file__)  # a look-up in it finds what it is linked with, too
        handlers = library.TIFFSetErrorHandler, library.TIFFSetWarningHandler
    except (AttributeError, OSError):  # a Pillow with libtiff built into it: nothing to get hold of
        return False
    for set_handler in handlers:
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)
    return True
