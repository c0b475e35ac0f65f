"""One index of all models for the whole test run: building it takes some seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from narrows.session.aws.models import Models


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache directory that `models` reads."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def models(cache_dir: Path) -> Models:
    """The index, as a running gateway has it."""
    models = Models(cache_dir)
    models.build_all()
    return models
