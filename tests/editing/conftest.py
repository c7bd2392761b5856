"""Tiny random models of several families, and the real default model where a test asks for it."""

from pathlib import Path

import pytest
import torch

from daemon.fakes import tiny_model
from policies.editing.model import LanguageModel, load


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(tiny_dir: Path) -> LanguageModel:
    """A fresh tiny Llama; tests may inject adapters into it."""
    return load(tiny_dir)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)
