"""lit: `lit tests/lit` runs pai-opt, %run-partitioned and filecheck over the .mlir files."""

import os
import sys

import lit.formats

config.name = "pai"  # noqa: F821 - lit defines it
config.test_format = lit.formats.ShTest(False)  # noqa: F821
config.suffixes = [".mlir"]  # noqa: F821
config.test_source_root = os.path.dirname(__file__)  # noqa: F821, PTH120
config.test_exec_root = os.path.join(  # noqa: F821, PTH118
    os.path.dirname(__file__),  # noqa: PTH120
    "..",
    "..",
    "build",
    "lit",
)

# pai is found through PYTHONPATH (build/tree) or the installed wheel, never the current folder.
for name in ("PYTHONPATH", "PAI_DEBUG"):
    if name in os.environ:
        config.environment[name] = os.environ[name]  # noqa: F821
bin_folder = os.path.dirname(sys.executable)  # noqa: PTH120
config.environment["PATH"] = os.pathsep.join((bin_folder, os.environ["PATH"]))  # noqa: F821
config.substitutions.append((r"(?<![\w/.-])pai-opt(?= )", f"{sys.executable} -P -m pai.opt"))  # noqa: F821
runner = os.path.join(config.test_source_root, "run_partitioned.py")  # noqa: F821, PTH118
config.substitutions.append(("%run-partitioned", f"{sys.executable} -P {runner}"))  # noqa: F821
