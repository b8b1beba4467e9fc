import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy import plan_write
from pai.passes.strategy.explain import explain
from pai.passes.strategy.plan import (
    OBJECTIVES,
    RECOMPUTE,
    Alternative,
    CollectiveCost,
    Pipeline,
    Plan,
    Prediction,
    Stage,
    TensorLayout,
    layout_from_texts,
    layout_to_texts,
    matches,
    parse_plan,
    plan_from_toml,
    plan_to_toml,
)
from pai.passes.strategy.plan_diff import diff_plans
from pai.passes.strategy.plan_segments import check_segments, parse_chunk
from pai.runtime.errors import InvalidCluster, InvalidSharding
from pai.runtime.mesh import AxisRef, Mesh, Sharding

MESH = Mesh((("data", 4), ("model", 2)))
HAND = """
[mesh]
data = 4
model = 2

[patterns]
"encoder.*.weight" = ["model", ""]
'/.*\\.bias/' = ["model"]

[arguments]
"x" = ["data p0", ""]
"""

names = st.text(min_size=1, max_size=12)
seconds = st.floats(0, 1e3, allow_nan=False)
sizes = st.integers(0, 2**50)


@st.composite
def layouts(draw):
    """Layouts over MESH with whole axes and sub-axes, each device bit used at most once."""
    atoms = draw(st.permutations(["data:(1)2", "data:(2)2", "model"]))
    count = draw(st.integers(0, 3))
    dims = [[] for _ in range(draw(st.integers(0 if not count else 1, 4)))]
    for atom in atoms[:count]:
        draw(st.sampled_from(dims)).append(atom)
    texts = []
    for axes in dims:
        priority = draw(st.none() | st.integers(0, 9))
        texts.append(",".join(axes) + ("" if priority is None else f" p{priority}"))
    return layout_from_texts(texts, MESH)


@st.composite
def pipelines(draw):
    """Pipelines as the reader accepts them, with and without what each stage holds."""
    stages = draw(st.integers(1, 4))
    if stages == 1:
        return Pipeline(microbatches=draw(st.integers(1, 8)))
    virtual = draw(st.integers(1, 3))
    schedule = "interleaved" if virtual > 1 else draw(st.sampled_from(["gpipe", "1f1b"]))
    microbatches = stages * draw(st.integers(1, 4))
    if draw(st.booleans()):
        return Pipeline(stages, virtual, microbatches, schedule)
    cuts = sorted(draw(st.sets(st.integers(1, 40), min_size=stages * virtual - 1,
                               max_size=stages * virtual - 1)))  # fmt: skip
    ends = list(zip([0, *cuts], [*cuts, 41], strict=True))
    chunks = [f"layer[{lo}:{hi}]" if hi > lo + 1 else f"layer[{lo}]" for lo, hi in ends]
    own = draw(st.sampled_from([None, Mesh((("data", 2), ("model", 4)))]))
    numbered = draw(st.booleans())
    parts = tuple(
        Stage(
            tuple(chunks[s::stages]),
            own if s == 0 else None,
            tuple(range(8 * s, 8 * s + 8)) if numbered else (),
        )
        for s in range(stages)
    )
    return Pipeline(stages, virtual, microbatches, schedule, parts)


@st.composite
def plans(draw):
    uses = st.builds(
        CollectiveCost, names, sizes, sizes, sizes, seconds, st.sampled_from(["", "chip", "host"])
    )
    globs = names.filter(lambda name: not name.startswith("/"))
    figures = {key: draw(seconds) for key in plan_write.SECONDS}
    figures |= {key: draw(sizes) for key in plan_write.BYTES}
    return Plan(
        mesh=MESH,
        arguments=tuple(draw(st.dictionaries(names, layouts(), max_size=4)).items()),
        patterns=tuple(draw(st.dictionaries(globs, layouts(), max_size=3)).items()),
        values=tuple(draw(st.dictionaries(globs, layouts(), max_size=2)).items()),
        zero=tuple(
            draw(
                st.dictionaries(st.sampled_from(["data", "model"]), st.integers(0, 3), max_size=2)
            ).items()
        ),
        recompute=tuple(
            draw(st.dictionaries(globs, st.sampled_from(RECOMPUTE), max_size=2)).items()
        ),
        pipeline=draw(pipelines()),
        replicas=draw(st.integers(1, 9)),
        strategy=draw(names),
        cluster=draw(st.text(max_size=8)),
        device_memory_bytes=draw(sizes),
        precision=draw(st.sampled_from(["", "bf16", "f32"])),
        objective=draw(st.sampled_from(OBJECTIVES)),
        predicted=Prediction(
            **figures,
            collectives=tuple(draw(st.lists(uses, max_size=2))),
            notes=tuple(draw(st.lists(names, max_size=2))),
        ),
        alternatives=tuple(
            draw(
                st.lists(
                    st.builds(Alternative, names, names, st.none() | seconds, st.none() | sizes),
                    max_size=3,
                )
            )
        ),
    )


