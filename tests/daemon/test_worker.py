"""The real child with a real, tiny model: the one place where the daemon's tests load torch."""

from pathlib import Path

import pytest

from daemon.fakes import tiny_model
from daemon.runner import Limits, WorkerHandle, WorkerStopped

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def ask(model: Path) -> dict[str, object]:
    prompts = ["What is the capital of France?", "The capital of France is"]
    return {"kind": "ask", "model": str(model), "prompts": prompts, "dtype": "float32", "device": "cpu"}


def test_a_real_child_answers_with_a_tiny_model(tmp_path: Path, tiny: Path) -> None:
    """The job, the mechanism and the result's way back fit together; the fake model is a real one."""
    stages: list[str] = []
    runner = WorkerHandle(tmp_path, Limits())
    result = runner.run(ask(tiny), stages.append)
    answers = result["answers"]
    assert len(answers) == 2
    assert all(isinstance(answer, str) for answer in answers)
    assert "import" in stages


def test_a_real_child_is_ended_in_the_middle(tmp_path: Path, tiny: Path) -> None:
    """Loading torch can be interrupted too."""
    with pytest.raises(WorkerStopped):
        WorkerHandle(tmp_path, Limits()).run(ask(tiny), lambda stage: "stop" if stage == "import" else None)
