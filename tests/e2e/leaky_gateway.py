"""`ferserve` with a leak planted: of every photo some bytes stay behind. For the test that the memory check sees it."""

import os
from functools import partial
from pathlib import Path

import leaky_zygote

from ferserve.serving import cli
from ferserve.serving.preparers import starting

if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    starting.Nursery = partial(starting.Nursery, program=leaky_zygote.__name__)
    cli.main()
