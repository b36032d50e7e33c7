"""What full precision predicts along its own way, computed once and reused by every student of it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mpqdm_core.denoiser import Denoiser, SamplerSettings
from mpqdm_core.errors import DataError, LoadError, SettingsError
from mpqdm_core.families import FAMILIES
from mpqdm_core.network_calls import call_arguments
from mpqdm_core.progress import Report, silent
from mpqdm_core.recording import (
    InputRecorder,
    RecordedInputs,
    feature_map,
    hooks,
    memory_errors,
    output_tensor,
    read_conditioning,
    replica,
    written_conditioning,
)
from mpqdm_core.sampling import sample

FORMAT_VERSION = 1
FIRST_SEED = 2_000_000_000  # away from the seeds of calibration and from those people look at


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherRecord:
    """Inputs and outputs of a full-precision network at every step of M pictures.

    G is the number of network rows a picture takes: 2 with classifier-free guidance (unconditional first),
    else 1.
    """

    denoiser_hash: str  # of the teacher
    sampler: SamplerSettings
    timesteps: tuple[int, ...]  # (T,) in the order they were visited
    sample: Tensor  # (T, M, G, ...) float32: x_t going in
    conditioning: dict[str, Tensor]  # name -> (T, M, G, ...), e.g. class_labels
    prediction: Tensor  # (T, M, G, ...) float32
    feature: Tensor | None  # (T, M, G, C, h, w) float32 at the family's tap; None: not recorded
    sample_name: str = "sample"  # the network's first argument
    timestep_by_sample: bool = False  # see `RecordedInputs`
    timestep_values: tuple[float, ...] = ()
    shared: dict[str, Tensor] = field(default_factory=dict)

    @property
    def pictures(self) -> int:
        """M."""
        return int(self.sample.shape[1])

    @property
    def guided(self) -> bool:
        """Whether every picture has an unconditional and a conditional row."""
        return int(self.sample.shape[2]) == 2

    def arguments(self, slot: int, index: Tensor, device: torch.device | str) -> dict[str, Any]:
        """Keyword arguments that repeat the rows of the pictures `index` (m,) at one timestep: m * G rows."""

        def rows(values: Tensor) -> Tensor:
            return values[slot, index].flatten(0, 1).to(device)

        conditioning = {name: rows(values) for name, values in self.conditioning.items()}
        return call_arguments(self, slot, rows(self.sample), conditioning)

    @property
    def content_hash(self) -> str:
        """Hash of everything in it: 64 hex digits."""
        digest = hashlib.sha256(self._header().encode())
        for name, tensor in sorted(self._stored().items()):
            digest.update(f"{name}:{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; a crash half-way leaves an earlier file as it was."""
        target = Path(path)
        partial = target.with_name(target.name + ".part")
        tensors = self._stored() | written_conditioning(self.conditioning)
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, partial, metadata={"teacher": self._header()})
        os.replace(partial, target)

    @classmethod
    def load(cls, path: str | Path) -> TeacherRecord:
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing, damaged, or no teacher record.
        """
        source = Path(path)
        try:
            with safe_open(source, framework="pt") as archive:
                header: dict[str, Any] = json.loads((archive.metadata() or {})["teacher"])
                tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
            if header["version"] != FORMAT_VERSION:
                raise LoadError(
                    f"{source.name} is of format {header['version']}, this version reads {FORMAT_VERSION}"
                )
            return cls(
                denoiser_hash=header["denoiser_hash"],
                sampler=SamplerSettings(**header["sampler"]),
                timesteps=tuple(header["timesteps"]),
                sample=tensors["sample"],
                conditioning=read_conditioning(tensors, header["conditioning"], len(header["timesteps"])),
                prediction=tensors["prediction"],
                feature=tensors.get("feature"),
                sample_name=header["sample_name"],
                timestep_by_sample=header["timestep_by_sample"],
                timestep_values=tuple(header.get("timestep_values", ())),
                shared={name: tensors[f"shared/{name}"] for name in header.get("shared", ())},
            )
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as err:
            raise LoadError(f"{source.name} is damaged or is not a teacher's record ({err})") from err

    def _header(self) -> str:
        return json.dumps(
            {
                "version": FORMAT_VERSION,
                "denoiser_hash": self.denoiser_hash,
                "sampler": asdict(self.sampler),
                "timesteps": self.timesteps,
                "conditioning": sorted(self.conditioning),
                "sample_name": self.sample_name,
                "timestep_by_sample": self.timestep_by_sample,
                **({"timestep_values": self.timestep_values} if self.timestep_values else {}),
                **({"shared": sorted(self.shared)} if self.shared else {}),
            }
        )

    def _stored(self) -> dict[str, Tensor]:
        return {**self.tensors(), **{f"shared/{name}": value for name, value in self.shared.items()}}

    def part(self, first: int, end: int) -> TeacherRecord:
        """The pictures `first` to `end` - 1."""
        return self.with_tensors({name: tensor[:, first:end] for name, tensor in self.tensors().items()})

    def with_tensors(self, tensors: dict[str, Tensor]) -> TeacherRecord:
        """The same teacher and timesteps with other `tensors()`."""
        return replace(
            self,
            sample=tensors["sample"],
            prediction=tensors["prediction"],
            feature=tensors.get("feature"),
            conditioning={name: tensors[f"conditioning/{name}"] for name in self.conditioning},
        )

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of pictures by name, conditioning with a prefix."""
        named = {f"conditioning/{name}": values for name, values in self.conditioning.items()}
        feature = {} if self.feature is None else {"feature": self.feature}
        return {"sample": self.sample, "prediction": self.prediction, **feature, **named}


