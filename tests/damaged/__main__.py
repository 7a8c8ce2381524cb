"""`python -m tests.damaged`: what is in the corpus, and its files with `--out`. Nothing of it is ever committed."""

import argparse
import hashlib
import sys
from collections import defaultdict
from pathlib import Path

from tests.damaged.corpus import corpus, sample
from tests.damaged.inputs import HttpRequest, Message, Picture, RawConnection, RpcMessage, RpcStream


def main() -> None:
    """Make every input once; print count, bytes and SHA-256 of each kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.damaged", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="a sample of about so many; all without it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write each input as a file")
    arguments = parser.parse_args()
    inputs = corpus(arguments.seed) if arguments.count is None else sample(arguments.count, arguments.seed)
    sizes: dict[str, list[int]] = defaultdict(list)
    digests = defaultdict(hashlib.sha256)
    for one in sorted(inputs, key=lambda one: (one.kind, one.index)):
        data = as_bytes(one.make())
        sizes[one.kind].append(len(data))
        digests[one.kind].update(data)
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / f"{one.kind.replace(' ', '-')}-{one.index:03d}").write_bytes(data)
    for kind, found in sizes.items():
        sys.stdout.write(f"{kind:18}{len(found):6}{sum(found):14}  {digests[kind].hexdigest()[:16]}\n")
    sys.stdout.write(f"{'all':18}{len(inputs):6}{sum(map(sum, sizes.values())):14}\n")


def as_bytes(message: Message) -> bytes:
    """What of a message is made up: a stream's frames one after the other."""
    match message:
        case Picture() | RpcMessage():
            return message.data
        case HttpRequest() | RawConnection():
            return b"".join(message.pieces)
        case RpcStream():
            return b"".join(message.frames)


if __name__ == "__main__":
    main()
