"""Trains the small network of examples/custom_pipeline.rs and writes it as two files:

    pip install -r ../sprites/requirements.txt
    python train.py ../../assets/models/instincts

Input: where the wolf and the grass are, seen from a sheep (four numbers, in metres). Output: which way to run (two
numbers, at most one metre a second): away from a near wolf, else towards the grass.
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
senses, urges = torch.nn.Linear(4, 32), torch.nn.Linear(32, 2)
optimizer = torch.optim.Adam([*senses.parameters(), *urges.parameters()], lr=3e-3)


def teacher(wolf, grass):
    flee = -wolf / wolf.norm(dim=1, keepdim=True).clamp_min(0.1)
    graze = grass / grass.norm(dim=1, keepdim=True).clamp_min(1.0)
    fear = (4.0 - wolf.norm(dim=1, keepdim=True)).clamp(0, 1)
    return fear * flee + (1 - fear) * graze


for step in range(6000):
    seen = torch.randn(512, 4) * 5
    loss = (urges(torch.tanh(senses(seen))) - teacher(seen[:, :2], seen[:, 2:])).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"mean square error {loss.item():.4f}")
out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
for name, layer in [("senses", senses), ("urges", urges)]:
    save_file({f"{name}.weight": layer.weight.detach(), f"{name}.bias": layer.bias.detach()}, out / f"{name}.safetensors")
