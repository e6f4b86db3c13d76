#!/usr/bin/env bash
# Plays the scenes without a screen and saves pictures of them: Xvfb is the display, Mesa's lavapipe the graphics card.
#
#   tools/screenshots.sh            # all pictures to target/screenshots, the small ones to assets/docs
#   PROFILE=dev tools/screenshots.sh
#
# Needs Xvfb, xvfb-run, ffmpeg, ImageMagick and mesa-vulkan-drivers. Look at what comes out: nobody else does.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-release}
folder=${CARGO_TARGET_DIR:-target}
programs=$folder/$([[ $profile == dev ]] && echo debug || echo "$profile")/examples
shots=$folder/screenshots
mkdir -p "$shots"
cargo build --profile "$profile" --features scenes --example sprite_forge --example frame_stage

lavapipe=$(echo /usr/share/vulkan/icd.d/lvp_icd*.json)
export BEVY_ASSET_ROOT=$PWD VK_DRIVER_FILES=$lavapipe VK_ICD_FILENAMES=$lavapipe CANDLE_NUM_THREADS=1

# play SCENE SCRIPT SIZE [ARGUMENT]...
play() {
  local scene=$1 script=$2 size=$3
  shift 3
  printf '\n== %s, %s, %s\n' "$scene" "$script" "$size"
  timeout 300 xvfb-run --auto-servernum --server-args "-screen 0 ${size}x24" \
    "$programs/$scene" --size "$size" --script "tools/scenes/$script.txt" --shots "$shots/$size" "$@"
}

# film SCENE SCRIPT FILE: what the screen shows, as a small GIF.
film() {
  printf '\n== a film of %s\n' "$1"
  timeout 300 xvfb-run --auto-servernum --server-args '-screen 0 1280x720x24' bash -c '
    ffmpeg -loglevel error -y -f x11grab -draw_mouse 0 -framerate 10 -video_size 1280x720 -i "$DISPLAY" "$4.mkv" &
    camera=$!
    sleep 1
    status=0
    "$1" --script "$2" --shots "$3" || status=$?
    kill -INT $camera
    wait $camera || true
    exit $status
  ' film "$programs/$1" "tools/scenes/$2.txt" "$shots/film" "$shots/$3"
  local colours='split[a][b];[a]palettegen=max_colors=96:stats_mode=diff[p];[b][p]paletteuse=dither=none:diff_mode=rectangle'
  ffmpeg -loglevel error -y -ss "${FROM:-2}" -i "$shots/$3.mkv" -t "${SECONDS_OF_FILM:-11}" \
    -vf "fps=7,scale=640:360:flags=area,$colours" "$shots/$3.gif"
}

for size in 1280x720 1920x1080; do
  play sprite_forge forge "$size"
  play sprite_forge missing "$size" --model models/missing
  play frame_stage stage "$size"
done
film sprite_forge film sprite_forge

for picture in forge_unloaded stage_naive; do
  convert "$shots/1280x720/$picture.png" +dither -colors 200 -define png:compression-level=9 "assets/docs/$picture.png"
done
cp "$shots/sprite_forge.gif" assets/docs/sprite_forge.gif
ls -l assets/docs
