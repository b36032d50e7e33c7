"""Mixed-precision low-bit quantization of diffusion models."""
