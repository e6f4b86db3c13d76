#!/usr/bin/env bash
# Runs the tests for a card that need no kernel, on the stand-in driver: with pinned memory, without, and where threads
# meet. CUDA_LIBS is the folder of `libcudart.so.13`.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CUDA_TARGET_DIR:-target/cuda}
cargo test --features cuda,test_kit --target-dir "$target" --no-run --test 'cuda_*'
driver=$(tools/cuda_stand_in/build.sh "$PWD/target/stand_in")
export LD_LIBRARY_PATH=$driver:${CUDA_LIBS:-/usr/local/cuda/lib64}

run() {
  for test in "$@"; do
    cargo test --features cuda,test_kit --target-dir "$target" --test "$test"
  done
}

export STAND_IN_ONE_THREAD=1
STAND_IN_PINNED_ONLY=1 run cuda_release cuda_memory cuda_readers cuda_broken
STAND_IN_NO_PINNED=1 run cuda_unpinned cuda_release cuda_memory cuda_readers cuda_broken
unset STAND_IN_ONE_THREAD
run cuda_thread
