"""Converts a published file to a file of resdet; the file of a detector is complete, so every command accepts it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from resdet.config import BackboneConfig, Config, load_config
from resdet.data.batches.collate import size_divisor
from resdet.engine.checkpoint import model_metadata
from resdet.errors import UserError
from resdet.models.build.classifier import build_classifier, timm_class_rows, timm_test_sides
from resdet.models.build.conventions import completed
from resdet.models.build.derive import check_tensors, derived_config, for_model
from resdet.weights.convert import Converted
from resdet.weights.convert.names import class_rows
from resdet.weights.convert_file import ChannelOrder, convert_file
from resdet.weights.coverage import load_checked
from resdet.weights.sources import IMAGENET_CLASSES, coco_names, imagenet_synsets
from resdet.weights.write import save_weights


def convert_to_file(
    spec: str,
    kind: str,
    output: Path,
    *,
    config: Path | None = None,
    architecture: str | None = None,
    channel_order: ChannelOrder | None = None,
    class_names: str | None = None,
    test_sides: tuple[int, int] | None = None,
) -> list[str]:
    """Converts (see `convert_file`), writes `output`, and returns the report lines.

    The header of a detector's file receives the values that evaluation and prediction need: `config` or a config
    derived from the tensors, class names, and category ids (COCO's ids if the names are COCO's). The file of a
    complete classifier of timm has such a header too; that of a backbone or another classifier has none. `test_sides`,
    the shorter side and the most of the longer one, are those of a derived config (None: the defaults). Raises
    UserError for a file that cannot be converted and for a `config` that its tensors do not fit.
    """
    converted = convert_file(
        spec, kind, architecture=architecture, channel_order=channel_order, class_names=class_names
    )
    state, notes = converted.state, list(converted.notes)
    header: dict[str, str] = {}
    if class_rows(state) is None:
        if config is not None:
            raise UserError(f"--config {config}: is for a detector, and {spec} is none")
        if (complete := _timm_classifier(converted)) is not None:
            state, header, said = complete
            notes.append(said)
    else:
        try:
            whole, header = _detector_header(converted, config, test_sides)
            names = converted.contract.class_names or ()
            state = for_model(state, whole.model, len(names))
            notes.append(
                f"a detector: {whole.model.backbone.name}, {whole.model.neck.name}, {len(names)} classes; evaluate, "
                "predict and model.weights take it"
            )
        except UserError as error:
            if config is not None:
                raise
            notes.append(
                f"model.weights alone takes it, for no config follows from its tensors ({error}); give --config"
            )
    save_weights(output, state, converted.contract, header)
    return [*notes, converted.contract.line()]


def _timm_classifier(converted: Converted) -> tuple[dict[str, Tensor], dict[str, str], str] | None:
    """The tensors of timm's complete classifier under the names of `WholeClassifier`, a header that makes the file one
    that evaluation takes, and a line about it; None for tensors without the layer of the classes.
    """
    name = converted.contract.architecture or ""
    rows = timm_class_rows(name, converted.state) if name.startswith("timm/") else None
    if rows is None:
        return None
    config = Config(task="classification")
    config.model.backbone = BackboneConfig(name=name, norm="bn", frozen_stages=0)
    config.model.classifier.name, config.model.num_classes = "timm", rows
    config.data.augment.crop, config.data.augment.test_short_side = timm_test_sides(name)
    config.data.val.name = "imagenet"
    model = build_classifier(config.model, rows)
    whole = {f"net.{key}": value for key, value in converted.state.items()}
    _ = load_checked(model, whole, source=converted.contract.source, required=1.0)
    names = imagenet_synsets() if rows == IMAGENET_CLASSES else tuple(f"class_{label + 1}" for label in range(rows))
    normalization = list(converted.contract.pixel_mean), list(converted.contract.pixel_std)
    header = model_metadata(config, names, tuple(range(rows)), normalization) | {"step": "0"}
    said = f"a classifier: {name}, {rows} classes ({names[0]} ...); evaluate and model.weights take it"
    return model.state_dict(), header, said


def _detector_header(
    converted: Converted, given: Path | None, test_sides: tuple[int, int] | None
) -> tuple[Config, dict[str, str]]:
    contract = converted.contract
    names = contract.class_names
    assert names is not None, "a converted detector names its classes"
    config = Config() if given is None else load_config(given)
    if given is None:
        config.model = derived_config(converted.state, contract)
        if test_sides is not None:
            config.data.augment.test_short_side, config.data.augment.max_side = test_sides
        if size_divisor(config.model) == 1:  # an image that has its batch to itself is not padded, as in Detectron2
            config.eval.batch_size = 1
    else:
        config.model, _ = completed(config.model, contract, contract.source)
        check_tensors(config.model, converted.state, len(names), str(given))
    config.model.num_classes = len(names)
    normalization = list(contract.pixel_mean), list(contract.pixel_std)
    return config, model_metadata(config, names, category_ids_of(names), normalization) | {"step": "0"}


def category_ids_of(class_names: Sequence[str]) -> tuple[int, ...]:
    """COCO's ids, 1 to 90, if all names are COCO's; otherwise 1, 2, 3, ..."""
    ids = {name: number for number, name in enumerate(coco_names(), start=1)}
    if set(class_names) <= ids.keys():
        return tuple(ids[name] for name in class_names)
    return tuple(range(1, len(class_names) + 1))
