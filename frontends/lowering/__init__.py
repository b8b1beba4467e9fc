"""Framework-neutral building blocks that JAX traces; shared by the ONNX and PyTorch frontends."""
