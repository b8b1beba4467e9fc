"""StableHLO, CHLO and portable artifacts as JAX, torch-mlir and TensorFlow write them."""
