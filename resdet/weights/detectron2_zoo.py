"""The detectors of Detectron2's zoo whose network resdet has: names, files and AP, as its MODEL_ZOO.md states them.

All are trained on COCO's train2017, but one on VOC 2007 and 2012 (trainval) and one on Cityscapes. The name of a file
ends with the beginning of its md5.
"""

from __future__ import annotations

from dataclasses import dataclass

from resdet.coco.class_names import VOC_CLASSES

ADDRESS = "https://dl.fbaipublicfiles.com/detectron2"
LICENCE = "Detectron2's zoo is under CC BY-SA 3.0"


@dataclass(frozen=True)
class ZooSet:
    """The data set of a detector: where its AP was measured, its classes in the order of the labels (none: COCO's), and
    the shorter side and the most of the longer side of test images.
    """

    scored_on: str
    class_names: tuple[str, ...] = ()
    test_sides: tuple[int, int] = (800, 1333)


SETS = {
    "coco": ZooSet("COCO val2017, 80 classes"),
    "voc": ZooSet("VOC 2007 test, 20 classes", VOC_CLASSES),
    "cityscapes": ZooSet(
        "Cityscapes val, 8 classes",
        ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
        test_sides=(1024, 2048),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ZooDetector:
    """`place` is the file's below the name; AP in percent, None where the zoo states none; `data` is a row of SETS."""

    place: str
    box_ap: float | None
    mask_ap: float | None = None
    data: str = "coco"

    @property
    def data_set(self) -> ZooSet:
        return SETS[self.data]


ZOO = {
    "COCO-Detection/faster_rcnn_R_50_C4_1x": ZooDetector("137257644/model_final_721ade.pkl", 35.7),
    "COCO-Detection/faster_rcnn_R_50_DC5_1x": ZooDetector("137847829/model_final_51d356.pkl", 37.3),
    "COCO-Detection/faster_rcnn_R_50_FPN_1x": ZooDetector("137257794/model_final_b275ba.pkl", 37.9),
    "COCO-Detection/faster_rcnn_R_50_C4_3x": ZooDetector("137849393/model_final_f97cb7.pkl", 38.4),
    "COCO-Detection/faster_rcnn_R_50_DC5_3x": ZooDetector("137849425/model_final_68d202.pkl", 39.0),
    "COCO-Detection/faster_rcnn_R_50_FPN_3x": ZooDetector("137849458/model_final_280758.pkl", 40.2),
    "COCO-Detection/faster_rcnn_R_101_C4_3x": ZooDetector("138204752/model_final_298dad.pkl", 41.1),
    "COCO-Detection/faster_rcnn_R_101_DC5_3x": ZooDetector("138204841/model_final_3e0943.pkl", 40.6),
    "COCO-Detection/faster_rcnn_R_101_FPN_3x": ZooDetector("137851257/model_final_f6e8b1.pkl", 42.0),
    "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x": ZooDetector("139173657/model_final_68b088.pkl", 43.0),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x": ZooDetector("137259246/model_final_9243eb.pkl", 36.8, 32.2),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x": ZooDetector("137260150/model_final_4f86c3.pkl", 38.3, 34.2),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": ZooDetector("137260431/model_final_a54504.pkl", 38.6, 35.2),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x": ZooDetector("137849525/model_final_4ce675.pkl", 39.8, 34.4),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x": ZooDetector("137849551/model_final_84107b.pkl", 40.0, 35.9),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x": ZooDetector("137849600/model_final_f10217.pkl", 41.0, 37.2),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_C4_3x": ZooDetector("138363239/model_final_a2914c.pkl", 42.6, 36.7),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_DC5_3x": ZooDetector("138363294/model_final_0464b7.pkl", 41.9, 37.3),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x": ZooDetector("138205316/model_final_a3ec72.pkl", 42.9, 38.6),
    "COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x": ZooDetector(
        "139653917/model_final_2d9806.pkl", 44.3, 39.5
    ),
    "Misc/cascade_mask_rcnn_R_50_FPN_1x": ZooDetector("138602847/model_final_e9d89b.pkl", 42.1, 36.4),
    "Misc/cascade_mask_rcnn_R_50_FPN_3x": ZooDetector("144998488/model_final_480dd8.pkl", 44.3, 38.5),
    "PascalVOC-Detection/faster_rcnn_R_50_C4": ZooDetector("142202221/model_final_b1acc2.pkl", 51.9, data="voc"),
    "Cityscapes/mask_rcnn_R_50_FPN": ZooDetector("142423278/model_final_af9cf5.pkl", None, 36.5, data="cityscapes"),
}


def detector_of_file(name: str) -> ZooDetector | None:
    """The detector whose file has this name; None for a file of another name."""
    return next((each for each in ZOO.values() if each.place.endswith(f"/{name}")), None)


def zoo_address(name: str) -> str:
    """Where the file of a detector is."""
    return f"{ADDRESS}/{name}/{ZOO[name].place}"
