"""How much the instruments may be wrong before a record carries a caveat and a report marks the number."""

UNATTRIBUTED_BOUND = 0.02
"""Part of a phase's wall time that no stage explains."""

RESIDUAL_BOUND = 0.001
"""Part of a phase's wall time by which two clocks of it may disagree."""

BUSY_BOUND = 0.01
"""Part of a device's busy time by which its stages' busy times may sum to more."""

ROUTES_BOUND = 0.02
"""Part of the wall time by which stage clock and profiler may disagree on a stage."""

CLOCK_BOUND = 0.01
"""Part of a step that the stage clock may cost."""

STEADY_BOUND = 2.0
"""Times the median epoch that an epoch may last."""

LATER_BOUND = 0.05
"""Part of a step by which steps after a profiler window may be slower than those before it."""
