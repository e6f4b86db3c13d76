"""Writes the seeds of the fuzz targets: small good inputs, and the bad ones that unit tests know."""

import json
import struct
from pathlib import Path

HERE = Path(__file__).parent
FIXTURES = HERE.parent / "tests" / "fixtures"
PARTS = ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"]


def header(tensors, data):
    text = json.dumps(tensors, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def tensor(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def write(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def headers():
    write("header", "one", header({"a": tensor([2, 2], 0, 16)}, 16))
    write("header", "two", header({"a": tensor([2], 0, 4, "F16"), "b": tensor([1], 4, 8)}, 8))
    write("header", "scalar", header({"a": tensor([], 0, 4)}, 4))
    write("header", "empty", header({}, 0))
    write("header", "metadata", header({"__metadata__": {"format": "pt"}}, 0))
    write("header", "overlap", header({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, 12))
    write("header", "overflow", header({"a": tensor([2**64 - 1, 2], 0, 16)}, 16))
    write("header", "pickle", b"PK\x03\x04\x00\x00\x08\x08rest")
    write("header", "huge", struct.pack("<Q", 2**64 - 1))
    twice = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}'
    write("header", "twice", struct.pack("<Q", len(twice)) + twice + bytes(2))


def configurations():
    for model in ["grey", "rgb", "ncsnpp", "resnet", "identity", "learned"]:
        folder = FIXTURES / model
        parts = [(folder / name).read_bytes() for name in PARTS]
        write("configuration", model, b"\0".join(parts))
    solver = b'{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "use_karras_sigmas": true}'
    parts[-1] = solver
    write("configuration", "solver", b"\0".join(parts))


def indices():
    def index(**weight_map):
        return json.dumps({"metadata": {"total_size": 2}, "weight_map": weight_map}).encode()

    write("index", "both", index(a="one.safetensors", b="two.safetensors"))
    write("index", "swapped", index(a="two.safetensors", b="one.safetensors"))
    write("index", "missing", index(a="three.safetensors"))
    write("index", "outside", index(a="../one.safetensors"))
    write("index", "alias", index(a="./one.safetensors", b="two.safetensors/"))
    write("index", "twice", b'{"weight_map":{"a":"one.safetensors","a":"two.safetensors"}}')


headers()
indices()
configurations()
