#!/usr/bin/env bash
# Builds the core with sanitizers into build/<name> and runs tests on it.
#   tools/sanitize.sh address,undefined PYTHON [pytest arguments]
#   tools/sanitize.sh thread PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizers=$1
python=$(realpath -s "$2")
shift 2
build=build/sanitize-${sanitizers%%,*}
version=$("$python" -c 'import importlib.metadata as m; print(m.version("smelt"))')

"$python" -m pip install --quiet --disable-pip-version-check "pybind11>=3.0" "cmake>=3.25" ninja
export PATH="${python%/*}:$PATH"
portable=OFF
emulate=ON  # every instruction set's kernels on any CPU
emulator=ON
if [ "$sanitizers" = thread ]; then portable=ON emulate=OFF emulator=OFF; fi  # races are those of the pool, whatever the kernels
cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSMELT_SANITIZE="$sanitizers" -DSMELT_PORTABLE=$portable -DSMELT_EMULATE_ISA=$emulate \
  -DSMELT_CUDA=OFF -DSMELT_EMU=$emulator \
  -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
  -DSKBUILD_PROJECT_VERSION="$version" >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
cmake --build "$build" >>"$build.log" 2>&1 || { tail -n 50 "$build.log"; exit 1; }

# The package beside the sanitized module.
rm -rf "$build/package" && mkdir -p "$build/package"
cp -r python/smelt "$build/package/"
rm -f "$build"/package/smelt/_*.so
cp "$build"/_*.so "$build/package/smelt/"

export PYTHONPATH="$PWD/$build/package:$PWD" PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1
if [ "$sanitizers" = thread ]; then
  export LD_PRELOAD="$(gcc -print-file-name=libtsan.so)"
  export TSAN_OPTIONS="halt_on_error=1:suppressions=$PWD/tools/tsan.supp"
  tests=(tests/test_thread_pool.py -k "not fork and not spawn")
else
  export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $(gcc -print-file-name=libstdc++.so.6)"
  export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
  tests=(tests/test_cases.py tests/test_bad_input.py tests/test_conv_transpose.py tests/test_gemm_paths.py tests/test_indexing.py tests/test_optim.py tests/test_capture.py
    tests/test_capture_refusals.py tests/test_emulator.py tests/test_cuda.py tests/test_device_steps.py tests/test_device_failures.py)
fi
if [ $# -gt 0 ]; then tests=("$@"); fi
exec "$python" -m pytest -p no:cacheprovider --capture=sys "${tests[@]}"
