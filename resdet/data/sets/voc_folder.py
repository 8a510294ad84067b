"""Finds the splits of a folder in Pascal VOC's layout, with or without lists.

FOLDER/Annotations/a.xml  FOLDER/JPEGImages/a.jpg  FOLDER/ImageSets/Main/train.txt    VOC's, CVAT's
FOLDER/annotations/a.xml  FOLDER/images/a.jpg                                         without lists
FOLDER/train/a.xml        FOLDER/train/a.jpg                                          Roboflow's exports
"""

from __future__ import annotations

from pathlib import Path

from resdet.data.sets.folders import files_in, folders_in, split_in
from resdet.data.sets.voc import converted
from resdet.data.sets.voc_files import VocFiles

LOOKS_FOR = "Annotations/*.xml with JPEGImages, or xml files beside images in the folder or in train, valid and test"
PICTURES = ("JPEGImages", "images", "Images")


def recognizes(place: Path) -> bool:
    return place.is_dir() and bool(_sources(place))


def splits(place: Path) -> tuple[str, ...]:
    """The splits that the folder has."""
    return tuple(_sources(place))


def read(place: Path, split: str) -> tuple[Path, Path]:
    """The COCO file in the cache, and the folder that its file names are relative to. Every split has the classes of
    the whole folder.
    """
    sources = _sources(place)
    chosen = sources[split]
    others = [source for name, source in sources.items() if name != split and source.xmls != chosen.xmls]
    return converted([chosen], chosen.images, others=others), chosen.images


def _sources(place: Path) -> dict[str, VocFiles]:
    root = place.absolute()
    annotated = next((root / name for name in ("Annotations", "annotations") if _has_xml(root / name)), None)
    if annotated is not None:
        return _with_folders(root, annotated)
    if _xml_of_images(root):
        return {"train": VocFiles.without_list(root, root, root)}
    found: dict[str, VocFiles] = {}
    for folder in folders_in(root):
        split = split_in(folder.name)
        if split is not None and split not in found and _xml_of_images(folder):
            found[split] = VocFiles.without_list(folder, folder, root)
    return found


def _with_folders(root: Path, annotated: Path) -> dict[str, VocFiles]:
    lists = _lists(root) if annotated.name == "Annotations" else {}
    if lists and (root / "JPEGImages").is_dir():
        return {split: VocFiles.below(path, root) for split, path in lists.items()}
    pictures = next((root / name for name in PICTURES if (root / name).is_dir()), annotated)
    return {"train": VocFiles.without_list(annotated, pictures, root)}


def _lists(root: Path) -> dict[str, Path]:
    """train.txt, val.txt and test.txt of ImageSets/Main; trainval.txt, or one of no split (CVAT's default.txt), where
    there is no train.txt. Lists of one class (dog_train.txt) are not among them.
    """
    files = {path.stem: path for path in files_in(root / "ImageSets" / "Main", ".txt")}
    alone = [name for name in files if split_in(name) is None]
    found = {split: files[split] for split in ("train", "val", "test") if split in files}
    if "train" not in found and ("trainval" in files or len(alone) == 1):
        found["train"] = files["trainval" if "trainval" in files else alone[0]]
    return found


def _has_xml(folder: Path) -> bool:
    return bool(files_in(folder, ".xml")) or any(files_in(inner, ".xml") for inner in folders_in(folder))


def _xml_of_images(folder: Path) -> bool:
    """Whether a folder has xml files that are called as its images."""
    stems = {path.stem for path in files_in(folder, ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")}
    return any(path.stem in stems for path in files_in(folder, ".xml"))
