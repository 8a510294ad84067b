"""Convert published weights to a safetensors file that says how they were trained.

Reads Detectron2's model zoo, torchvision's classifiers and detectors, MSRA's ResNets (R-50.pkl, R-101.pkl) and timm's
checkpoints, without executing any code in a file. The report lists the tensors that were converted or left out, and the
assumptions.

  resdet convert-weights R-50.pkl --format msra --output r50_msra.safetensors
  resdet convert-weights model_final_280758.pkl --format detectron2 --class-names coco --output r50_fpn.safetensors
  resdet convert-weights FasterRCNN_ResNet50_FPN_Weights.COCO_V1 --format torchvision --output r50_fpn.safetensors
  resdet convert-weights timm/convnext_tiny --format timm --output convnext_tiny.safetensors
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a file; with --format torchvision also a name of its weights, with timm also timm/MODEL",
    )
    parser.add_argument("--format", required=True, choices=("detectron2", "torchvision", "msra", "timm"),
                        help="where SOURCE comes from")  # fmt: skip
    parser.add_argument(
        "--output", required=True, metavar="FILE.safetensors", help="the file to write, which must not exist yet"
    )
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        help="the classes of a detector: a file with one name a line, without a background, or: coco, "
        "voc, cityscapes (default: COCO's names for 80 classes)",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="the config of a detector for which it does not follow from its tensors"
    )
    parser.add_argument("--architecture", metavar="NAME", help="backbone's name; timm files need it: timm/MODEL")
    parser.add_argument(
        "--channel-order",
        choices=("RGB", "BGR"),
        help="the order in which a model of Detectron2 takes colours: RGB for the newer baselines (default: BGR)",
    )


def run(args: argparse.Namespace) -> int:
    """Converts, writes, and prints the steps and the contract."""
    from pathlib import Path

    from resdet.engine.converted import convert_to_file
    from resdet.errors import UserError

    output = Path(args.output)
    if output.suffix != ".safetensors":
        raise UserError(f"--output {output}: the name must end in .safetensors")
    if output.exists() or not output.parent.is_dir():
        raise UserError(f"--output {output}: {'exists already' if output.exists() else 'its folder does not exist'}")
    said = convert_to_file(
        args.source,
        args.format,
        output,
        config=Path(args.config) if args.config else None,
        architecture=args.architecture,
        channel_order=args.channel_order,
        class_names=args.class_names,
    )
    print(output)
    for line in said:
        print(f"  {line}")
    return 0
