"""Pipeline schedules for tests: drawn by hypothesis, or spelled."""

from hypothesis import strategies as st

from pai.passes.strategy.pipeline.schedules import SCHEDULES, Action, Kind, Schedule, make_schedule


@st.composite
def schedules(draw):
    name = draw(st.sampled_from(sorted(SCHEDULES)))
    stages = draw(st.integers(1, 6))
    if name == "interleaved":
        return make_schedule(
            name, stages, stages * draw(st.integers(1, 4)), draw(st.integers(1, 4))
        )
    return make_schedule(name, stages, draw(st.integers(1, 14)))


def hand_made(*rows, chunks=1, splits=False):
    kinds = {kind.value: kind for kind in Kind}
    parsed = tuple(tuple(Action(kinds[t[0]], int(t[1])) for t in row.split()) for row in rows)
    microbatches = max(action.microbatch for row in parsed for action in row) + 1
    return Schedule("mine", len(rows), microbatches, parsed, chunks, splits)
