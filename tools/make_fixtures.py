"""Writes tests/fixtures with diffusers: small random models, and what diffusers makes of them and of the sprites.

    pip install -r tools/sprites/requirements.txt
    python tools/make_fixtures.py
"""
import itertools
import json
from pathlib import Path

import numpy
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"

MODELS = {
    # Unconditional, RGB, with scale and shift, predicts noise.
    "rgb": (
        dict(sample_size=16, block_out_channels=(16, 32), layers_per_block=2, norm_num_groups=8, attention_head_dim=8,
             down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
             resnet_time_scale_shift="scale_shift"),
        dict(beta_schedule="linear", prediction_type="epsilon"),
    ),
    # Class-conditional, grey, not square, predicts the sample, and every other number is unusual.
    "grey": (
        dict(sample_size=(8, 12), in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
             norm_num_groups=4, attn_norm_num_groups=8, attention_head_dim=None, norm_eps=1e-6, num_class_embeds=3,
             down_block_types=("AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D"),
             downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, center_input_sample=True,
             mid_block_scale_factor=1.5, act_fn="swish"),
        dict(beta_schedule="scaled_linear", prediction_type="sample", clip_sample_range=1.5, num_train_timesteps=500),
    ),
}


def write_models():
    for seed, (name, (unet, scheduler)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model = UNet2DModel(**unet)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        DDPMPipeline(model, DDPMScheduler(**scheduler)).save_pretrained(FIXTURES / name)


def write_parity(name, folder):
    """One call of the network, and ten steps of DDIM, from recorded noise."""
    model = UNet2DModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval()
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    config = model.config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    batch = 2
    generator = torch.Generator().manual_seed(11)
    noise = torch.randn(batch, config.in_channels, height, width, generator=generator)
    classes = None if config.num_class_embeds is None else torch.full((batch,), config.num_class_embeds - 1)
    timestep = 321
    with torch.no_grad():
        call = model(noise, timestep, class_labels=classes).sample
        scheduler.set_timesteps(10)
        samples = noise
        for t in scheduler.timesteps:
            samples = scheduler.step(model(samples, t, class_labels=classes).sample, t, samples).prev_sample
    tensors = dict(noise=noise, call=call, ddim=samples)
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, FIXTURES / f"{name}.parity.safetensors")


def scheduler_cases():
    common = itertools.product(
        ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"],
        ["epsilon", "sample", "v_prediction"],
        ["leading", "trailing", "linspace"],
        [True, False],
        [False, True],
    )
    for betas, prediction, spacing, clip, rescale in common:
        config = dict(beta_schedule=betas, prediction_type=prediction, timestep_spacing=spacing, clip_sample=clip,
                      rescale_betas_zero_snr=rescale)
        if rescale and (prediction == "epsilon" or spacing != "leading"):
            continue  # divides by zero at the last time step, in diffusers too
        for variance in ["fixed_small", "fixed_small_log", "fixed_large"] if not rescale else ["fixed_small"]:
            yield "ddpm", dict(config, variance_type=variance), 0.0
        if betas not in ("sigmoid", "laplace"):
            for eta, to_one, offset in [(0.0, True, 0), (0.7, False, 1)]:
                yield "ddim", dict(config, set_alpha_to_one=to_one, steps_offset=offset), eta
    trained = [0.1 + 0.01 * i for i in range(20)]
    yield "ddpm", dict(trained_betas=trained, num_train_timesteps=20), 0.0


def rounded_sqrt(tensor):
    """torch's vectorised square root is off by one unit in places, differently on each processor, and rescaling the
    betas magnifies that a thousandfold. The fixture has the correctly rounded one."""
    return torch.from_numpy(numpy.sqrt(tensor.numpy()))


def write_schedulers(steps=6, numbers=8):
    """Every step of many scheduler configurations, fed with the same model outputs and noise."""
    generator = torch.Generator().manual_seed(5)
    start = torch.randn(1, 1, 1, numbers, generator=generator)
    outputs = torch.randn(steps, 1, 1, 1, numbers, generator=generator)
    noises = torch.randn(steps, 1, 1, 1, numbers, generator=generator)
    torch.Tensor.sqrt = rounded_sqrt
    cases, expected = [], []
    for sampler, config, eta in scheduler_cases():
        scheduler = (DDPMScheduler if sampler == "ddpm" else DDIMScheduler)(**config)
        scheduler.set_timesteps(steps)
        samples, row = start, []
        for index, t in enumerate(scheduler.timesteps):
            if sampler == "ddpm":
                import diffusers.schedulers.scheduling_ddpm as module
                module.randn_tensor = lambda *_, noise=noises[index], **__: noise
                samples = scheduler.step(outputs[index], t, samples).prev_sample
            else:
                noise = noises[index] if eta > 0 else None
                samples = scheduler.step(outputs[index], t, samples, eta=eta, variance_noise=noise).prev_sample
            row.append(samples.flatten())
        cases.append(dict(config, _class_name=type(scheduler).__name__, _eta=eta,
                          _timesteps=[int(t) for t in scheduler.timesteps]))
        expected.append(torch.stack(row))
    save_file(dict(start=start.flatten(), outputs=outputs.reshape(steps, numbers).contiguous(),
                   noises=noises.reshape(steps, numbers).contiguous(), expected=torch.stack(expected)),
              FIXTURES / "schedulers.safetensors")
    (FIXTURES / "schedulers.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(len(cases), "scheduler configurations")


FIXTURES.mkdir(parents=True, exist_ok=True)
write_models()
for name in MODELS:
    write_parity(name, FIXTURES / name)
write_parity("sprites", ROOT / "assets" / "models" / "sprites")
write_schedulers()
