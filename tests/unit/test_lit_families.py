"""Each family of partitioned operations has a CHECK file and one that runs."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "lit" / "passes" / "partition"
NAMES = sorted(path.stem for path in FOLDER.glob("*.mlir") if not path.stem.endswith("-invalid"))
FAMILIES = sorted({name.removesuffix("-run") for name in NAMES})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_both_files(family):
    checked = (FOLDER / f"{family}.mlir").read_text()
    run = (FOLDER / f"{family}-run.mlir").read_text()
    assert "pai-localize" in checked
    assert "CHECK-LABEL" in checked
    assert "%run-partitioned" in run
    assert "CHECK: OK devices=" in run


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*-invalid.mlir")), ids=lambda p: p.stem)
def test_errors_say_what_and_where(path):
    text = path.read_text()
    assert "--verify-diagnostics" in text
    assert text.count("expected-error") == text.count("// -----") + 1
