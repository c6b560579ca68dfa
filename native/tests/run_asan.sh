#!/bin/sh
# Builds the native library and its driver with AddressSanitizer and UndefinedBehaviorSanitizer, and runs the driver; then
# what modules and operators do with odd arguments, casts and copies (tests/kernels), where a Python with torch is at hand.
# Usage: native/tests/run_asan.sh [build folder]
set -e
cd "$(dirname "$0")/../.."
build="${1:-build/asan}"
cmake -S . -B "$build" -DFEWER_ASAN=ON
cmake --build "$build" --parallel 2
OMP_NUM_THREADS=4 "$build/native/fewer_driver"
if python -c "import torch, pytest" 2>/dev/null; then
  # the sanitizer has to be there before Python is; what torch leaves in memory at the end is none of our business
  PYTHONPATH=src:. LD_PRELOAD="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 OMP_NUM_THREADS=2 FEWER_SURFACE=100 \
    FEWER_NATIVE_LIB="$PWD/$build/native/libfewer_native.so" \
    python -m pytest -q -p no:cacheprovider tests/kernels/test_safety.py tests/kernels/test_surface.py
fi
