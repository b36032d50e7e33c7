"""Packed models: a diffusers folder as small as its bits say, which loads again bit for bit.

Importing this package registers the format with diffusers: `from_pretrained` of an exported folder then
works, for the denoiser and for whole pipelines. It is this package and not `mpqdm_core` that registers:
registering needs torch and diffusers, and importing `mpqdm_core` must stay cheap.
"""

from mpqdm_core.packing.archive import open_upload, zip_packed
from mpqdm_core.packing.diffusers_quantizer import PackedConfig
from mpqdm_core.packing.export import export_packed, measure_packed
from mpqdm_core.packing.load import attach_packed, load_packed, mismatch
from mpqdm_core.packing.manifest import FORMAT_VERSION, Manifest, read_manifest
from mpqdm_core.packing.network import set_mode, use_kernels
from mpqdm_core.packing.packed_layers import PackedConv2d, PackedLayer, PackedLinear
from mpqdm_core.packing.peft_lora import allow_lora
from mpqdm_core.packing.registration import register
from mpqdm_core.packing.sizes import LayerSize, PackedFolder, SizeItem, inspect_packed

register()

__all__ = [
    "FORMAT_VERSION",
    "LayerSize",
    "Manifest",
    "PackedConfig",
    "PackedConv2d",
    "PackedFolder",
    "PackedLayer",
    "PackedLinear",
    "SizeItem",
    "allow_lora",
    "attach_packed",
    "export_packed",
    "inspect_packed",
    "load_packed",
    "measure_packed",
    "mismatch",
    "open_upload",
    "read_manifest",
    "register",
    "set_mode",
    "use_kernels",
    "zip_packed",
]
