#!/usr/bin/env bash
# Does to the scenes what people do: keys and clicks in every state, held keys, other window sizes, a window that is
# closed while a model comes, works or goes, a model that is not there. A scene has to play its script to the end, and
# has to be gone soon after its window.
#
#   tools/try_scenes.sh             # all cases; PROFILE=dev for a build that is there sooner
#   tools/try_scenes.sh held queue  # some
#
# Needs Xvfb, xvfb-run and mesa-vulkan-drivers.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-release}
folder=${CARGO_TARGET_DIR:-target}
programs=$folder/$([[ $profile == dev ]] && echo debug || echo "$profile")/examples
shots=$folder/screenshots/try
mkdir -p "$shots"
cargo build --quiet --profile "$profile" --features scenes --example sprite_forge --example frame_stage

lavapipe=$(echo /usr/share/vulkan/icd.d/lvp_icd*.json)
export BEVY_ASSET_ROOT=$PWD VK_DRIVER_FILES=$lavapipe VK_ICD_FILENAMES=$lavapipe CANDLE_NUM_THREADS=1 NO_COLOR=1
# The shutdown time-out of two seconds, and what the window and the graphics driver take.
patience_ms=${PATIENCE_MS:-4000}
failed=()

# fail CASE REASON
fail() {
  printf 'FAILED  %s: %s\n' "$1" "$2"
  failed+=("$1")
}

# try CASE SCENE [ARGUMENT]...: the log, every line with its time in milliseconds, lies beside the pictures.
try() {
  local case=$1 scene=$2 log=$shots/$1.log status=0 closed ended
  shift 2
  timeout 240 xvfb-run --auto-servernum --server-args '-screen 0 1920x1080x24' \
    "$programs/$scene" --script "tools/scenes/try/$case.txt" --shots "$shots" "$@" 2>&1 |
    while IFS= read -r line; do printf '%s %s\n' "${EPOCHREALTIME/[.,]/}" "$line"; done >"$log" || status=$?
  ended=${EPOCHREALTIME/[.,]/}
  closed=$(sed -n 's/^\([0-9]*\) .*script: close$/\1/p' "$log")
  if [[ $status != 0 || -z $closed ]]; then
    fail "$case" "it ended with $status: $(tail -n 1 "$log" | cut -d ' ' -f 2-)"
  elif grep -q 'panicked' "$log"; then
    fail "$case" "$(grep -m 1 'panicked' "$log")"
  elif ! grep -Eq "the end gave back ${released:-[1-9][0-9.]* MB}" "$log"; then
    fail "$case" 'it does not say what it gave back'
  elif (((ended - closed) / 1000 > patience_ms)); then
    fail "$case" "it was there for $(((ended - closed) / 1000)) ms after its window"
  else
    printf 'ok      %s: gone after %s ms; %s\n' "$case" "$(((ended - closed) / 1000))" \
      "$(grep -o '[A-Za-z]*: the end gave back.*' "$log")"
  fi
}

# The folder comes while the scene runs, once the scene has shown that it is missing.
try_retry() {
  local folder maker
  folder=$(mktemp --directory)
  rm -f "$shots/missing.png"
  (
    until [[ -e $shots/missing.png ]]; do sleep 0.1; done
    sleep 2
    cp -r assets/models/sprites "$folder/sprites"
  ) &
  maker=$!
  try retry sprite_forge --model "$folder/sprites"
  kill "$maker" 2>/dev/null || true
  rm -r "$folder"
}

# try_without_display NAME: one sentence, and an error.
try_without_display() {
  local scene said
  for scene in sprite_forge frame_stage; do
    if said=$(DISPLAY=$1 timeout 20 "$programs/$scene" 2>&1); then
      fail "display '$1'" "$scene ended well"
    elif [[ $(wc -l <<<"$said") != 1 || $said != 'error: this scene needs a display'* ]]; then
      fail "display '$1'" "$scene said: $said"
    else
      printf 'ok      display %s: %s: %s\n' "'$1'" "$scene" "$said"
    fi
  done
}

cases=("$@")
[[ $# -gt 0 ]] || cases=(display states held resize queue close_generating close_loading close_unloading close_writing stage_keys stage_resize retry)
for case in "${cases[@]}"; do
  case $case in
    display) try_without_display '' && try_without_display :4711 ;;
    close_loading | stage_*) try "$case" frame_stage ;;
    # The release may be done before the end is.
    close_unloading) released='(nothing|[1-9][0-9.]* MB)' try "$case" frame_stage ;;
    # There is nothing yet.
    close_writing) released=nothing try "$case" frame_stage ;;
    retry) try_retry ;;
    *) try "$case" sprite_forge ;;
  esac
done
[[ ${#failed[@]} == 0 ]] || { printf '%s cases failed: %s\n' "${#failed[@]}" "${failed[*]}" >&2; exit 1; }
