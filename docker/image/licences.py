"""Print the packages of this environment with their versions and licences: what an image is made of, one a line."""

import sys
from importlib.metadata import Distribution, distributions


def licence_of(package: Distribution) -> str:
    """The licence as the package states it: expression, else classifier, else the first line of its own text."""
    stated = package.metadata
    classifiers = [line.rpartition(" :: ")[2] for line in stated.get_all("Classifier") or [] if "License ::" in line]
    text = (stated.get("License") or "").strip()
    return stated.get("License-Expression") or ", ".join(classifiers) or text.partition("\n")[0] or "not stated"


def main() -> None:
    """Write the list to standard output."""
    lines = {f"{package.metadata['Name']} {package.version}: {licence_of(package)}" for package in distributions()}
    sys.stdout.writelines(f"{line}\n" for line in sorted(lines, key=str.lower))


if __name__ == "__main__":
    main()