@settings(max_examples=150, deadline=None)
@given(plans())
def test_round_trip_is_byte_identical(plan):
    text = plan_to_toml(plan)
    back = plan_from_toml(text)
    assert back == plan
    assert plan_to_toml(back) == text
    assert json.loads(plan.to_json()) == tomllib.loads(text)
    assert parse_plan(plan.to_json(), "p.json").plan == plan
    assert not diff_plans(plan, back).differs


def test_a_plan_by_hand():
    plan = plan_from_toml(HAND, "p.toml")
    assert plan.mesh == MESH
    found = plan.layouts(["x", "encoder.0.weight", "encoder.0.bias", "decoder.weight"])
    assert found["x"] == TensorLayout(Sharding(((AxisRef("data"),), ())), (0, None))
    assert found["encoder.0.weight"].sharding == Sharding(((AxisRef("model"),), ()))
    assert found["encoder.0.bias"].sharding == Sharding(((AxisRef("model"),),))
    assert "decoder.weight" not in found


def test_exact_names_come_before_patterns_and_first_patterns_before_later_ones():
    plan = plan_from_toml(
        '[mesh]\na = 2\n[patterns]\n"w*" = ["a"]\n"w1" = [""]\n[arguments]\n"w2" = [""]\n'
    )
    found = plan.layouts(["w1", "w2"])
    assert found["w1"].sharding.dims == ((AxisRef("a"),),)
    assert found["w2"].sharding.dims == ((),)


def test_glob_and_regex():
    assert matches("layer.*.w", "layer.12.w")
    assert not matches("layer.*.w", "xlayer.12.w")
    assert matches(r"/layer\.\d+\.w/", "layer.12.w")
    assert not matches(r"/layer\.\d+/", "layer.12.w")


def test_sub_axes():
    texts = ["data:(1)2", "model,data:(2)2 p3"]
    layout = layout_from_texts(texts, MESH)
    assert layout.sharding.dims[1] == (AxisRef("model"), AxisRef("data", 2, 2))
    assert layout_to_texts(layout) == texts


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('["model", ""]', '["modle", ""]', InvalidSharding, r"p\.toml:7: .*no axis 'modle'"),
        ('["model", ""]', '["model", "model"]', InvalidSharding, r"p\.toml:7: .*used twice"),
        ('["data p0"', '["data:(3)2"', InvalidSharding, r"p\.toml:11: .*does not divide"),
        ('["data p0"', '["data,data:(1)2"', InvalidSharding, r"p\.toml:11: .*used twice"),
        ('["data p0"', '["data+model"', InvalidSharding, r"p\.toml:11: .*is not an axis"),
        ('["model", ""]', '"model"', InvalidSharding, r"p\.toml:7: .*must be a list of strings"),
        ("data = 4", "data = 0", InvalidSharding, r"p\.toml:3: .*at least 1"),
        ("data = 4", "data = 4.5", InvalidSharding, r"p\.toml:3: .*must be an integer"),
        (
            "[mesh]",
            "devices = 4\n[mesh]",
            InvalidCluster,
            r"p\.toml:2: .*makes 8 devices but 'devices' says 4",
        ),
        ("[mesh]", "[mesh]\np3 = 1", InvalidSharding, r"p\.toml:3: .*not a name for an axis"),
        ("[mesh]", "[mesh]\n'a b' = 1", InvalidSharding, r"p\.toml:3: .*not a name for an axis"),
        ("[mesh]", "[mash]", InvalidSharding, "'mesh' is missing"),
        ("[mesh]", "shape = 3\n[mesh]", InvalidSharding, r"p\.toml:2: key 'shape' is unknown"),
        ("[mesh]", "format = 7\n[mesh]", InvalidSharding, "this version reads 1"),
        ("[patterns]", "[patterns", InvalidSharding, r"p\.toml:6: not valid TOML: .*line 6"),
        (
            "[mesh]",
            "objective = 'speed'\n[mesh]",
            InvalidSharding,
            r"p\.toml:2: .*'speed'.*latency",
        ),
        ("[mesh]", "precision = 'f99'\n[mesh]", InvalidSharding, r"p\.toml:2: .*'f99'.*bf16"),
        ("[mesh]", "[zero]\ndata = 4\n[mesh]", InvalidSharding, r"p\.toml:3: .*stages 0, 1, 2"),
        ("[mesh]", "[zero]\ndat = 1\n[mesh]", InvalidSharding, r"p\.toml:3: .*no axis.*'data'"),
        ("[mesh]", "[recompute]\n'*' = 'all'\n[mesh]", InvalidSharding, r"p\.toml:3: .*'all'"),
        ("[mesh]", "[values]\n'v' = ['x']\n[mesh]", InvalidSharding, r"p\.toml:3: .*no axis 'x'"),
        ("[mesh]", "zero.data = 4\n[mesh]", InvalidSharding, r"p\.toml:2: .*stages 0, 1, 2"),
        ("/.*\\.bias/", "/(/", InvalidSharding, r"p\.toml:8: .*not a regular expression"),
    ],
)
def test_errors_name_file_and_line(old, new, error, message):
    assert old in HAND
    with pytest.raises(error, match=message):
        plan_from_toml(HAND.replace(old, new), "p.toml")


