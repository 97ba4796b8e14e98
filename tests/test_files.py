"""Directories that one process works on at a time, and others that only read."""

import os

import pytest

from vibx.errors import LockedError
from vibx.files import LOCK, lock


def test_one_works_or_many_read(tmp_path):
    def refused(**options):
        with pytest.raises(LockedError) as error, lock(tmp_path, work="trained", **options):
            pass
        return str(error.value)

    with lock(tmp_path, work="attacked", shared=True):
        with lock(tmp_path, work="attacked", shared=True):
            pass
        assert refused() == f"{tmp_path.name} is being attacked by another process"
    with lock(tmp_path, work="trained"):
        assert refused() == f"{tmp_path.name} is being trained by another process"
        assert "is being trained by" in refused(shared=True)
    with lock(tmp_path, work="trained"):
        pass


def test_a_directory_that_its_holder_removed_can_be_held_again(tmp_path):
    directory = tmp_path / "run"
    with lock(directory, work="trained"):
        os.unlink(directory / LOCK)
        directory.rmdir()
        with lock(directory, work="trained"):
            assert directory.exists()


def test_what_cannot_be_written_to_can_be_read(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "access", lambda *args: False)
    with lock(tmp_path, work="exported", shared=True):
        pass
    with pytest.raises(PermissionError), lock(tmp_path, work="trained"):
        pass
