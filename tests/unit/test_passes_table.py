"""Every registered pass has its docstring, its lit file, and its place in docs/passes.md."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from pai.passes.base import create, find, parse_pipeline
from pai.passes.pipelines import STAGES, expand
from pai.passes.registry import REGISTRY
from pai.runtime.errors import PassFailure

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_pass_has_its_lit_file(name):
    path = ROOT / "tests" / "lit" / "passes" / f"{name}.mlir"
    assert path.is_file(), f"write {path.relative_to(ROOT)}"
    text = path.read_text()
    assert "RUN:" in text
    assert "CHECK" in text
    assert name in text


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_pass_keeps_the_house_rules(name):
    cls = find(name)
    assert cls.name == name
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert "Before" in cls.__doc__
    assert "After" in cls.__doc__
    assert dataclasses.asdict(create(name)) == dataclasses.asdict(cls())


def test_stages_name_known_passes():
    for pipeline in STAGES.values():
        for name, _ in parse_pipeline(pipeline):
            assert not name.startswith("pai-") or name in REGISTRY


def test_page_of_passes_is_up_to_date():
    path = ROOT / "tools" / "gen_passes_doc.py"
    spec = importlib.util.spec_from_file_location("gen_passes_doc", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert (ROOT / "docs" / "passes.md").read_text() == tool.page(), (
        "run python tools/gen_passes_doc.py"
    )


def test_pipelines_mix_ours_and_upstream():
    text = (
        "pai-dce,func.func(cse,canonicalize{max-iterations=2}),pai-fold-constants{max-elements=3}"
    )
    assert parse_pipeline(text) == [
        ("pai-dce", {}),
        ("func.func(cse,canonicalize{max-iterations=2})", {}),
        ("pai-fold-constants", {"max-elements": "3"}),
    ]
    assert expand("simplify, pai-dce{x=1 y=2}") == STAGES["simplify"] + ",pai-dce{x=1 y=2}"


def test_options_are_checked():
    assert create("pai-fold-constants", {"max-elements": "3"}).max_elements == 3
    with pytest.raises(PassFailure, match="unknown pass 'pai-x'"):
        create("pai-x")
    with pytest.raises(PassFailure, match="has no option 'size'"):
        create("pai-fold-constants", {"size": "3"})
    with pytest.raises(PassFailure, match="wants a int, not 'many'"):
        create("pai-fold-constants", {"max-elements": "many"})