PIPELINE = """[pipeline]
stages = 2
virtual = 2
microbatches = 4
schedule = "interleaved"

[[pipeline.stage]]
chunks = ["embedding, layer[0:2]", "layer[4:6]"]
devices = "0-7"

[[pipeline.stage]]
chunks = ["layer[2:4]", "layer[6:8], head"]
mesh = { data = 2, model = 4 }
devices = "8-15"
"""


def test_a_pipeline_by_hand():
    pipeline = plan_from_toml(HAND + PIPELINE).pipeline
    assert (pipeline.stages, pipeline.virtual, pipeline.microbatches) == (2, 2, 4)
    assert pipeline.order() == (
        "embedding, layer[0:2]", "layer[2:4]", "layer[4:6]", "layer[6:8], head",
    )  # fmt: skip
    assert pipeline.parts[1].mesh == Mesh((("data", 2), ("model", 4)))
    assert pipeline.parts[1].devices == tuple(range(8, 16))
    assert plan_from_toml(HAND + PIPELINE).num_devices == 16


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("stages = 2", "stages = 3", 14, "is 3 but there are 2"),
        ("stages = 2", "stages = 0", 14, "at least 1"),
        ("virtual = 2\n", "", 16, "interleaved' with 1 virtual"),
        ('"interleaved"', '"1f1b"', 15, "'1f1b' with 2 virtual"),
        ('"interleaved"', '"2f2b"', 17, "'2f2b'.*gpipe, 1f1b"),
        ('"interleaved"', '"none"', 17, "'none' but there are 2 stages"),
        ("microbatches = 4", "microbatches = 3", 16, "2 stages do not divide"),
        ('"layer[4:6]"', '"layer[5:6]"', 20, r"'layer\[5\]' follows 4 of 'layer'"),
        ('"layer[4:6]"', '"layer[4:4]"', 20, "is empty"),
        ('"layer[4:6]"', '"layer[4:"', 20, "no segment"),
        (', "layer[4:6]"', "", 20, "1 chunks for 2 virtual"),
        ("layer[6:8], head", "embedding", 24, "'embedding' comes back"),
        ('"0-7"', '"0-6"', 21, "7 devices for a mesh of 8"),
        ('"0-7"', '"7-0"', 21, "write device numbers"),
        ('"8-15"', '"7-14"', 26, "device 7 twice"),
        ('"8-15"', '"9-16"', 26, "device 16"),
        ('devices = "8-15"', "", 23, "'pipeline.stage.1.devices' is missing"),
        ("model = 4 }", "node = 4 }", 25, "axis 'node', which"),
        (", model = 4 }", "}", 25, "lacks the axis 'model'"),
        ('devices = "8-15"', "place = 1", 26, "'pipeline.stage.1.place' is unknown"),
    ],
)
def test_violations_in_a_pipeline_name_their_line(old, new, line, message):
    assert old in PIPELINE
    with pytest.raises(InvalidSharding, match=rf"^p\.toml:{line}: .*{message}"):
        plan_from_toml(HAND + "\n" + PIPELINE.replace(old, new), "p.toml")


