#!/bin/sh
# What the tests need from the system beyond Python. On Debian, as root, it is installed; elsewhere it is named.
set -eu

missing=""
command -v make >/dev/null || missing="$missing make"
"${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
command -v chromium >/dev/null || missing="$missing chromium fonts-dejavu-core"
command -v java >/dev/null || missing="$missing openjdk-17-jre-headless" # for TorchServe
command -v prometheus >/dev/null && command -v promtool >/dev/null || missing="$missing prometheus"
command -v prometheus-alertmanager >/dev/null || missing="$missing prometheus-alertmanager"

[ -z "$missing" ] && exit 0
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 -- one word a package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
else
    echo "please install:$missing" >&2
    exit 1
fi
