"""Ten models in plain JAX, a training step, and the layouts people give them on a mesh.

Tests and benchmarks import this folder as ``jax_models`` (`benchmarks.load_package`).

Each model is a module with

- ``Config``: sizes; the defaults are those of a published model, ``Config.small()`` is for tests;
- ``weights(config)``: a tree of `common.Weight`: shape, logical axes and scale of each parameter;
- ``INPUTS``: the logical axes of each entry of ``batch(config, size)``;
- ``forward(params, batch, config, constrain)`` and ``loss(...)``, a scalar. ``constrain(value,
  name)`` is where a layout puts a sharding on an activation (`layouts.ACTIVATIONS`).

A model with running statistics also has ``statistics(config)``; its loss takes them and returns
(loss, statistics).
"""

MODELS = ("gpt2", "llama", "moe", "bert", "vit", "t5", "resnet", "unet", "dit", "lstm")
