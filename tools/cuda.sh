#!/usr/bin/env bash
# Compiles the CUDA kernels into build/cuda, compares their code with csrc/cuda/budgets.json, and runs them on the CPU by the
# emulator: its own tests and all cases.
#   tools/cuda.sh PYTHON [pytest arguments]
# ARCHITECTURES: GPU targets as CMake names them. Without nvcc on PATH, that of the package index is installed beside PYTHON.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "$1")
shift
build=build/cuda
architectures=${ARCHITECTURES:-80-real;90a-real}
version=$("$python" -c 'import importlib.metadata as m; print(m.version("smelt"))')

install() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }
install "pybind11>=3.0" "cmake>=3.25" ninja
if ! command -v nvcc >/dev/null; then
  install nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
  toolkit=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/nvidia/cu13
  ln -sfn lib "$toolkit/lib64"
  export CUDACXX=$toolkit/bin/nvcc
fi
export PATH="${python%/*}:$PATH"
mkdir -p build
cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DSMELT_CUDA=ON -DSMELT_CUDA_ARCHITECTURES="$architectures" -DSMELT_EMU=ON \
  -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
  -DSKBUILD_PROJECT_VERSION="$version" >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
cmake --build "$build" >>"$build.log" 2>&1 || { tail -n 50 "$build.log"; exit 1; }
readelf -d "$build/_cuda.so" >"$build/needed.txt"
if grep -qF '[libcuda.so' "$build/needed.txt"; then
  echo "_cuda.so must not need the driver's library: without a GPU it could not be opened to say so" >&2
  exit 1
fi

# The package beside the modules built here.
rm -rf "$build/package" && mkdir -p "$build/package"
cp -r python/smelt "$build/package/"
rm -f "$build"/package/smelt/_*.so
cp "$build"/_core*.so "$build"/_cuda.so "$build"/_emu.so "$build/package/smelt/"

tests=(tests/test_emulator.py tests/test_words.py tests/test_cuda.py tests/test_device_steps.py tests/test_device_failures.py tests/test_cases.py)
if [ $# -gt 0 ]; then tests=("$@"); fi
# The CPU's instruction sets have had their turn: the lowest one will do for what is not the emulator's.
SMELT_MAX_ISA=${SMELT_MAX_ISA:-portable} PYTHONPATH="$PWD/$build/package:$PWD" "$python" -m pytest -p no:cacheprovider "${tests[@]}"

# Budgets are those of one compiler's code.
if [ -z "${ARCHITECTURES:-}" ] && "${CUDACXX:-nvcc}" --version | grep -qF 'release 13.0'; then
  "$python" tools/sass_budget.py "$build/_cuda.so"
else
  echo "cuda.sh: budgets are not compared: they are those of nvcc 13.0 for 80-real and 90a-real"
fi
