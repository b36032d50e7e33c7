"""Between the state of a network with packed layers and the tensors of its file.

A packed layer has two tensors in the file beside its bias, so that names and offsets take little room: the
bytes `weight_packed` and the numbers `scales`, each made of parts that follow one another. In memory every
part is a tensor of its own, and scales and input zero-points are float32, as the arithmetic wants them. Both
directions are exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mpqdm_core.errors import LoadError
from mpqdm_core.model_files import listed
from mpqdm_core.packing.manifest import Manifest
from mpqdm_core.packing.rounding import RoundedLayer, scale_type

BYTES, SCALES = "weight_packed", "scales"
Parts = dict[str, int]  # name of a part in the network's state -> its length


def byte_parts(name: str, manifest: Manifest) -> Parts:
    """What a layer's bytes are made of, in this order; input zero-points are one byte each."""
    spec = manifest.packed[name]
    return _present(
        {
            "weight_packed": spec.layout.code_bytes,
            "weight_zero": spec.layout.zero_point_bytes,
            "weight_map": spec.layout.map_bytes,
            "activation.zero_point": 0 if spec.activation_bits is None else len(manifest.timesteps),
        }
    )


def scale_parts(name: str, manifest: Manifest) -> Parts:
    """What a layer's scales are made of, in this order."""
    spec = manifest.packed[name]
    return _present(
        {
            "weight_scale": spec.layout.channels,
            "activation.prescale": manifest.inputs[name] if spec.prescale else 0,
            "activation.scale": 0 if spec.activation_bits is None else len(manifest.timesteps),
        }
    )


def stored_tensors(manifest: Manifest) -> dict[str, tuple[int, torch.dtype]]:
    """Length and type of the tensors of all packed layers in the file, biases aside, by full name."""
    scales = scale_type(manifest.scale_dtype)
    found = {}
    for name in manifest.packed:
        found[f"{name}.{BYTES}"] = (sum(byte_parts(name, manifest).values()), torch.uint8)
        found[f"{name}.{SCALES}"] = (sum(scale_parts(name, manifest).values()), scales)
    return found


def part_names(manifest: Manifest) -> set[str]:
    """Full names of all parts, as the network's state has them."""
    return {
        f"{name}.{part}"
        for name in manifest.packed
        for part in (*byte_parts(name, manifest), *scale_parts(name, manifest))
    }


def rounded_state(name: str, rounded: RoundedLayer, bias: Tensor | None) -> dict[str, Tensor]:
    """The state of a layer that was rounded for storage, by full name."""
    weight = rounded.weight
    found = {
        "weight_packed": weight.codes,
        "weight_scale": weight.scale,
        "weight_map": weight.channel_map if weight.layout.map_bytes else None,
        "weight_zero": weight.zero_points if weight.layout.zero_point_bytes else None,
        "activation.prescale": rounded.prescale,
        "activation.scale": rounded.input_scale,
        "activation.zero_point": rounded.input_zero_point,
        "bias": bias,
    }
    return {f"{name}.{part}": tensor for part, tensor in found.items() if tensor is not None}


def to_file(state: Mapping[str, Tensor], manifest: Manifest) -> dict[str, Tensor]:
    """Join the parts of every packed layer, in the types of the file."""
    joined = part_names(manifest)
    tensors = {name: tensor.detach() for name, tensor in state.items() if name not in joined}
    scales = scale_type(manifest.scale_dtype)
    for name in manifest.packed:
        for blob, parts, dtype in (
            (BYTES, byte_parts(name, manifest), torch.uint8),
            (SCALES, scale_parts(name, manifest), scales),
        ):
            pieces = [state[f"{name}.{part}"].detach().to(dtype) for part in parts]
            tensors[f"{name}.{blob}"] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return tensors


def to_memory(tensors: Mapping[str, Tensor], manifest: Manifest) -> dict[str, Tensor]:
    """Cut the tensors of every packed layer into its parts; tensors that are not there are left out.

    Raises:
        LoadError: a tensor has another length than its parts.
    """
    stored = stored_tensors(manifest)
    state = {name: tensor for name, tensor in tensors.items() if name not in stored}
    for name in manifest.packed:
        for blob, parts in ((BYTES, byte_parts(name, manifest)), (SCALES, scale_parts(name, manifest))):
            tensor = tensors.get(f"{name}.{blob}")
            if tensor is None:
                continue
            if tensor.shape != (sum(parts.values()),):
                raise LoadError(_wrong_shape(f"{name}.{blob}", tensor, [sum(parts.values())]))
            pieces = torch.split(tensor, list(parts.values()))
            for part, piece in zip(parts, pieces, strict=True):
                as_bytes = part.startswith("weight_") and blob == BYTES
                # A copy, so that no part keeps the others in memory.
                state[f"{name}.{part}"] = piece.clone() if as_bytes else piece.float().clone()
    return state


def memory_names(names: list[str], manifest: Manifest) -> list[str]:
    """Names of the file's tensors, those of packed layers replaced by their parts'."""
    stored = stored_tensors(manifest)
    return [name for name in names if name not in stored] + sorted(part_names(manifest))


def check_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], manifest: Manifest, source: str
) -> None:
    """Compare a file's tensors with what the manifest and the network's state need.

    Args:
        tensors: of the file.
        expected: the network's state; may be on the meta device.
        manifest: of the file.
        source: the file, for errors.

    Raises:
        LoadError: a tensor is missing, is not known, or has another shape or type.
    """
    stored, parts = stored_tensors(manifest), part_names(manifest)
    others = {name: tensor for name, tensor in expected.items() if name not in parts}
    missing = (stored.keys() | others.keys()) - tensors.keys()
    unknown = tensors.keys() - stored.keys() - others.keys()
    if missing:
        raise LoadError(f"{source} misses {listed(missing)}; export the model again")
    if unknown:
        raise LoadError(f"{source} has tensors the network does not know, {listed(unknown)}")
    for name, tensor in tensors.items():
        shape = [stored[name][0]] if name in stored else list(others[name].shape)
        if list(tensor.shape) != shape:
            raise LoadError(f"in {source}, {_wrong_shape(name, tensor, shape)}")
        floating = name in others and others[name].is_floating_point() and tensor.is_floating_point()
        if not floating and tensor.dtype != (stored[name][1] if name in stored else others[name].dtype):
            raise LoadError(f"in {source}, {name} has a wrong type, {tensor.dtype}; export the model again")


def _wrong_shape(name: str, tensor: Tensor, shape: list[int]) -> str:
    return f"{name} has shape {list(tensor.shape)}, expected {shape}; export the model again"


def _present(parts: Parts) -> Parts:
    return {name: length for name, length in parts.items() if length}
