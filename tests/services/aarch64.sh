#!/bin/sh
# What the runtime needs on aarch64, under .venv/aarch64: Debian's Python in root/, from the system's
# own package sources, and the wheels of constraints.txt in site/. The system is not changed.
set -eu
cd "$(dirname "$0")/../.."
home="$PWD/.venv/aarch64"
sources="constraints.txt tests/services/aarch64.sh"
# shellcheck disable=SC2086 # two words
if cat $sources | cmp -s - "$home/sources"; then exit 0; fi
rm -rf "$home"
mkdir -p "$home/root/proc" "$home/apt/lists/partial" "$home/apt/archives/partial"

arm64() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Debug::NoLocking=true \
    -o APT::Sandbox::User=root -o Dir::State="$home/apt" -o Dir::State::status="$home/apt/status" \
    -o Dir::Cache="$home/apt" "$@"
}
: >"$home/apt/status"
arm64 update
arm64 install --yes --no-install-recommends --download-only python3 libstdc++6
for package in "$home"/apt/archives/*.deb; do dpkg-deb --extract "$package" "$home/root"; done
rm -rf "$home/apt"

version="$(readlink "$home/root/usr/bin/python3")"
.venv/bin/python -m pip --disable-pip-version-check install --quiet --target "$home/site" \
  --python-version "${version#python}" --only-binary=:all: --constraint constraints.txt \
  --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 \
  numpy pillow pydantic safetensors simplejpeg

# qemu-user shows the processor that it runs on; this is a Raspberry Pi 4's.
cat >"$home/root/proc/cpuinfo" <<'END'
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

END
# shellcheck disable=SC2086 # two words
cat $sources >"$home/sources"
