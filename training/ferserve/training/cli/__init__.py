"""The training verbs of the command line.

Each module holds one plain function, which `ferserve.serving.cli` turns into a command. torch is imported inside the
functions: `ferserve serve --help` must not wait for it.
"""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ImportError("this verb needs the training extra: pip install 'ferserve[training]'")