def record_teacher(
    denoiser: Denoiser,
    *,
    pictures: int = 64,
    seed: int = 0,
    sampler: SamplerSettings | None = None,
    features: bool = True,
    along: Denoiser | None = None,
    batch_size: int = 16,
    report: Report = silent,
) -> TeacherRecord:
    """Sample with the deployment sampler and keep every input and output of the full-precision network.

    Args:
        denoiser: full precision; it is not touched.
        pictures: M; classes in turn.
        seed: of the noise.
        sampler: None takes the model's own.
        features: also keep the features at the family's tap.
        along: a (quantized) model of the same kind whose way is followed instead: the teacher then says what
            it would have predicted where the student went.
        batch_size: pictures at a time.
        report: told every sampling step; may raise `Cancelled`.

    Raises:
        SettingsError: `pictures` below 1, memory ran out, or the sampler does not suit the model.
        DataError: a prediction is not finite.
        Cancelled: raised by `report`.
    """
    if pictures < 1 or batch_size < 1:
        raise SettingsError(f"pictures and batch_size must be at least 1, got {pictures} and {batch_size}")
    sampler = sampler or denoiser.sampler
    starts = range(0, pictures, batch_size)
    parts: list[dict[str, Tensor]] = []
    with memory_errors(f"record fewer than {pictures} pictures"):
        for number, start in enumerate(starts):
            listener = _Listener(features=features)
            seeds = range(start, min(start + batch_size, pictures))

            def told(done: int, total: int, _text: str, number: int = number) -> None:
                message = f"recording the teacher on {pictures} pictures"
                report(number * total + done, len(starts) * total, message)

            listener.sample(denoiser, along, seeds, FIRST_SEED + seed * 1_000_003, sampler, told)
            inputs, part = listener.finish(len(seeds))
            parts.append(part)
        joined = {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}
    if not bool(torch.isfinite(joined["prediction"]).all()):
        raise DataError(f"a prediction of {denoiser.name} is not finite: it cannot be a teacher")
    return TeacherRecord(
        denoiser_hash=denoiser.content_hash,
        sampler=sampler,
        timesteps=inputs.timesteps,
        sample=joined.pop("sample"),
        prediction=joined.pop("prediction"),
        feature=joined.pop("feature", None),
        conditioning=joined,
        sample_name=inputs.sample_name,
        timestep_by_sample=inputs.timestep_by_sample,
        timestep_values=inputs.timestep_values,
        shared=inputs.shared,
    )


class _Listener:
    """Hears one batch: what the sampled network was given, and what the teacher answers to that."""

    def __init__(self, *, features: bool) -> None:
        self._features, self._flip = features, False
        self._inputs = InputRecorder()

    def sample(
        self,
        teacher: Denoiser,
        along: Denoiser | None,
        pictures: range,
        first_seed: int,
        sampler: SamplerSettings,
        report: Report,
    ) -> None:
        """Draw the pictures; if the teacher does not do it itself, ask it afterwards."""
        drawn = along or teacher
        classes = drawn.num_classes
        network = replica(drawn.network)
        answering = network if along is None else replica(teacher.network)
        family = FAMILIES[teacher.family]
        self._flip = family.conditional_first
        tap = answering.get_submodule(family.feature_tap(answering))
        heard = self._inputs if along is None else InputRecorder()
        handles = [
            network.register_forward_pre_hook(heard.on_forward, with_kwargs=True),
            answering.register_forward_hook(self._on_prediction),
        ]
        if along is not None:
            before = answering.register_forward_pre_hook(self._inputs.on_forward, with_kwargs=True)
            handles.append(before)
        if self._features:
            handles.append(tap.register_forward_hook(self._on_feature))
        with hooks(*handles), torch.no_grad():
            sample(
                drawn.with_network(network, content_hash=drawn.content_hash),
                labels=None if classes is None else [picture % classes for picture in pictures],
                seeds=[first_seed + picture for picture in pictures],
                settings=sampler,
                batch_size=len(pictures),
                report=report,
            )
            if along is not None:
                inputs = heard.finish()
                device = next(answering.parameters()).device
                everything = torch.arange(inputs.samples_per_step)
                for slot in range(len(inputs.timesteps)):
                    answering(**inputs.arguments(slot, everything, device))

    def finish(self, pictures: int) -> tuple[RecordedInputs, dict[str, Tensor]]:
        """What was recorded, and tensors (T, pictures, G, ...) by name."""
        inputs = self._inputs.finish()
        named = {"sample": inputs.sample, **inputs.conditioning, **self._inputs.notes()}
        # A guided call holds all rows of one half, then all of the other; here the unconditional comes first.
        grouped = {
            name: values.reshape(len(values), -1, pictures, *values.shape[2:]).transpose(1, 2).contiguous()
            for name, values in named.items()
        }
        if self._flip:
            grouped = {name: values.flip(2) for name, values in grouped.items()}
        return inputs, grouped

    def _on_prediction(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._inputs.note("prediction", output_tensor(output))

    def _on_feature(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._inputs.note("feature", feature_map(output))
