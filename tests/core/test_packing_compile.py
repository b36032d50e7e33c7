"""Triton's kernels are compiled for GPUs, on machines that have none too; runs where Triton is installed."""

import os

import pytest

triton = pytest.importorskip("triton", reason="Triton comes with CUDA builds of torch")
pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION:UserWarning"),  # of Triton 3.9
]

from triton.backends.compiler import GPUTarget  # noqa: E402 - behind the skip
from triton.compiler import ASTSource  # noqa: E402

from mpqdm_core.packing import triton_kernels as kernels  # noqa: E402

POINTERS = {"codes": "*u8", "zero_point": "*fp32", "scale": "*fp32", "order": "*i64"}
SIZES = {"BLOCK_M": 64, "BLOCK_N": kernels.BLOCK_CHANNELS, "BLOCK_K": kernels.BLOCK_TERMS}
CASES = [
    ("fp16", 1, (1, 1)), ("bf16", 7, (3, 3)), ("fp32", 8, (1, 1)), ("i8", 3, (3, 3)), ("i8", 8, (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "bits", "window"), CASES)
@pytest.mark.parametrize("capability", [80, 90])
def test_a_kernel_becomes_machine_code_that_multiplies_with_tensor_cores(inputs, bits, window, capability):
    whole = inputs == "i8"
    kernel = kernels._multiply_integers if whole else kernels._multiply_floats
    out = "fp16" if whole else inputs
    constants = {"BITS": bits, "KERNEL_H": window[0], "KERNEL_W": window[1], "bias": None, **SIZES}
    constants |= {} if whole else {"WIDE": False}
    types = {**POINTERS, "x": f"*{inputs}", "out": f"*{out}", "step": "fp32"}
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert compiled.asm["cubin"][:4] == b"\x7fELF"
    own = {"i8": ".s8", "fp16": ".f16", "bf16": ".bf16"}.get(inputs)  # single precision takes no such cores
    assert own is None or any("mma" in line and own in line for line in compiled.asm["ptx"].splitlines())
