"""Writes a trained model with f16 weights and trailing time steps: python to_f16.py model ../../assets/models/sprites"""
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
source, target = Path(sys.argv[1]), Path(sys.argv[2])
for name in ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"]:
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / name, target / name)
# What the model's pictures were made with: few steps that begin where the training ended.
scheduler = target / "scheduler/scheduler_config.json"
config = json.loads(scheduler.read_text()) | {"timestep_spacing": "trailing"}
scheduler.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
weights = {name: tensor.to(torch.float16).contiguous() for name, tensor in load_file(source / WEIGHTS).items()}
save_file(weights, target / WEIGHTS, metadata={"format": "pt"})
