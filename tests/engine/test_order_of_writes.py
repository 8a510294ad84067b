"""What is synced before a name exists."""

from pathlib import Path

import pytest
import torch

from resdet.engine import checkpoint


def test_a_checkpoint_gets_its_name_when_its_manifest_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The only replay of a power loss that needs no special file system: what is synced before the name exists."""
    events: list[str] = []
    real_write, real_sync, real_rename = checkpoint.write_synced, checkpoint.sync_folder, Path.rename

    def write(path: Path, data: bytes) -> None:
        events.append(f"write {path.name}")
        real_write(path, data)

    def sync(folder: Path) -> None:
        events.append(f"sync {folder.relative_to(tmp_path)}")
        real_sync(folder)

    def rename(path: Path, target: Path) -> Path:
        events.append(f"rename {path.name} to {target.name}")
        return real_rename(path, target)

    monkeypatch.setattr(checkpoint, "write_synced", write)
    monkeypatch.setattr(checkpoint, "sync_folder", sync)
    monkeypatch.setattr(Path, "rename", rename)
    _ = checkpoint.save_checkpoint(tmp_path, step=1, weights={"w": torch.ones(1)}, metadata={}, state={"step": 1})
    temporary = "checkpoints/.step_00000001.tmp"
    assert events[1:] == [
        "write model.safetensors",
        "write state.pt",
        "write manifest.json",
        f"sync {temporary}",
        "rename .step_00000001.tmp to step_00000001",
        "sync checkpoints",
    ]


def test_a_file_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from resdet import files

    events: list[str] = []
    real = Path.replace
    monkeypatch.setattr(files, "_sync", lambda path: events.append(f"sync {path.suffix}"))
    monkeypatch.setattr(files, "sync_folder", lambda path: events.append("sync folder"))
    monkeypatch.setattr(Path, "replace", lambda path, target: (events.append("rename"), real(path, target))[1])
    files.replace_file(tmp_path / "eval.json", b"{}")
    assert events == ["sync .tmp", "rename", "sync folder"]
