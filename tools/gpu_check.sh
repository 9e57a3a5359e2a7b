#!/usr/bin/env bash
# Everything that only a GPU can show. Needs one with its driver, g++, CMake, Ninja, Python with NumPy, pytest and pybind11, and
# nvcc unless CUDA_LIBRARY is a _cuda.so built elsewhere from these sources; no network.
#   tools/gpu_check.sh test|sanitize|calibrate|bench|all
#     test        every case on the GPU, smelt.cuda, training; when all pass, the names go to python/smelt/bench/proven.json
#     sanitize    compute-sanitizer over small cases: memcheck, racecheck, synccheck
#     calibrate   what each instruction gives, to tests/fixtures/words.json, which the emulator is held to
#     bench       against PyTorch, to bench/results/
#   PYTHON (python3), ARCHITECTURES (that of the GPU), JOBS (all cores), DEVICE (cuda)
# DEVICE=emu tries the script itself where there is no GPU. Logs and a line for each step: build/gpu/.
set -uo pipefail
cd "$(dirname "$0")/.."
stage=${1:-all}
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
build=build/gpu
mkdir -p "$build"
summary=$build/summary.txt
failed=0

# step NAME SECONDS COMMAND...: its output goes to build/gpu/NAME.log, a line to the summary; a failure does not end the others.
step() {
  local name=$1 limit=$2 begin=$SECONDS result=passed
  shift 2
  timeout "$limit" bash -c '"$@"' step "$@" >"$build/$name.log" 2>&1 || { result="FAILED ($?)"; failed=1; }
  echo "$name: $result, $((SECONDS - begin)) s: $(tail -n 1 "$build/$name.log" | cut -c1-160)" | tee -a "$summary"
}

prepare() {
  local cuda=ON emu=OFF
  [ -n "${CUDA_LIBRARY:-}" ] && cuda=OFF
  [ "$device" = emu ] && cuda=OFF emu=ON
  "$python" -c "import numpy, pybind11, pytest, safetensors, tqdm" || return 1
  cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DSMELT_CUDA=$cuda -DSMELT_EMU=$emu \
    -DSMELT_CUDA_ARCHITECTURES="${ARCHITECTURES:-native}" -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" -DSKBUILD_PROJECT_VERSION=0.1.0 &&
    cmake --build "$build" ${JOBS:+-j "$JOBS"} || return 1
  rm -rf "$build/package" && mkdir -p "$build/package"
  cp -r python/smelt "$build/package/"
  rm -f "$build"/package/smelt/_*.so
  cp "$build"/_core*.so "$build/package/smelt/"
  if [ "$emu" = ON ]; then cp "$build/_emu.so" "$build/package/smelt/"; else
    cp "${CUDA_LIBRARY:-$build/_cuda.so}" "$build/package/smelt/_cuda.so"
  fi
}

run_tests() { "$python" -m pytest -p no:cacheprovider -o filterwarnings=default "$@"; }

test_stage() {
  step test_cuda 150 run_tests tests/test_cuda.py tests/test_device_steps.py tests/test_device_failures.py
  step test_values 200 run_tests tests/test_cases.py -k "test_values and $device"
  step test_gradients 200 run_tests tests/test_cases.py -k test_gradient
  if [ "$device" = cuda ] && [ "$failed" = 0 ]; then step proven 30 proven; fi
}

# Every kernel of this build is proven on this GPU: smelt bench reads it.
proven() {
  "$python" - <<'END'
import json, pathlib
from smelt import _core, kernels
path = pathlib.Path("python/smelt/bench/proven.json")
names = sorted({name for slot in kernels.slots() for name in _core.impls(slot, "cuda")})
proven = {**json.loads(path.read_text()), _core.device_info("cuda")["name"]: names}
path.write_text(json.dumps(proven, indent=1, sort_keys=True) + "\n")
print(f"{path}: {len(names)} kernels")
END
}

sanitize_stage() {
  local tool
  command -v compute-sanitizer >/dev/null || { step sanitize 5 sh -c 'echo compute-sanitizer is not installed; exit 1'; return; }
  for tool in memcheck racecheck synccheck; do
    step "sanitize_$tool" 150 compute-sanitizer --tool $tool --error-exitcode 9 --target-processes all \
      "$python" -m pytest -p no:cacheprovider -o filterwarnings=default -x tests/test_cuda.py tests/test_device_steps.py tests/test_device_failures.py -k "not fork and not limit and not many"
  done
}

calibrate() {
  nvcc -std=c++20 --expt-relaxed-constexpr -diag-suppress 186 -Icsrc -arch native \
    csrc/cuda_emu/calibrate.cu -o "$build/calibrate" && "$build/calibrate" "$build/words.json" &&
    cp "$build/words.json" tests/fixtures/words.json && echo "tests/fixtures/words.json is written"
}

bench_stage() {
  if [ "$device" = cuda ]; then
    step bench 460 env -u SMELT_MAX_ISA "$python" bench/gpu.py --seconds "${SECONDS_OF_BENCH:-400}"
  else
    step bench 460 "$python" bench/gpu.py --check --device "$device"
  fi
}

export -f run_tests prepare calibrate proven
export python device build
case $stage in test | sanitize | calibrate | bench | all) ;; *)
  echo "gpu_check: the stage must be test, sanitize, calibrate, bench or all, got '$stage'" >&2
  exit 2
  ;;
esac
: >"$summary"
if [ ! -e "$build/package/smelt" ] || [ "${REBUILD:-1}" = 1 ]; then step build 480 prepare; fi
[ "$failed" = 0 ] || { tail -n 30 "$build/build.log"; exit 1; }
export PYTHONPATH="$PWD/$build/package:$PWD" SMELT_MAX_ISA=${SMELT_MAX_ISA:-portable} PYTHONUNBUFFERED=1
if [ "$stage" = test ] || [ "$stage" = all ]; then test_stage; fi
if [ "$stage" = sanitize ] || [ "$stage" = all ]; then sanitize_stage; fi
if { [ "$stage" = calibrate ] || [ "$stage" = all ]; } && [ "$device" = cuda ]; then step calibrate 120 calibrate; fi
if [ "$stage" = bench ] || [ "$stage" = all ]; then bench_stage; fi
for log in "$build"/*.log; do
  if grep -q "^$(basename "$log" .log): FAILED" "$summary"; then
    echo "== $log"
    tail -n 40 "$log"
  fi
done
exit "$failed"
