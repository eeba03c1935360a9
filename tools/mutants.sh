#!/usr/bin/env bash
# Mutation tests: put one small fault after the other into a module, and see whether its tests fail.
#   tools/mutants.sh SAMPLE MODULE...     e.g. 100 native/pixels.c; what survives goes to build/mutants
set -euo pipefail
cd "$(dirname "$0")/.."

# Those that run all of a module's lines, the fastest first; of native_build only the run under sanitizers.
declare -A tests=(
  [engine/results.py]="results"
  [engine/pipeline.py]="pipeline mixed_batches"
  [vision/nv12.py]="nv12"
  [native/pixels.c]="nv12 native native_build"
  [native/convert.c]="native native_build"
)
sample=$1 results=$PWD/build/mutants
shift

copy=$(mktemp -d "${TMPDIR:-/tmp}/repghost_mutants.XXXXXX")
trap 'rm -rf "$copy"' EXIT
trap 'exit 130' INT TERM
{ git ls-files -co --exclude-standard && ls repghost_ros/native/*.so; } |
  tar c --ignore-failed-read -T - | tar x -C "$copy"
cd "$copy"
export PYTHONPATH=$PWD
# What a mutant loses never comes; the tests themselves wait longer, for the sake of busy machines.
sed -i 's/^WAIT = 60.0 /WAIT = 15.0 /' test/helpers/waiting.py

# A mutant that is compiled to the same as the module, or as a mutant before, is none.
cat >compile.sh <<'SCRIPT'
set -euo pipefail
native=repghost_ros/native options="-std=gnu11 -O1 -ffp-contract=off -fPIC -I$native"
case $1 in
*.c)
  gcc $options -x c -c - -o code <"$1"
  others=$(ls $native/*.c | grep -v "/$(basename "${1%%.*}").c")
  gcc $options -shared -Wl,-z,defs code $others -lm -o $native/compiled.*.so
  ;;
*) python tools/mutant_code.py "$1" >code ;;
esac
sum=$(sha256sum <code)
if grep -qF "$sum" known; then exit 1; fi
echo "$sum" >>known
SCRIPT

for module in "$@"; do
  folder=$results/$module source=repghost_ros/$module
  rm -rf "$folder" && mkdir -p "$folder"
  mutate "$source" --only tools/mutants.rules --noCheck --mutantDir "$folder" >"$folder/log"
  (cd "$folder" && printf '%s\n' *.mutant.* | sort | shuf --random-source=<(yes)) >order
  : >known && bash compile.sh "$source"
  # Of processor time, for loops in C that no signal ends.
  run="ulimit -t 100; pytest -qx -p no:cacheprovider --timeout 60 --hypothesis-profile mutants -k 'address or not native_build'"
  for name in ${tests[$module]}; do run+=" test/test_$name.py"; done
  (eval "$run") >>"$folder/log" 2>&1 || { cat "$folder/log" && exit 1; }
  # It stops before the last that it is asked for.
  analyze_mutants "$source" "$run" --fromFile order --noShuffle --numMutants $((sample + 1)) \
    --compileCommand "bash compile.sh MUTANT" --mutantDir "$folder" --prefix "$folder/tests" \
    --timeout 1200 >>"$folder/log"
  while read -r mutant; do
    diff -U0 --label "$module" --label "$mutant" "$source" "$folder/$mutant" || true
  done <"$folder/tests.notkilled.txt" | tee "$results/${module//\//_}.diff"
  tried=$(cat "$folder"/tests.*killed.txt | wc -l)
  [ "$tried" -lt "$sample" ] && of=all || of="a sample"
  echo "$module: $(wc -l <"$folder/tests.killed.txt") of $tried killed, $of of its mutants"
done
