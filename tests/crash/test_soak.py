"""The soak itself, for a few seconds and with the fake model."""

import pytest

from tests import soak

pytestmark = pytest.mark.slow


def test_a_short_soak_shows_no_growth_and_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    """What `make soak` runs for longer works, and the daemon passes it."""
    assert soak.main(["--seconds", "6", "--seed", "5", "--fake"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "I1 to I7 hold" in said
    assert " kills, " in said


def test_growth_is_told() -> None:
    """A leak of memory, descriptors or threads is a fault; an allocator's slack isn't."""
    start = soak.Size(100_000_000, 12, 4)
    assert start.grown_to(soak.Size(105_000_000, 12, 4)) == []
    assert len(start.grown_to(soak.Size(200_000_000, 13, 5))) == 3
