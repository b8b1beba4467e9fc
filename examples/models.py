"""Paths of the ONNX models that come inside installed packages, for examples and benchmarks.

``python examples/models.py NAME`` prints the path of one; without a name, the list.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class SampleModel:
    """A model inside an installed package.

    Args:
        package: the import name of the package that carries it.
        file: path inside the package.
        shapes: the ``--shape`` bindings of its open dimensions.
    """

    package: str
    file: str
    shapes: tuple[str, ...] = ()

    def path(self) -> Path:
        """Return where the file is; raises FileNotFoundError when the package is not installed."""
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"package '{self.package}' is not installed")
        return Path(spec.submodule_search_locations[0]) / self.file


SAMPLE_MODELS = {
    "magika": SampleModel("magika", "models/standard_v3_3/model.onnx", ("unk__214=8",)),
    "rapidocr-rec": SampleModel(
        "rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", ("x:1,3,48,320",)
    ),
    "rapidocr-det": SampleModel(
        "rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", ("x:1,3,640,640",)
    ),
    "rapidocr-cls": SampleModel(
        "rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", ("x:1,3,48,192",)
    ),
    "silero-vad": SampleModel(
        "silero_vad", "data/silero_vad_16k_op15.onnx", ("batch=1,sequence=576",)
    ),
    "text2tashkeel": SampleModel(
        "text2tashkeel", "models/bilstm.int8.onnx", ("batch=1,seq_len=64",)
    ),
}


def main() -> int:
    """Print one path, or the list of names."""
    if len(sys.argv) == 2 and sys.argv[1] in SAMPLE_MODELS:
        print(SAMPLE_MODELS[sys.argv[1]].path())
        return 0
    print(
        "usage: python examples/models.py NAME, with NAME one of:", *SAMPLE_MODELS, file=sys.stderr
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
