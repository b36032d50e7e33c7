"""The class-conditional latent diffusion pipeline of the bundled models, in the shape of LDM-4 on ImageNet.

diffusers has an unconditional `LDMPipeline` and a class-conditional `DiTPipeline`, but nothing that samples a
`UNet2DModel` on class labels with classifier-free guidance. This pipeline is that missing piece and no more:
the network, the VAE and every step of the schedule are diffusers' own, and its folders are ordinary ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, ImagePipelineOutput, UNet2DModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from mpqdm_core.errors import SettingsError, ShapeError

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
NO_GUIDANCE = 1.0  # at this scale the unconditional half would be multiplied by zero, so it is not computed


class ClassConditionalLDMPipeline(DiffusionPipeline):  # type: ignore[misc]  # diffusers is untyped
    """Samples pictures of asked classes: noise, DDIM with classifier-free guidance, VAE decoder.

    The last entry of the network's class embedding is the null class, seen when training drops a label.
    """

    model_cpu_offload_seq = "unet->vae"

    def __init__(
        self,
        unet: UNet2DModel,
        vae: AutoencoderKL,
        scheduler: DDIMScheduler,
        class_names: Sequence[str] | None = None,
        guidance_scale: float | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            unet: predicts the noise of scaled latents; `num_class_embeds` is the number of classes plus one.
            vae: its `scaling_factor` and `shift_factor`, when set, relate its latents to the network's.
            scheduler: DDIM.
            class_names: one name per class, kept in `model_index.json`.
            guidance_scale: the scale this model was measured at, kept there too; a note, not a default of
                the call.

        Raises:
            SettingsError: the network has no class embedding, or the names do not match it.
        """
        super().__init__()
        embeddings = unet.config.num_class_embeds
        if embeddings is None or embeddings < 2:
            raise SettingsError(
                f"num_class_embeds must be the number of classes plus one null class, got {embeddings}"
            )
        if class_names is not None and len(class_names) != embeddings - 1:
            raise SettingsError(f"expected {embeddings - 1} class names, got {len(class_names)}")
        self.register_modules(unet=unet, vae=vae, scheduler=scheduler)
        names = None if class_names is None else list(class_names)
        self.register_to_config(class_names=names, guidance_scale=guidance_scale)

    @property
    def num_classes(self) -> int:
        """Classes one can ask for: the null class is not counted."""
        return int(self.unet.config.num_class_embeds) - 1

    @property
    def null_class(self) -> int:
        """Index of the null class in the class embedding."""
        return self.num_classes

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int] | Tensor,
        generator: Sequence[torch.Generator] | torch.Generator | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 3.0,
        eta: float = 0.0,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw one picture per label.

        Args:
            class_labels: (N,) classes, each in 0..num_classes-1, or the null class.
            generator: one per sample, so that a picture depends on its own generator alone.
            num_inference_steps: DDIM steps.
            guidance_scale: w in eps_u + w (eps_c - eps_u); 1.0 skips the unconditional half.
            eta: 0 for deterministic DDIM, 1 for DDPM-like noise, drawn from `generator`.
            latents: (N, C, h, w) starting noise instead of the generators' first draw.
            output_type: "pil", "np" (N, H, W, 3) in [0, 1], "pt" (N, 3, H, W) in [0, 1], or "latent", the
                network's final (N, C, h, w), not decoded.
            return_dict: False returns a tuple.

        Returns:
            `ImagePipelineOutput` with `images`.

        Raises:
            SettingsError: a label, the number of generators or the output type is not allowed.
            ShapeError: `latents` has another shape than the network's input.
        """
        labels = self._checked_labels(class_labels)  # (N,)
        if output_type not in OUTPUT_TYPES:
            raise SettingsError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}")
        generators: Any = list(generator) if isinstance(generator, Sequence) else generator
        if isinstance(generators, list) and len(generators) != len(labels):
            raise SettingsError(f"expected one generator per label, {len(labels)}, got {len(generators)}")

        # First: some samplers say only then how loud the noise they start from is.
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        x = self._starting_noise(len(labels), generators, latents)  # (N, C, h, w)
        guided = guidance_scale != NO_GUIDANCE
        null = torch.full_like(labels, self.null_class)  # (N,)
        network_labels = torch.cat([null, labels]) if guided else labels  # (2N,) or (N,)
        taken = inspect.signature(self.scheduler.step).parameters  # samplers without noise have neither
        noisy = {k: v for k, v in {"eta": eta, "generator": generators}.items() if k in taken}
        for timestep in self.progress_bar(self.scheduler.timesteps):
            network_input = self.scheduler.scale_model_input(torch.cat([x, x]) if guided else x, timestep)
            noise = self.unet(network_input, timestep, class_labels=network_labels).sample
            if guided:
                noise_null, noise_class = noise.chunk(2)
                noise = noise_null + guidance_scale * (noise_class - noise_null)
            x = self.scheduler.step(noise, timestep, x, **noisy).prev_sample

        images = x if output_type == "latent" else self._finished(self.decode_latents(x), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Turn the network's latents (N, C, h, w) into pictures (N, 3, H, W) in [0, 1]."""
        shift = self.vae.config.shift_factor or 0.0
        pictures = self.vae.decode(latents / self.vae.config.scaling_factor + shift).sample
        clamped: Tensor = (pictures / 2 + 0.5).clamp(0, 1)
        return clamped

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Turn pictures (N, 3, H, W) in [0, 1] into the network's latents (N, C, h, w), by posterior mean."""
        shift = self.vae.config.shift_factor or 0.0
        latents: Tensor = self.vae.encode(images * 2 - 1).latent_dist.mode()
        return (latents - shift) * float(self.vae.config.scaling_factor)

    def _finished(self, pictures: Tensor, output_type: str) -> Any:
        if output_type == "pt":
            return pictures
        arrays = pictures.cpu().permute(0, 2, 3, 1).float().numpy()  # (N, H, W, 3)
        return arrays if output_type == "np" else self.numpy_to_pil(arrays)

    def _checked_labels(self, class_labels: Sequence[int] | Tensor) -> Tensor:
        labels = torch.as_tensor(class_labels, device=self._execution_device)
        if labels.ndim != 1 or len(labels) == 0 or labels.is_floating_point():
            raise SettingsError(f"class_labels must be a list of whole numbers, got {class_labels!r}")
        null = self.null_class
        wrong = labels[(labels < 0) | (labels > null)].tolist()
        if wrong:
            raise SettingsError(f"class labels must be in 0..{null - 1}, or {null} for none, got {wrong[0]}")
        return labels.long()

    def _starting_noise(self, count: int, generators: Any, latents: Tensor | None) -> Tensor:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (count, self.unet.config.in_channels, height, width)
        if latents is None:
            device = self._execution_device
            latents = randn_tensor(shape, generator=generators, device=device, dtype=self.unet.dtype)
        elif tuple(latents.shape) != shape:
            raise ShapeError(f"latents must have shape {shape}, got {tuple(latents.shape)}")
        start: Tensor = latents.to(self._execution_device, self.unet.dtype) * self.scheduler.init_noise_sigma
        return start
