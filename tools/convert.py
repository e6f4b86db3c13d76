"""Makes safetensors of a diffusers folder that only has pickles (`.bin`), so that it can be loaded.

    pip install torch safetensors
    python tools/convert.py FOLDER

Converts `diffusion_pytorch_model*.bin`, whole or in shards with their index, wherever they are in the folder. Reads
tensors only: torch refuses a pickle that would run code. The pickles stay; delete them when you like.
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

WEIGHTS = "diffusion_pytorch_model*.bin"


def renamed(name: str) -> str:
    return name.replace(".bin", ".safetensors")


def convert(pickle: Path) -> Path:
    tensors = torch.load(pickle, map_location="cpu", weights_only=True)
    tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    target = pickle.with_name(renamed(pickle.name))
    save_file(tensors, target, metadata={"format": "pt"})
    return target


def convert_index(path: Path) -> Path:
    index = json.loads(path.read_text())
    index["weight_map"] = {name: renamed(file) for name, file in index["weight_map"].items()}
    target = path.with_name(renamed(path.name))
    target.write_text(json.dumps(index, indent=2))
    return target


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    pickles = sorted(folder.rglob(WEIGHTS))
    if not pickles:
        sys.exit(f"no `{WEIGHTS}` is in {folder}")
    for pickle in pickles:
        print(f"{pickle} -> {convert(pickle)}")
    for index in sorted(folder.rglob(f"{WEIGHTS}.index*.json")):
        print(f"{index} -> {convert_index(index)}")


if __name__ == "__main__":
    main()
