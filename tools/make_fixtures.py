"""Writes tests/fixtures with diffusers: small random models, and what diffusers makes of them and of the sprites.

    pip install -r tools/sprites/requirements.txt
    python tools/make_fixtures.py
"""
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy
import torch
from diffusers import (
    DDIMScheduler, DDPMPipeline, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UNet2DModel,
)
from PIL import Image
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
SPRITES = ROOT / "assets" / "models" / "sprites"
STEPS = 10

# Name: the network, the scheduler, and how it is saved and asked. Some have little noise: where much is left of nothing
# but noise, an untrained network magnifies a millionth of it to hundredths in ten steps, in Python as here.
MODELS = {
    # Unconditional, RGB, with scale and shift, predicts noise.
    "rgb": (
        dict(sample_size=16, block_out_channels=(16, 32), layers_per_block=2, norm_num_groups=8, attention_head_dim=8,
             down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
             resnet_time_scale_shift="scale_shift"),
        dict(beta_schedule="linear", prediction_type="epsilon"),
        dict(),
    ),
    # Class-conditional, grey, not square, predicts the sample, and every other number is unusual.
    "grey": (
        dict(sample_size=(8, 12), in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
             norm_num_groups=4, attn_norm_num_groups=8, attention_head_dim=None, norm_eps=1e-6, num_class_embeds=3,
             down_block_types=("AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D"),
             downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, center_input_sample=True,
             mid_block_scale_factor=1.5, act_fn="swish"),
        dict(beta_schedule="scaled_linear", prediction_type="sample", clip_sample_range=1.5, num_train_timesteps=500),
        dict(class_label=2),
    ),
    # As google/ddpm-cifar10-32 is configured, but small.
    "cifar": (
        dict(sample_size=16, block_out_channels=(8, 16, 16, 16), layers_per_block=2, norm_num_groups=8,
             attention_head_dim=None, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
             down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
             up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")),
        dict(variance_type="fixed_large", beta_end=0.005),
        dict(dtype=torch.float16),
    ),
    # As google/ddpm-celebahq-256 is configured, but small: flat, with the names that attention had at first.
    "celebahq": (
        dict(sample_size=32, block_out_channels=(8, 8, 16, 16, 16, 16), layers_per_block=1, norm_num_groups=8,
             attention_head_dim=None, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
             down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
             up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4),
        dict(variance_type="fixed_small", beta_end=0.005),
        dict(dtype=torch.float16, layout="old"),
    ),
    # Residual blocks halve and double.
    "resnet": (
        dict(sample_size=16, block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
             down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
             up_block_types=("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
             downsample_type="resnet", upsample_type="resnet", resnet_time_scale_shift="scale_shift", act_fn="mish"),
        dict(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
        dict(dtype=torch.bfloat16),
    ),
    # As google/ncsnpp-celebahq-256 is configured, but small: the picture goes along, and time is a Fourier feature.
    "ncsnpp": (
        dict(sample_size=16, block_out_channels=(32, 32, 32), layers_per_block=1,
             norm_num_groups=None, attention_head_dim=8, norm_eps=1e-6, time_embedding_type="fourier", mid_block_scale_factor=math.sqrt(2),
             down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"),
             up_block_types=("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D")),
        dict(timestep_spacing="trailing", prediction_type="sample"),
        dict(dtype=torch.float16),
    ),
    # Opacity, no middle, another activation.
    "rgba": (
        dict(sample_size=16, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
             norm_num_groups=4, mid_block_type=None, act_fn="gelu",
             down_block_types=("DownBlock2D", "UNetResDownBlock2D"), up_block_types=("UpBlock2D", "UNetResUpBlock2D")),
        dict(prediction_type="v_prediction", timestep_spacing="trailing"),
        dict(dtype=torch.float16, layout="shards"),
    ),
    # The class is a number that is embedded as time is.
    "timestep": (
        dict(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
             class_embed_type="timestep", act_fn="relu", add_attention=False, time_embedding_dim=24,
             down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")),
        dict(timestep_spacing="linspace"),
        dict(dtype=torch.float16, class_label=5),
    ),
    # The class is a vector, and each time step has a vector, too.
    "identity": (
        dict(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
             class_embed_type="identity", time_embedding_type="learned", num_train_timesteps=1000,
             down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")),
        dict(),
        dict(dtype=torch.float16, class_vector=True),
    ),
    # Predicts the variance, too; pictures are clipped dynamically.
    "learned": (
        dict(sample_size=8, out_channels=6, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
             attention_head_dim=4,
             down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")),
        dict(variance_type="learned_range", thresholding=True, sample_max_value=2.0),
        dict(dtype=torch.float16, sampler="dpm"),
    ),
}

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def write_model(seed, name):
    unet, scheduler, how = MODELS[name]
    torch.manual_seed(seed)
    model = UNet2DModel(**unet)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model = model.to(how.get("dtype", torch.float32))
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    pipeline = DDPMPipeline(model, DDPMScheduler(**scheduler))
    if how.get("layout") == "shards":
        pipeline.save_pretrained(folder, variant="fp16", max_shard_size="30KB")
    else:
        pipeline.save_pretrained(folder)
    if how.get("layout") == "old":
        make_old(folder)
    if name == "learned":
        # What a network with two outputs was trained with; diffusers writes the same.
        assert json.loads((folder / "unet/config.json").read_text())["out_channels"] == 6
    return model.float().eval()


def make_old(folder):
    """Without folders, with old names, and with keys that were written then."""
    weights = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    for new, old in OLD_NAMES.items():
        weights = {key.replace(f".{new}.", f".{old}."): value for key, value in weights.items()}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    shutil.move(folder / "unet/config.json", folder / "config.json")
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    kept = ["_class_name", "beta_start", "beta_end", "beta_schedule", "clip_sample", "num_train_timesteps",
            "trained_betas", "variance_type"]
    scheduler = {key: scheduler[key] for key in kept} | dict(_diffusers_version="0.1.1", tensor_format="pt",
                                                             timestep_values=None)
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2))
    shutil.rmtree(folder / "unet")
    shutil.rmtree(folder / "scheduler")


SAMPLERS = dict(ddim=DDIMScheduler, euler=EulerDiscreteScheduler, dpm=DPMSolverMultistepScheduler)


def denoise(model, scheduler, samples, classes, start=0, guidance=None):
    for t in scheduler.timesteps[start:]:
        seen = scheduler.scale_model_input(samples, t)
        output = model(seen, t, class_labels=classes).sample
        if guidance is not None:
            scale, null = guidance
            without = model(seen, t, class_labels=torch.full_like(classes, null)).sample
            output = without + scale * (output - without)
        samples = scheduler.step(output, t, samples).prev_sample
    return samples


def write_parity(name, model, scheduler_config, how):
    """One call of the network, and ten steps, from recorded noise."""
    config = model.config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    batch = 2
    generator = torch.Generator().manual_seed(11)
    noise = torch.randn(batch, config.in_channels, height, width, generator=generator)
    classes = None
    tensors = dict(noise=noise)
    if "class_label" in how:
        classes = torch.full((batch,), how["class_label"])
    if "class_vector" in how:
        vector = torch.randn(config.block_out_channels[0] * 4, generator=generator)
        tensors["class_embedding"] = vector
        classes = vector.repeat(batch, 1)
    with torch.no_grad():
        tensors["call"] = model(noise, 321, class_labels=classes).sample
        scheduler = SAMPLERS[how.get("sampler", "ddim")].from_config(scheduler_config)
        scheduler.set_timesteps(STEPS)
        tensors["steps"] = denoise(model, scheduler, noise * scheduler.init_noise_sigma, classes)
        if name == "grey":
            scheduler.set_timesteps(STEPS)
            tensors["guided"] = denoise(model, scheduler, noise, torch.zeros_like(classes), guidance=(4.0, 2))
        if name == "rgb":
            vary(model, scheduler_config, noise, tensors)
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, FIXTURES / f"{name}.parity.safetensors")
    if name in ("rgb", "grey", "rgba"):
        write_png(tensors["steps"][:1], FIXTURES / f"{name}.png")


def write_png(samples, path):
    DDPMPipeline.numpy_to_pil((samples / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())[0].save(path)


def vary(model, scheduler_config, noise, tensors, strength=0.6):
    """Image to image, as diffusers' pipelines do it."""
    ramp = torch.linspace(0, 1, 16)
    picture = torch.stack([ramp.repeat(16, 1), ramp.repeat(16, 1).T, 1 - ramp.repeat(16, 1)])
    pixels = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(FIXTURES / "start.png")
    picture = torch.from_numpy(pixels).permute(2, 0, 1).float()[None] / 127.5 - 1
    for sampler, kind in SAMPLERS.items():
        scheduler = kind.from_config(scheduler_config)
        scheduler.set_timesteps(STEPS)
        start = STEPS - min(int(STEPS * strength), STEPS)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(start)
        first = scheduler.timesteps[start : start + 1].repeat(2)
        samples = scheduler.add_noise(picture.repeat(2, 1, 1, 1), noise, first)
        tensors[f"varied_{sampler}"] = denoise(model, scheduler, samples, None, start)


def write_sprites_parity():
    model = UNet2DModel.from_pretrained(SPRITES / "unet", torch_dtype=torch.float32).eval()
    config = json.loads((SPRITES / "scheduler" / "scheduler_config.json").read_text())
    write_parity("sprites", model, config, dict(class_label=7))


def old_cases():
    """DDPM and DDIM."""
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
    for prediction, spacing in itertools.product(
        ["epsilon", "sample", "v_prediction"], ["leading", "trailing", "linspace"]
    ):
        config = dict(prediction_type=prediction, timestep_spacing=spacing)
        dynamic = dict(config, thresholding=True, sample_max_value=1.7, dynamic_thresholding_ratio=0.9)
        yield "ddpm", dynamic, 0.0
        yield "ddim", dynamic, 0.3
        narrow = dict(config, clip_sample_range=0.5, beta_start=0.001, beta_end=0.01, num_train_timesteps=400)
        yield "ddpm", narrow, 0.0
        yield "ddim", narrow, 1.0
        for variance in ["learned", "learned_range"]:
            yield "ddpm", dict(config, variance_type=variance), 0.0


def euler_cases():
    for betas, prediction, spacing in itertools.product(
        ["linear", "scaled_linear", "squaredcos_cap_v2"],
        ["epsilon", "sample", "v_prediction"],
        ["leading", "trailing", "linspace", None],
    ):
        config = dict(beta_schedule=betas, prediction_type=prediction)
        if spacing is not None:
            config["timestep_spacing"] = spacing
        yield dict(config)
        yield dict(config, use_karras_sigmas=True, final_sigmas_type="sigma_min")
        yield dict(config, use_exponential_sigmas=True, steps_offset=1)
        yield dict(config, interpolation_type="log_linear")
        yield dict(config, use_karras_sigmas=True, sigma_min=0.03, sigma_max=11.0)
        yield dict(config, timestep_type="continuous")
        if spacing == "leading":
            # Else the first noise level is 4096, and one unit in its last place is more than the tolerance.
            yield dict(config, rescale_betas_zero_snr=True)


def solver_cases():
    for betas, prediction, spacing in itertools.product(
        ["linear", "scaled_linear", "squaredcos_cap_v2"],
        ["epsilon", "sample", "v_prediction"],
        ["leading", "trailing", "linspace", None],
    ):
        config = dict(beta_schedule=betas, prediction_type=prediction)
        if spacing is not None:
            config["timestep_spacing"] = spacing
        yield dict(config)
        yield dict(config, solver_type="heun", final_sigmas_type="sigma_min", lower_order_final=False)
        yield dict(config, solver_order=3, use_karras_sigmas=True)
        yield dict(config, solver_order=3, final_sigmas_type="sigma_min", euler_at_final=True)
        yield dict(config, solver_order=1, use_exponential_sigmas=True)
        yield dict(config, use_karras_sigmas=True, final_sigmas_type="sigma_min")
        yield dict(config, solver_order=3, _steps=16)
        yield dict(config, solver_type="heun", euler_at_final=True, final_sigmas_type="sigma_min", _steps=16)
        yield dict(config, use_lu_lambdas=True)
        yield dict(config, lambda_min_clipped=-5.1, steps_offset=1)
        yield dict(config, thresholding=True, sample_max_value=1.5, rescale_betas_zero_snr=spacing != "leading")


def scheduler_cases():
    yield from old_cases()
    yield from (("euler", config, 0.0) for config in euler_cases())
    yield from (("dpm", config, 0.0) for config in solver_cases())


def rounded_sqrt(tensor):
    """torch's vectorised square root is off by one unit in places, differently on each processor, and rescaling the
    betas magnifies that a thousandfold. The fixture has the correctly rounded one."""
    return torch.from_numpy(numpy.sqrt(tensor.numpy()))


def run_scheduler(kind, scheduler, eta, samples, outputs, noises, variances):
    import diffusers.schedulers.scheduling_ddpm as ddpm

    row = []
    for index, t in enumerate(scheduler.timesteps):
        output = outputs[index]
        if kind == "ddpm":
            ddpm.randn_tensor = lambda shape, *_, noise=noises[index], **__: noise
            if scheduler.config.variance_type in ("learned", "learned_range"):
                output = torch.cat([output, variances[index]], dim=1)
            samples = scheduler.step(output, t, samples).prev_sample
        elif kind == "ddim":
            noise = noises[index] if eta > 0 else None
            samples = scheduler.step(output, t, samples, eta=eta, variance_noise=noise).prev_sample
        else:
            scheduler.scale_model_input(samples, t)
            samples = scheduler.step(output, t, samples).prev_sample
        row.append(samples.flatten())
    return torch.stack(row)


def write_schedulers(steps=6, most=16, numbers=8):
    """Every step of many scheduler configurations, fed with the same model outputs and noise."""
    generator = torch.Generator().manual_seed(5)
    start = torch.randn(1, 1, 1, numbers, generator=generator)
    outputs = torch.randn(most, 1, 1, 1, numbers, generator=generator)
    noises = torch.randn(most, 1, 1, 1, numbers, generator=generator)
    variances = torch.rand(most, 1, 1, 1, numbers, generator=generator)
    torch.Tensor.sqrt = rounded_sqrt
    kinds = dict(SAMPLERS, ddpm=DDPMScheduler)
    cases, expected = [], []
    for kind, config, eta in scheduler_cases():
        count = config.pop("_steps", steps)
        scheduler = kinds[kind](**config)
        scheduler.set_timesteps(count)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)  # rounded time steps may come twice
        samples = start * scheduler.init_noise_sigma
        rows = run_scheduler(kind, scheduler, eta, samples, outputs, noises, variances)
        assert torch.isfinite(rows).all(), (kind, config)
        cases.append(dict(config, _class_name=type(scheduler).__name__, _eta=eta,
                          _timesteps=[float(t) for t in scheduler.timesteps]))
        expected.append(rows)
    rows = dict(outputs=outputs, noises=noises, variances=variances)
    rows = {key: value.reshape(most, numbers).contiguous() for key, value in rows.items()}
    # One after the other: a configuration has as many rows as time steps.
    save_file(dict(rows, start=start.flatten(), expected=torch.cat(expected)), FIXTURES / "schedulers.safetensors")
    (FIXTURES / "schedulers.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(len(cases), "scheduler configurations")


if __name__ == "__main__":
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for seed, (name, (_, _, how)) in enumerate(MODELS.items()):
        model = write_model(seed, name)
        # As saved: what is not in the file has the defaults of whatever sampler reads it.
        folder = FIXTURES / name
        folder = folder / "scheduler" if (folder / "scheduler").exists() else folder
        config = json.loads((folder / "scheduler_config.json").read_text())
        write_parity(name, model, config, how)
    write_sprites_parity()
    write_schedulers()
