"""Bit allocation: who gets how many bits under a budget of mean bits per weight.

Policies: `uniform` gives every channel the same; `kurtosis` is the paper's rule (groups of a tenth of a
    layer's
channels, most kurtotic up, least down, 0 to 5 groups by the layer's output error); `random` and `head-tail`
are its ablations with another ranking; `gain` is the best exchange of bits by the error table; `optimal` the
Lagrangian over any set of widths. All of it is arithmetic on an `ErrorTable`: no forward pass.
"""

from mpqdm_core.allocation.allocate import Allocation, allocate
from mpqdm_core.allocation.alone import errors_alone
from mpqdm_core.allocation.budget import WHOLE_MODEL, feasible_range
from mpqdm_core.allocation.frontier import frontier
from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.allocation.settings import POLICIES, SCOPES, WEIGHTINGS, AllocationSettings

__all__ = [
    "POLICIES",
    "SCOPES",
    "WEIGHTINGS",
    "WHOLE_MODEL",
    "Allocation",
    "AllocationSettings",
    "BitPlan",
    "allocate",
    "errors_alone",
    "feasible_range",
    "frontier",
]
