#!/usr/bin/env bash
# Builds the stand-in driver in DIR, and prints the folder for LD_LIBRARY_PATH: `test.sh` runs the tests on it. What they
# show then is that our calls come in a right order, and nothing of a driver or of a card. `libcudart.so.13` must be found
# elsewhere, and is not used.
set -euo pipefail
dir=${1:?usage: build.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"
cc -O2 -g -Wall -Wextra -shared -fPIC -pthread -Wl,-soname,libcuda.so.1 -o "$dir/libcuda.so.1" "$here/driver.c"
for library in libcublas.so.13 libcurand.so.10; do
  echo "$library { global: *; };" >"$dir/$library.map"
  cc -O2 -Wall -Wextra -shared -fPIC "-Wl,-soname,$library" "-Wl,--version-script,$dir/$library.map" -o "$dir/$library" "$here/libraries.c"
done
echo "$dir"
