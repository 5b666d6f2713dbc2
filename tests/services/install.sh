#!/bin/sh
# What `make test-services` needs of Debian. A missing tool is a failure, never a skip.
set -eu
if command -v promtool >/dev/null && command -v prometheus >/dev/null; then exit 0; fi
if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo"; fi
$sudo apt-get update -qq
# The tests start a Prometheus of their own; Debian's need not run.
$sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
  apt-get install -y -qq --no-install-recommends prometheus
