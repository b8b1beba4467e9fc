"""Schedule: from the fused local module to buffers and the instruction list of a package."""

from pai.passes.schedule.schedule import schedule
from pai.runtime.program import ProgramCode

__all__ = ["ProgramCode", "schedule"]
