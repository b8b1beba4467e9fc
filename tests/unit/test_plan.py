import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy.explain import explain
from pai.passes.strategy.plan import (
    Alternative,
    CollectiveCost,
    Plan,
    Prediction,
    TensorLayout,
    layout_from_texts,
    layout_to_texts,
    matches,
    plan_from_toml,
    plan_to_toml,
)
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
def plans(draw):
    uses = st.builds(CollectiveCost, names, sizes, sizes, sizes, seconds)
    return Plan(
        mesh=MESH,
        arguments=tuple(draw(st.dictionaries(names, layouts(), max_size=4)).items()),
        patterns=tuple(
            (key, layout)
            for key, layout in draw(st.dictionaries(names, layouts(), max_size=3)).items()
            if not key.startswith("/")
        ),
        strategy=draw(names),
        cluster=draw(st.text(max_size=8)),
        device_memory_bytes=draw(sizes),
        predicted=Prediction(
            *(draw(seconds) for _ in range(5)),
            *(draw(sizes) for _ in range(4)),
            tuple(draw(st.lists(uses, max_size=2))),
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
        ("[mesh]", "devices = 4\n[mesh]", InvalidCluster, r"makes 8 devices but 'devices' says 4"),
        ("[mesh]", "[mesh]\np3 = 1", InvalidSharding, r"p\.toml:3: .*not a name for an axis"),
        ("[mesh]", "[mesh]\n'a b' = 1", InvalidSharding, r"p\.toml:3: .*not a name for an axis"),
        ("[mesh]", "[mash]", InvalidSharding, "'mesh' is missing"),
        ("[mesh]", "shape = 3\n[mesh]", InvalidSharding, r"p\.toml:2: key 'shape' is unknown"),
        ("[mesh]", "format = 7\n[mesh]", InvalidSharding, "this version reads 1"),
        ("[patterns]", "[patterns", InvalidSharding, r"p\.toml: not valid TOML: .*line 6"),
        ("/.*\\.bias/", "/(/", InvalidSharding, r"p\.toml:8: .*not a regular expression"),
    ],
)
def test_errors_name_file_and_line(old, new, error, message):
    assert old in HAND
    with pytest.raises(error, match=message):
        plan_from_toml(HAND.replace(old, new), "p.toml")


def sample():
    return Plan(
        mesh=MESH,
        arguments=(("x", layout_from_texts(["data p0", ""], MESH)),),
        strategy="data=4 model=2",
        cluster="h100-sxm",
        device_memory_bytes=80 << 30,
        predicted=Prediction(
            0.01, 0.006, 0.001, 0.002, 0.001, 4 << 30, 1 << 20, 1 << 20, 1 << 30,
            (CollectiveCost("all_reduce", 2, 4, 1 << 24, 0.002),),
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