def test_a_file_from_before_there_were_pipelines():
    old = 'stages = 2\nmicrobatches = 4\nschedule = "1f1b"\n' + HAND
    assert plan_from_toml(old).pipeline == Pipeline(2, 1, 4, "1f1b")
    with pytest.raises(InvalidSharding, match="p:1: key 'stages' is said twice"):
        plan_from_toml(old + PIPELINE, "p")


def test_segments_of_a_model():
    segments = [("embedding", 1), ("layer", 8), ("head", 1)]
    order = plan_from_toml(HAND + PIPELINE).pipeline.order()
    check_segments([parse_chunk(chunk) for chunk in order], segments)
    for chunks, message in [
        (["embedding, layer", "tail"], "no segment 'tail'"),
        (["embedding, layer[0:7]", "head"], "7 of the 8 'layer'"),
        (["layer", "embedding, head"], "out of order"),
    ]:
        with pytest.raises(InvalidSharding, match=message):
            check_segments([parse_chunk(chunk) for chunk in chunks], segments)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('"data": 4', '"data": 0', 4),
        ('"stages": 2', '"stages": 3', 8),
        ('"layer[2:4]"', '"layer[3:4]"', 13),
        ('["data p0", ""]', '["node", ""]', 19),
        ('["data p0", ""]', '["data p0", ""', 19),
        ('"objective": "latency"', '"objective": "speed"', 2),
    ],
)
def test_violations_in_json_name_their_line(old, new, line):
    text = """{
  "objective": "latency",
  "mesh": {
    "data": 4,
    "model": 2
  },
  "pipeline": {
    "stages": 2,
    "microbatches": 4,
    "stage": [
      { "chunks": ["layer[0:2]"] },
      {
        "chunks": [
          "layer[2:4]"
        ]
      }
    ]
  },
  "arguments": { "x": ["data p0", ""] }
}"""
    assert parse_plan(text, "p.json").plan.num_devices == 16
    assert old in text
    with pytest.raises(InvalidSharding, match=rf"^p\.json:{line}: "):
        parse_plan(text.replace(old, new), "p.json")


def sample():
    return Plan(
        mesh=MESH,
        arguments=(("x", layout_from_texts(["data p0", ""], MESH)),),
        strategy="data=4 model=2",
        cluster="h100-sxm",
        device_memory_bytes=80 << 30,
        predicted=Prediction(
            0.01, 0.006, 0.001, 0.002, 0.001,
            parameter_bytes=4 << 30, input_bytes=1 << 20, output_bytes=1 << 20,
            temporary_bytes=1 << 30,
            collectives=(CollectiveCost("all_reduce", 2, 4, 1 << 24, 0.002, "chip"),),
        ),
        alternatives=(
            Alternative("replicated", "2.00 times slower", 0.02, 10 << 30),
            Alternative("model=8", "cannot be partitioned: why"),
        ),
    )  # fmt: skip


def test_explain_says_what_and_why():
    text = explain(sample())
    assert text == explain(sample())
    assert "\x1b" not in text
    for part in (
        "plan: data=4 model=2",
        "10 ms a run, 5.0 GiB of 80.0 GiB a device (6%)",
        "bound by arithmetic (60% of the time)",
        "all_reduce",
        "[data p0, whole]",
        "+10 ms",
        "+5.0 GiB",
        "2.00 times slower",
        "cannot be partitioned: why",
    ):
        assert part in text, part
    assert "\x1b" in explain(sample(), color=True)


def test_the_order_of_devices_is_part_of_a_plan():
    plan = plan_from_toml("device_ids = [0, 2, 1, 3]\n[mesh]\nx = 2\ny = 2\n")
    assert plan.mesh == Mesh((("x", 2), ("y", 2)), (0, 2, 1, 3))
    assert plan_from_toml(plan_to_toml(plan)) == plan
    with pytest.raises(InvalidSharding, match="lists the devices \\[0, 2\\]"):
        plan_from_toml("device_ids = [0, 2]\n[mesh]\nx = 2\n")
