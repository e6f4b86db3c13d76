"""Makes safetensors of a diffusers folder that only has pickles (`.bin`), so that it can be loaded.

    pip install torch safetensors
    python tools/convert.py FOLDER

Reads tensors only: torch refuses a pickle that would run code. The pickles stay; delete them when you like.
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def convert(pickle: Path) -> Path:
    tensors = torch.load(pickle, map_location="cpu", weights_only=True)
    tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    target = pickle.with_suffix(".safetensors")
    save_file(tensors, target, metadata={"format": "pt"})
    return target


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    pickles = sorted(Path(sys.argv[1]).rglob("*.bin"))
    if not pickles:
        sys.exit(f"no `.bin` file is in {sys.argv[1]}")
    for pickle in pickles:
        print(f"{pickle} -> {convert(pickle)}")


if __name__ == "__main__":
    main()
