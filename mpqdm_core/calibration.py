"""Calibration: what the network and each of its layers see while the real pipeline samples.

One pass of the deployment sampler, guidance included, gives both things every later step needs: the network's
own inputs, to be given again, and streamed statistics of each layer's input at each timestep.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mpqdm_core.calibration_journal import CalibrationJournal
from mpqdm_core.denoiser import Denoiser, SamplerSettings
from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.input_stats import LayerInputStats, StatsCollector
from mpqdm_core.progress import Report, silent
from mpqdm_core.recording import (
    InputRecorder,
    RecordedInputs,
    memory_errors,
    read_conditioning,
    replica,
    written_conditioning,
)
from mpqdm_core.sampling import sample

FORMAT_VERSION = 1
FIRST_SEED = (
    1_000_000_000  # calibration noise starts here, far from the small seeds people compare pictures with
)
STATS_FIELDS = ("channel_min", "channel_max", "mean_square", "rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSettings:
    """How much is looked at."""

    samples: int = 32  # pictures drawn; classes in turn
    seed: int = 0  # of the noise and of the choice of rows
    batch_size: int = 16  # pictures at a time
    rows_per_step: int = 32  # input rows kept of each layer at each timestep, for the activation range search
    sampler: SamplerSettings | None = None  # None: the model's own, as deployed

    def __post_init__(self) -> None:
        """Refuse counts below one and negative seeds.

        Raises:
            SettingsError: a value is outside its range.
        """
        for name in ("samples", "batch_size", "rows_per_step"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SettingsError(f"{name} must be a whole number from 1 up, got {value!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**31:
            raise SettingsError(f"seed must be a whole number in 0..{2**31 - 1}, got {self.seed!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Recorded inputs of the network and input statistics of its layers, by timestep."""

    settings: CalibrationSettings  # with the sampler filled in
    denoiser_hash: str  # of the full-precision model it was taken from
    inputs: RecordedInputs
    layers: Mapping[str, LayerInputStats]  # every layer that runs, exempt ones included

    @property
    def timesteps(self) -> tuple[int, ...]:
        """(T,) in the order they were visited."""
        return self.inputs.timesteps

    @property
    def content_hash(self) -> str:
        """Hash of everything in it: 64 hex digits."""
        digest = hashlib.sha256(self._header().encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; a crash half-way leaves an earlier file as it was."""
        target = Path(path)
        partial = target.with_name(target.name + ".part")
        tensors = self._tensors() | written_conditioning(self.inputs.conditioning)
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, partial, metadata={"calibration": self._header()})
        os.replace(partial, target)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing, damaged, or no calibration.
        """
        source = Path(path)
        if not source.is_file():
            raise LoadError(f"no calibration at {source}")
        try:
            with safe_open(source, framework="pt") as archive:
                header: dict[str, Any] = json.loads((archive.metadata() or {})["calibration"])
                tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
            if header["version"] != FORMAT_VERSION:
                raise LoadError(
                    f"{source.name} is a calibration of format {header['version']}, "
                    f"this version reads {FORMAT_VERSION}"
                )
            return cls._restored(header, tensors)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as err:
            raise LoadError(f"{source.name} is damaged or is not a calibration ({err})") from err

    @classmethod
    def _restored(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Calibration:
        settings = dict(header["settings"])
        settings["sampler"] = SamplerSettings(**settings["sampler"])
        conditioning = read_conditioning(tensors, header["conditioning"], len(header["timesteps"]))
        return cls(
            settings=CalibrationSettings(**settings),
            denoiser_hash=header["denoiser_hash"],
            inputs=RecordedInputs(
                timesteps=tuple(header["timesteps"]),
                sample=tensors["sample"],
                conditioning=conditioning,
                sample_name=header.get("sample_name", "sample"),
                timestep_by_sample=header.get("timestep_by_sample", False),
                timestep_values=tuple(header.get("timestep_values", ())),
                shared={name: tensors[f"shared/{name}"] for name in header.get("shared", ())},
            ),
            layers={
                name: LayerInputStats(**{field: tensors[f"layer/{name}/{field}"] for field in STATS_FIELDS})
                for name in header["layers"]
            },
        )

    def _header(self) -> str:
        return json.dumps(
            {
                "version": FORMAT_VERSION,
                "settings": asdict(self.settings),
                "denoiser_hash": self.denoiser_hash,
                "timesteps": self.inputs.timesteps,
                "conditioning": sorted(self.inputs.conditioning),
                "layers": list(self.layers),
                **self._other_names(),
            }
        )

    def _other_names(self) -> dict[str, Any]:
        """How the network is called, where not as usual: calibrations of U-Nets keep their hash."""
        inputs = self.inputs
        unusual = {
            "sample_name": "" if inputs.sample_name == "sample" else inputs.sample_name,
            "timestep_by_sample": inputs.timestep_by_sample,
            "timestep_values": inputs.timestep_values,
            "shared": sorted(inputs.shared),
        }
        return {name: value for name, value in unusual.items() if value}

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"conditioning/{name}": values for name, values in self.inputs.conditioning.items()}
        named |= {f"shared/{name}": value for name, value in self.inputs.shared.items()}
        for layer, stats in self.layers.items():
            named |= {f"layer/{layer}/{field}": getattr(stats, field) for field in STATS_FIELDS}
        return {"sample": self.inputs.sample, **named}


def calibrate(
    denoiser: Denoiser,
    settings: CalibrationSettings | None = None,
    report: Report = silent,
    *,
    checkpoint: str | Path | None = None,
) -> Calibration:
    """Sample with the deployment sampler and write down what the network and its layers are given.

    Args:
        denoiser: the full-precision model; it is not touched, other callers may sample it meanwhile.
        settings: None takes the defaults.
        report: told every sampling step; may raise `Cancelled`.
        checkpoint: file that keeps what was heard so far; if it is there, the calibration goes on from it,
            with the same result. It is deleted at the end.

    Raises:
        DataError: an input is not finite (the sentence names layer and timestep), a layer did not run, or
            the checkpoint is of another calibration.
        LoadError: the checkpoint is damaged.
        SettingsError: memory ran out, or the sampler's settings do not suit the model.
        Cancelled: raised by `report`.
    """
    settings = settings or CalibrationSettings()
    sampler = settings.sampler or denoiser.sampler
    network = replica(denoiser.network)
    recorder = InputRecorder()
    network.register_forward_pre_hook(recorder.on_forward, with_kwargs=True)
    collector = StatsCollector(
        rows_per_call=max(1, settings.rows_per_step // math.ceil(settings.samples / settings.batch_size)),
        rows_per_step=settings.rows_per_step,
        seed=settings.seed,
        timestep=recorder.timestep,
    )
    for layer in denoiser.layers:
        if layer.macs > 0:  # a layer that never runs has no input
            network.get_submodule(layer.name).register_forward_pre_hook(collector.watch(layer.name))
    settings = replace(settings, sampler=sampler)
    journal = None
    if checkpoint is not None:
        journal = CalibrationJournal(checkpoint, calibration_fingerprint(denoiser, settings), collector)
        journal.listen(network)
    first = FIRST_SEED + settings.seed * settings.samples
    classes = denoiser.num_classes
    advice = f"lower the calibration's batch_size, which is {settings.batch_size}"
    with memory_errors(advice), journal or contextlib.nullcontext():
        sample(
            denoiser.with_network(network, content_hash=denoiser.content_hash),
            labels=None if classes is None else [i % classes for i in range(settings.samples)],
            seeds=range(first, first + settings.samples),
            settings=sampler,
            batch_size=settings.batch_size,
            report=lambda done, total, _text: report(
                done, total, f"calibrating on {settings.samples} pictures"
            ),
        )
        inputs = recorder.finish()
        return Calibration(
            settings=settings,
            denoiser_hash=denoiser.content_hash,
            inputs=inputs,
            layers=collector.finish(inputs.timesteps),
        )


def calibration_fingerprint(denoiser: Denoiser, settings: CalibrationSettings) -> str:
    """Hash of everything that decides a calibration: 64 hex digits."""
    scheduler = denoiser.pipeline.scheduler
    parts = [
        denoiser.content_hash,
        denoiser.class_names,  # the prompts of a text-to-image model
        type(scheduler).__name__,
        {name: value for name, value in scheduler.config.items() if not name.startswith("_")},
        asdict(replace(settings, sampler=settings.sampler or denoiser.sampler)),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
