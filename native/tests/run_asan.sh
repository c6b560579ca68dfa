#!/bin/sh
# Builds the native library and its driver with AddressSanitizer and UndefinedBehaviorSanitizer, and runs the driver.
# Usage: native/tests/run_asan.sh [build folder]
set -e
cd "$(dirname "$0")/../.."
build="${1:-build/asan}"
cmake -S . -B "$build" -DFEWER_ASAN=ON
cmake --build "$build" --parallel 2
OMP_NUM_THREADS=4 "$build/native/fewer_driver"
