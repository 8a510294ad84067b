"""A file that a killed compilation left in the cache is one line; other errors of the compiler stay what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch._inductor.exc import InductorError

from resdet.engine.compilation import whole_cache
from resdet.errors import UserError


def test_a_library_that_cannot_be_loaded_is_one_line_that_names_the_folder_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    @whole_cache()
    def predict() -> None:
        raise InductorError(ImportError("main.so: file\ntoo short"), None)

    with pytest.raises(UserError, match=r"main\.so: file too short") as refused:
        predict()
    assert f"delete {tmp_path} and start again" in str(refused.value)


def test_another_error_of_the_compiler_is_not_the_caches() -> None:
    with pytest.raises(InductorError, match="no such operator"), whole_cache():
        raise InductorError(NotImplementedError("no such operator"), None)
