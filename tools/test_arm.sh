#!/usr/bin/env bash
# Runs the tests of hobot_dnn, libdnn, NV12 and frames on aarch64, under QEMU: hobot_dnn is then the
# vendor's own binary from PyPI, on the emulated libdnn. All of it lies in a folder that is removed in the
# end; Debian's packages are unpacked there, and apt's own state on this machine stays untouched.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  echo "test-arm: SKIPPED: $1"
  exit 0
}

[ "$(uname -sm)" = "Linux x86_64" ] || skip "this machine is no x86-64 Linux, but $(uname -sm)"
for tool in apt-get dpkg-deb readelf; do
  command -v "$tool" >/dev/null || skip "$tool is not installed"
done
python -m pip --version >/dev/null 2>&1 || skip "pip is not installed"

folder=$(mktemp -d "${TMPDIR:-/tmp}/repghost_arm.XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
root=$folder/root site=$folder/site libraries=$folder/lib debs=$folder/cache/archives
mkdir -p "$root" "$libraries" "$debs/partial" "$folder/state/lists/partial"
touch "$folder/status"
cat >"$folder/apt.conf" <<CONF
Dir::State "$folder/state";
Dir::State::status "$folder/status";
Dir::Cache "$folder/cache";
APT::Architecture "arm64";
APT::Architectures {"arm64"; "amd64";};
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF

export APT_CONFIG=$folder/apt.conf

log=$folder/log
apt-get update -qq >"$log" 2>&1 || skip "apt-get update failed: $(tail -n 1 "$log")"
apt-get install -qq -y --download-only python3.11 libstdc++6 >"$log" 2>&1 ||
  skip "Debian's python3.11 for arm64 is not to be had: $(tail -n 1 "$log")"
(cd "$debs" && apt-get download -qq qemu-user-static:amd64 >"$log" 2>&1) ||
  skip "qemu-user-static is not to be had: $(tail -n 1 "$log")"
dpkg-deb --fsys-tarfile "$debs"/qemu-user-static_*.deb | tar -x -C "$folder" ./usr/bin/qemu-aarch64-static
rm "$debs"/qemu-user-static_*.deb
for deb in "$debs"/*.deb; do
  dpkg-deb -x "$deb" "$root"
  rm "$deb"
done

arm=(--platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 --python-version 3.11)
pip=(python -m pip install -q --disable-pip-version-check --no-deps --no-compile)
"${pip[@]}" --target "$site" --only-binary=:all: "${arm[@]}" -r tools/requirements-arm.txt >"$log" 2>&1 ||
  skip "PyPI's packages for aarch64 are not to be had: $(grep -m 1 ERROR "$log")"
"${pip[@]}" --target "$folder/zig" ziglang==0.13.0 >"$log" 2>&1 ||
  skip "PyPI's ziglang is not to be had: $(grep -m 1 ERROR "$log")"

# The cross-compiler: zig brings the headers and stubs of every glibc along.
export ZIG_GLOBAL_CACHE_DIR=$folder/zig-cache ZIG_LOCAL_CACHE_DIR=$folder/zig-cache
compiler="$folder/zig/ziglang/zig cc -target aarch64-linux-gnu.2.36"
python - "$libraries" $compiler <<'PROGRAM'
import sys
from pathlib import Path
from emulator.board import build
build(Path(sys.argv[1]), sys.argv[2:])
PROGRAM
# The compiled helper, under the name by which Debian's Python looks for it.
helper=repghost_ros/native/compiled.cpython-311-aarch64-linux-gnu.so
trap 'rm -rf "$folder" "$helper"' EXIT
# shellcheck disable=SC2086
$compiler -std=gnu11 -O3 -Wall -Wextra -Werror -ffp-contract=off -shared -fPIC -o "$helper" repghost_ros/native/*.c -lm
# The binding links libraries of the board that it needs for other things than running models.
$compiler -shared -nostdlib -o "$folder/empty.so" -x c /dev/null
for library in $(readelf -d "$site/hobot_dnn_rdkx5/pyeasy_dnn.so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
  [ -e "$root/usr/lib/aarch64-linux-gnu/$library" ] || [ -e "$root/lib/aarch64-linux-gnu/$library" ] ||
    [ -e "$libraries/$library" ] || cp "$folder/empty.so" "$libraries/$library"
done

# What starts a process of its own cannot run here, for QEMU is not registered with the kernel, nor what
# compiles the helper again, for the compiler makes it for this machine.
"$folder/usr/bin/qemu-aarch64-static" -L "$root" \
  -E LD_LIBRARY_PATH="$libraries" -E PYTHONPATH="$site" -E PYTHONDONTWRITEBYTECODE=1 \
  -E REPGHOST_EMULATOR="$libraries/libdnn.so" "$root/usr/bin/python3.11" -m pytest -q \
  -p no:cacheprovider --timeout=300 \
  -k "not loaders_path and not structures_are and not whichever_allocation_fails" \
  test/test_vendor_python.py test/test_libdnn.py test/test_native.py test/test_nv12.py test/test_frame.py

# Which loops gcc, which builds the helper on the board, vectorizes; zig is clang.
cross=$folder/cross
(cd "$debs" && apt-get download -qq {gcc,cpp}-12-aarch64-linux-gnu:amd64 libgcc-12-dev-arm64-cross \
  {libc6-dev,linux-libc-dev}-arm64-cross {libisl23,libmpc3,libmpfr6,libgmp10}:amd64 >"$log" 2>&1) ||
  skip "Debian's gcc for aarch64 is not to be had: $(tail -n 1 "$log")"
for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$cross"; done
gcc="env LD_LIBRARY_PATH=$cross/usr/lib/x86_64-linux-gnu $cross/usr/bin/aarch64-linux-gnu-gcc-12"
gcc+=" -B$cross/usr/lib/gcc-cross/aarch64-linux-gnu/12/ -isystem $cross/usr/aarch64-linux-gnu/include"
REPGHOST_CROSS_GCC=$gcc python -m pytest -q -p no:cacheprovider test/test_native_build.py -k neon
