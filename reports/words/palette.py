"""The order and the colour of every stage, the same wherever one is shown.

The five that lead are Okabe and Ito's hues, told apart by colour-blind readers; a label, a hatch and a fixed
order say the same without colour. All carry near-black text in both themes.
"""

from profiles.record import UNATTRIBUTED, UNRESOLVED

STAGES = {
    "data_loading": "#3f97cf",
    "patching": "#e69f00",
    "attention": "#e2701f",
    "loss": "#17a67d",
    "anomaly_map": "#cc79a7",
    "transfer": "#9bd3f3",
    "embedding": "#e9df55",
    "feed_forward": "#9a94e0",
    "head": "#c08488",
    "optimizer": "#bfa77a",
    "scoring": "#78cbbf",
    "checkpoint": "#aecb74",
    UNATTRIBUTED: "#a9aeb5",
    UNRESOLVED: "#d6d2c4",
}
"""Stage and colour, in the order of telling: the five that lead, the others, what is left."""

UNKNOWN = "#c9ccd1"

MODELS = {
    "msa": "#2f5d8c",
    "mlsa": "#b3402a",
    "intra": "#3d7a4f",
    "linformer": "#7a4f9a",
    "fastformer": "#8a6a12",
}
"""Model and colour of its lines; lines also differ in their dashes and markers."""

PHASES = {"training": "#8fb7de", "calibration": "#d9b56a", "evaluation": "#a9cf9f"}
"""Phase and colour of its band; training and validation take turns and are one."""

UNKNOWN_MODEL = "#6b6f76"


def stage_class(stage: str) -> str:
    """Return the class by which the page colours *stage*, whose name is data and never becomes one."""
    return f"stage-{stage}" if stage in STAGES else "stage-unknown"


def phase_class(phase: str) -> str:
    """Return the class by which the page colours *phase*'s band."""
    return f"phase-{phase}" if phase in PHASES else "stage-unknown"


def in_order(stages: set[str]) -> list[str]:
    """Return *stages* in the order of telling; unknown ones before what is unattributed."""
    known = list(STAGES)
    last = known.index(UNATTRIBUTED)
    return sorted(stages, key=lambda stage: (known.index(stage) if stage in STAGES else last - 0.5, stage))


def stage_label(stage: str) -> str:
    """Return a stage's name in words."""
    return stage.replace("_", " ")
