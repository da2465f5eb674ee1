from profiles.stages import STAGES
from reports.words import palette


def test_every_stage_has_a_colour_of_its_own() -> None:
    assert set(STAGES) <= set(palette.STAGES)
    colours = [palette.STAGES[stage] for stage in STAGES]
    assert len(set(map(str, colours))) == len(colours)
