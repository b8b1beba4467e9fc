"""Generated differential tests: families of programs, drawn layouts, and how they are judged."""

from generate.chain import chain
from generate.choosing import choosing
from generate.control import control
from generate.convolution import convolution
from generate.dot import dot
from generate.draw import Family
from generate.dynamic import dynamic
from generate.elementwise import elementwise
from generate.forms import forms
from generate.gather import gather
from generate.library import library
from generate.linear_algebra import linear_algebra
from generate.manual import manual
from generate.moving import moving
from generate.numbers_of_kinds import complex_numbers, small_integers
from generate.random_bits import random_bits
from generate.reduce import reduce
from generate.scatter import scatter
from generate.shaping import shaping
from generate.sorting import sorting
from generate.sums import sums
from generate.windows import windows

FAMILIES: dict[str, Family] = {
    "elementwise": elementwise,
    "shaping": shaping,
    "dot": dot,
    "reduce": reduce,
    "moving": moving,
    "convolution": convolution,
    "windows": windows,
    "gather": gather,
    "scatter": scatter,
    "dynamic": dynamic,
    "sorting": sorting,
    "choosing": choosing,
    "linear_algebra": linear_algebra,
    "random_bits": random_bits,
    "control": control,
    "complex_numbers": complex_numbers,
    "small_integers": small_integers,
    "manual": manual,
    "forms": forms,
    "sums": sums,
    "library": library,
    "chain": chain,
}

# The share of a family in a sweep, 1 unless named: random bits are long programs that all go the
# same way, and some others take XLA three times as long to compile as the rest.
WEIGHTS = {
    "random_bits": 0.1,
    "library": 0.15,
    "linear_algebra": 0.5,
    "control": 0.6,
    "sums": 0.6,
    "chain": 0.8,
}
