"""What fine-tuning leaves behind: a small file that turns the quantized model into the fine-tuned one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.errors import DataError, LoadError
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.layers import QuantLayer
from mpqdm_core.lora import LowRank
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import QuantizedDenoiser, quantize
from mpqdm_core.trainable import trained_biases, trained_layers, trained_tensors

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """Trained corrections and scales, and everything that says what they belong to.

    Attributes:
        tensors: "layer/name" -> tensor, as `trainable.trained_tensors` names them; zero-points are whole.
        denoiser_hash: of the full-precision model.
        calibration_hash: of the calibration whose pre-scaling and ranges it started from.
        plan: bits of every channel.
        quant_settings: of the student.
        settings: of the run.
        timesteps: the ranges' timesteps, in order; another schedule uses the nearest.
        steps: optimiser steps taken.
        losses: held-out losses by "term before", "term after" and so on; empty if not measured.
    """

    tensors: Mapping[str, Tensor]
    denoiser_hash: str
    calibration_hash: str
    plan: BitPlan
    quant_settings: QuantSettings
    settings: FinetuneSettings
    timesteps: tuple[int, ...]
    steps: int
    losses: Mapping[str, float] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        """Hash of tensors, plan and settings: 64 hex digits."""
        digest = hashlib.sha256(self._header().encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name}:{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; a crash half-way leaves an earlier file as it was."""
        target = Path(path)
        partial = target.with_name(target.name + ".part")
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, partial, metadata={"adapter": self._header()})
        os.replace(partial, target)

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing, damaged, of a newer version, no adapter, or holds NaN or infinity.
        """
        source = Path(path)
        if not source.is_file():
            raise LoadError(f"no adapter at {source}")
        try:
            with safe_open(source, framework="pt") as archive:
                header: dict[str, Any] = json.loads((archive.metadata() or {})["adapter"])
                tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
            if header["version"] != FORMAT_VERSION:
                raise LoadError(
                    f"{source.name} is an adapter of format {header['version']}, "
                    f"this version reads {FORMAT_VERSION}"
                )
            broken = [name for name, values in tensors.items() if not torch.isfinite(values).all()]
            if broken:
                raise LoadError(f"{source.name} holds NaN or infinite values, first in {broken[0]}")
            return cls(
                tensors=tensors,
                denoiser_hash=header["denoiser_hash"],
                calibration_hash=header["calibration_hash"],
                plan=BitPlan.from_json(header["plan"]),
                quant_settings=QuantSettings.from_dict(header["quant_settings"]),
                settings=FinetuneSettings(**header["settings"]),
                timesteps=tuple(header["timesteps"]),
                steps=int(header["steps"]),
                losses=header["losses"],
            )
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as err:
            raise LoadError(f"{source.name} is damaged or is not an adapter ({err})") from err

    def _header(self) -> str:
        return json.dumps(
            {
                "version": FORMAT_VERSION,
                "denoiser_hash": self.denoiser_hash,
                "calibration_hash": self.calibration_hash,
                "plan": self.plan.to_json(),
                "quant_settings": self.quant_settings.as_dict(),
                "settings": self.settings.as_dict(),
                "timesteps": self.timesteps,
                "steps": self.steps,
                "losses": dict(self.losses),
            },
            sort_keys=True,
        )


def take_adapter(
    student: QuantizedDenoiser,
    settings: FinetuneSettings,
    *,
    timesteps: tuple[int, ...],
    steps: int,
    losses: Mapping[str, float] | None = None,
) -> Adapter:
    """Copy what a student has learned so far; zero-points are rounded to whole levels in the copy.

    Args:
        student: in training or after it, not frozen.
        settings: of the run.
        timesteps: of the ranges.
        steps: taken so far.
        losses: to keep with it.
    """
    tensors = {}
    for name, tensor in trained_tensors(trained_layers(student)).items():
        layer, _, kind = name.rpartition("/")
        copied = tensor.detach().cpu().clone()
        if kind.endswith("zero_point"):
            bits = _top_code(student.layers[layer], kind)
            copied = _whole(copied, bits, student.layers[layer].mid_rise if "weight" in kind else None)
        tensors[name] = copied
    return Adapter(
        tensors=tensors,
        denoiser_hash=student.source_hash,
        calibration_hash=student.calibration_hash,
        plan=student.plan,
        quant_settings=student.settings,
        settings=settings,
        timesteps=timesteps,
        steps=steps,
        losses=dict(losses or {}),
    )


def apply_adapter(
    denoiser: Denoiser, calibration: Calibration, adapter: Adapter, *, freeze: bool = True
) -> QuantizedDenoiser:
    """Quantize a model with what was learned: corrections merged, weights rounded once.

    Args:
        denoiser: the full-precision model the adapter was trained for; not touched.
        calibration: the one it was trained with.
        adapter: see `Adapter`.
        freeze: False keeps weights real and trainable.

    Raises:
        DataError: the adapter belongs to another model or calibration, or misses a tensor.
    """
    if adapter.denoiser_hash != denoiser.content_hash:
        raise DataError(f"this adapter was trained for another model than {denoiser.name}")
    if adapter.calibration_hash != calibration.content_hash:
        raise DataError("this adapter was trained with another calibration: calibrate with the same settings")
    student = quantize(denoiser, calibration, adapter.plan, adapter.quant_settings, freeze=False)
    load_tensors(student, adapter)
    if freeze:
        for layer in student.layers.values():
            layer.freeze_()
    digest = hashlib.sha256(f"{student.content_hash}:{adapter.content_hash}".encode()).hexdigest()
    return replace(student, denoiser=replace(student.denoiser, content_hash=digest))


def load_tensors(student: QuantizedDenoiser, adapter: Adapter) -> None:
    """Write an adapter's tensors into a student that is not frozen.

    Raises:
        DataError: a tensor is missing or has another shape.
    """
    layers = trained_layers(student)
    for name, layer in layers.items():
        factor = adapter.tensors.get(f"{name}/low_rank_a")
        if factor is not None:
            low_rank = LowRank(layer.weight.shape, factor.shape[1], adapter.settings.conv_factors)
            layer.low_rank = low_rank.requires_grad_(False).to(layer.weight.device)
        if layer.bias is not None:
            layer.bias.requires_grad_(f"{name}/bias" in adapter.tensors)
    with torch.no_grad():
        for name, tensor in trained_tensors(layers).items():
            kept = adapter.tensors.get(name)
            if kept is None or kept.shape != tensor.shape:
                raise DataError(f"the adapter does not fit: {name} is missing or has another shape")
            tensor.copy_(kept)
    for bias in trained_biases(layers):
        bias.requires_grad_(False)


def _top_code(layer: QuantLayer, kind: str) -> Tensor:
    """Highest code of a zero-point's grid: of every channel's weights, or of the input."""
    if kind == "weight_zero_point":
        return (2**layer.bits - 1).float().cpu()
    return torch.tensor(float(2 ** (layer.activation.bits or 0) - 1))


def _whole(zero_point: Tensor, top: Tensor, mid_rise: Tensor | None) -> Tensor:
    """Round to a code the grid has; on mid-rise the zero-point is fixed between two levels and stays."""
    rounded = torch.minimum(zero_point.round().clamp(min=0.0), top)
    return rounded if mid_rise is None else torch.where(mid_rise.cpu(), zero_point, rounded)
