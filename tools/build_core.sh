#!/bin/sh
# Build the C++ core with cmake and put it where build/tree finds it; arguments go to cmake.
set -e
cd "$(dirname "$0")/.."
cmake -S . -B build/cmake -G Ninja -Dnanobind_DIR="$(python -m nanobind --cmake_dir)" \
  -DPython_EXECUTABLE="$(command -v python)" "$@" > build/cmake.log
cmake --build build/cmake >> build/cmake.log || { cat build/cmake.log; exit 1; }
for library in build/cmake/_core*.so; do
  cp "$library" "runtime/.$(basename "$library").new"
  mv "runtime/.$(basename "$library").new" "runtime/$(basename "$library")"
done
