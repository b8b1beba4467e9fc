#!/bin/sh
# Run the runtime's tests on a core built with a sanitizer: tools/sanitize.sh thread|address [pytest args]
set -e
cd "$(dirname "$0")/.."
kind=$1
shift
build=build/sanitize-$kind
cmake -S . -B "$build" -G Ninja -Dnanobind_DIR="$(python -m nanobind --cmake_dir)" \
  -DPython_EXECUTABLE="$(command -v python)" -DPAI_SANITIZE="$kind" > /dev/null
cmake --build "$build" > /dev/null
rm -rf "$build/tree" && mkdir "$build/tree" && cp -rL build/tree/pai "$build/tree/pai"
cp "$build"/_core*.so "$build/tree/pai/runtime/"
library=$(c++ -print-file-name=lib$(echo "$kind" | cut -c1)san.so)
test "$kind" = address && library="$(c++ -print-file-name=libasan.so) $(c++ -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=exitcode=66
LD_PRELOAD="$library" PYTHONPATH="$build/tree" python -m pytest -p no:cacheprovider \
  tests/unit/test_runtime_elf.py tests/unit/test_runtime_executor.py \
  tests/unit/test_runtime_collectives.py -k "not never_returns" "$@"
