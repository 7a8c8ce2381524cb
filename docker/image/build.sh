#!/bin/sh
# build.sh ENVIRONMENT ROOT: from an environment with ferserve in it the root file system of an image. The environment loses
# what installs packages, and what nothing loads.
set -eu

environment="$1"
root="$2"
here=$(dirname "$0")

"$environment/bin/python" -m pip uninstall --quiet --yes setuptools pip
"$environment/bin/python" "$here/slim.py"
"$environment/bin/python" "$here/licences.py" > "$environment/LICENCES.txt"
"$environment/bin/python" "$here/root.py" "$root"
