"""Uploads as `resdet push` does: a detector, or an exported one, with its model card, to the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from resdet.engine.run_folder import RunFiles, read_run
from resdet.engine.saved_models import SavedModel, built, detector_of, read_models
from resdet.errors import UserError
from resdet.exporting.card import CARD, model_card
from resdet.exporting.checks import MODEL, ValFigures, measured, val_images
from resdet.exporting.contract import CONTRACT
from resdet.files import usable_paths
from resdet.weights.hub import DETECTOR, hub_name, push_folder
from resdet.workflows.export import is_export


@dataclass(frozen=True)
class Pushed:
    """What was uploaded: the address of the repository, the names of its files, and figures if they were measured."""

    address: str
    files: tuple[str, ...]
    figures: ValFigures | None = None


@usable_paths()
def push(given: str | Path, repository: str, *, private: bool = False, measure: bool = False) -> Pushed:
    """Uploads to the repository OWNER/NAME of the Hugging Face Hub, which is made if it is not there.

    `given` is a folder that `resdet export` wrote, whose files are uploaded as they are; or a detector as in
    `resdet.load` (of a run its best checkpoint), which is uploaded as model.safetensors with a model card, and which
    `resdet predict hf://OWNER/NAME` takes. With `measure` the card has figures with intervals on the val set, otherwise
    those that the training recorded. `private` is for a new repository.

    Raises UserError for a name that no repository has, a folder with other files, a damaged checkpoint, and where the
    Hub cannot be reached or refuses.
    """
    name = hub_name(f"hf://{str(repository).removeprefix('hf://')}")
    assert name is not None, "it begins with hf:"
    path = Path(given)
    if (path / CONTRACT).is_file():
        if not is_export(path):
            raise UserError(f"{path}: holds other files than resdet export writes; export again, into a new folder")
        if measure:
            raise UserError(
                "measure: the card of an export has its figures from `resdet export --measure`; leave it out"
            )
        return Pushed(push_folder(path, name, private=private), _names(path))
    (model,) = read_models([path], ["train.device=cpu"], best=True)
    _ = built(model)  # its weights must fit its config
    with TemporaryDirectory(prefix="resdet-push-") as temporary:
        folder = Path(temporary)
        figures = _measured(model) if measure else None
        text = model_card(model, name.repository, figures, _recorded(path, model.saved.step))
        _ = (folder / CARD).write_text(text, encoding="utf-8")
        (folder / DETECTOR).symlink_to(model.file.resolve())
        return Pushed(push_folder(folder, name, private=private), _names(folder), figures)


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir()))


def _measured(model: SavedModel) -> ValFigures:
    config = model.saved.config
    dataset, _ = val_images(config, 1)
    if dataset is None:
        raise UserError(f"{model.file}: its val set is not there to measure on; leave the measuring out")
    detector = detector_of([model], torch.device("cpu"))
    return measured({MODEL: detector}, dataset, model.saved.class_names, config)


def _recorded(given: Path, step: int) -> dict[str, float | None]:
    """The figures that a run's metrics have of this step; empty for a file that is in no run."""
    if not RunFiles(given).hold_a_run:
        return {}
    return next((figures for at, figures in read_run(given).records if at == step and "bbox/AP" in figures), {})
