"""A ledger of one's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.ledger import Ledger
from tests.store.builders import opened


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as ledger:
        yield ledger
