"""Times one denoising step on the CPU, here and in diffusers on PyTorch: the same weights, threads and batch.

    pip install -r tools/sprites/requirements.txt
    python tools/compare_diffusers.py

Two models, the sprites and one of 128 channels and 64 by 64 pixels with random weights, each for one picture and for
eight. The two sides take turns; medians count. Prints `name value` lines; `step_ratio_…` is our time by PyTorch's.
Fails where one is above 1. `--bench` names a built bench `step`; without it, cargo builds one.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

ROOT = Path(__file__).resolve().parent.parent
SPRITES = ROOT / "assets" / "models" / "sprites"
WIDE = ROOT / "target" / "compare" / "wide"

# Name, folder, batch, steps of a job.
CASES = [
    ("sprites_1", SPRITES, 1, 50),
    ("sprites_8", SPRITES, 8, 20),
    ("wide_1", WIDE, 1, 8),
    ("wide_8", WIDE, 8, 2),
]


def make_wide() -> None:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=64, block_out_channels=(128, 128, 256, 256), layers_per_block=2,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(WIDE)


def build() -> Path:
    command = ["cargo", "bench", "--bench", "step", "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    built = [json.loads(line) for line in lines if line.startswith("{")]
    return next(Path(one["executable"]) for one in built if one.get("executable") and one["target"]["name"] == "step")


def ours(bench: Path, folder: Path, batch: int, steps: int, threads: int) -> float:
    """Milliseconds of a step, by the bench."""
    command = [bench, folder, str(batch), str(steps), str(threads)]
    environment = {**os.environ, "CANDLE_NUM_THREADS": "1", "CARGO_MANIFEST_DIR": str(ROOT)}
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return float(printed.split("step_ms ")[1].split()[0])


@torch.inference_mode()
def theirs(pipeline: DDPMPipeline, batch: int, steps: int) -> float:
    """Milliseconds of a step, as the bench counts them: the median of three jobs, after one that does not count."""
    unet, scheduler = pipeline.unet, pipeline.scheduler
    size, classes = unet.config.sample_size, unet.config.num_class_embeds
    labels = None if classes is None else torch.full((batch,), 3)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        samples = torch.randn(batch, unet.config.in_channels, size, size)
        scheduler.set_timesteps(steps)
        for timestep in scheduler.timesteps:
            output = unet(samples, timestep, class_labels=labels).sample
            samples = scheduler.step(output, timestep, samples).prev_sample
        times.append((time.perf_counter() - start) * 1e3 / steps)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="a part of a case's name")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not (WIDE / "model_index.json").exists():
        make_wide()
    bench = options.bench or build()
    missed = []
    for name, folder, batch, steps in CASES:
        if options.only and options.only not in name:
            continue
        pipeline = DDPMPipeline.from_pretrained(folder)
        pairs = [(ours(bench, folder, batch, steps, options.threads), theirs(pipeline, batch, steps))
                 for _ in range(options.rounds)]
        our_ms, their_ms = (statistics.median(times) for times in zip(*pairs))
        print(f"step_ms_{name} {our_ms:.2f}")
        print(f"step_ms_torch_{name} {their_ms:.2f}")
        print(f"step_ratio_{name} {our_ms / their_ms:.3f}", flush=True)
        if our_ms > their_ms:
            missed.append(name)
    if missed:
        sys.exit(f"slower than PyTorch: {', '.join(missed)}")


if __name__ == "__main__":
    main()
