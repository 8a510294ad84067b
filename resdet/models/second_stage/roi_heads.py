"""The second stage: regions are pooled, classified and refined (Girshick 2015; Ren et al. 2015), once or several times
in a row (Cai & Vasconcelos 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from resdet.models.losses import MeanLoss, RegionLoss, Regions
from resdet.models.second_stage.box_head import BoxHead, BoxPredictor
from resdet.models.second_stage.detections import DetectionLimits, class_candidates, suppressed
from resdet.models.second_stage.global_context import join_image_vector, with_image_box
from resdet.models.second_stage.mask_head import MaskHead
from resdet.models.second_stage.regions import matched_again, positives_first, sample_regions
from resdet.models.second_stage.roi_pooler import Pool, RoIPooler
from resdet.ops.box_coder import BoxCoder
from resdet.ops.boxes import clip_boxes
from resdet.ops.matching import Matcher
from resdet.ops.sampling import BalancedSampler
from resdet.structures import Detections, Proposals, Targets


@dataclass(frozen=True)
class Stage:
    """A box head with its predictor, matcher and box coder.

    Args:
        box_head: one vector for each region.
        box_predictor: logits and deltas from the vector, or from two of them with global context.
        matcher: matches regions and ground truth for this stage.
        box_coder: encodes the deltas. Later stages weight deltas more, because their corrections are smaller.
    """

    box_head: BoxHead
    box_predictor: BoxPredictor
    matcher: Matcher
    box_coder: BoxCoder


class RoIHeads(nn.Module):
    """A list of stages: each pools the boxes of the stage before, classifies and refines them.

    A list of one stage is the second stage of Faster R-CNN, a list of several is that of Cascade R-CNN. A single stage
    may have deltas for each class; in a list of several, each stage has one set for all classes. Parameters are named
    as in torchvision and Detectron2: `box_head.fc6` and `box_predictor.cls_score` for a single stage, `box_head.0.fc6`
    and so on for several.

    A mask head is trained on the sampled regions; in a cascade, on the boxes of the last stage, as in prediction.

    Args:
        pooler: features of boxes, for all stages.
        stages: at least one.
        sampler: selects the proposals for training, once for all stages.
        limits: which detections are reported.
        region_loss: the loss of classes and boxes in each stage.
        global_context: join the vector of the whole image to that of each region (He et al. 2015, appendix B).
        mask_head: masks of regions; None: boxes alone.
        mask_pooler: features of boxes for the mask head; None: the maps of a single stage's box head.
    """

    def __init__(
        self,
        pooler: RoIPooler,
        stages: Sequence[Stage],
        *,
        sampler: BalancedSampler,
        limits: DetectionLimits,
        region_loss: RegionLoss,
        global_context: bool = False,
        mask_head: MaskHead | None = None,
        mask_pooler: RoIPooler | None = None,
    ) -> None:
        super().__init__()
        if not stages or (len(stages) > 1 and mask_head and not mask_pooler):
            raise ValueError(
                f"{len(stages)} stages: needs one at least, and masks of several need a pooler of their own"
            )
        self.pooler = pooler
        self.box_head = _alone_or_listed([stage.box_head for stage in stages])
        self.box_predictor = _alone_or_listed([stage.box_predictor for stage in stages])
        self.matchers = tuple(stage.matcher for stage in stages)
        self.box_coders = tuple(stage.box_coder for stage in stages)
        self.sampler = sampler
        self.limits = limits
        self.region_loss = region_loss
        self.global_context = global_context
        self.mask_head = mask_head
        self.mask_pooler = mask_pooler
        self.num_classes = stages[0].box_predictor.num_classes

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, assembled from the present modules, so that a module that was replaced is used."""
        heads, predictors = _listed(self.box_head), _listed(self.box_predictor)
        parts = zip(heads, predictors, self.matchers, self.box_coders, strict=True)
        return tuple(Stage(*part) for part in parts)  # pyright: ignore[reportArgumentType]  # modules are of any type

    def forward(
        self,
        features: Sequence[Float[Tensor, "N C _h _w"]],
        boxes: Float[Tensor, "N R 4"],
        sizes: Int64[Tensor, "N 2"],
    ) -> tuple[Float[Tensor, "N R K_1"], Float[Tensor, "N R B 4"]]:
        """Classifies and refines boxes; the same as `classify`."""
        return self.classify(partial(self.pooler, features), boxes, sizes)

    def classify(
        self, pool: Pool, boxes: Float[Tensor, "N R 4"], sizes: Int64[Tensor, "N 2"], *, first: int = 0
    ) -> tuple[Float[Tensor, "N R K_1"], Float[Tensor, "N R B 4"]]:
        """Class probabilities of each box (background last), and its box after the last stage.

        Probabilities are the mean over the stages from number `first` on (-1: the last alone), each of which uses the
        boxes of the one before. B is K (a box for each class) or 1. Boxes are not clipped to the image.
        """
        probabilities, found = [], boxes[:, :, None]
        for stage in self.stages[first:]:
            logits, deltas = self.predictions(stage, self.maps(stage, pool, boxes, sizes))
            probabilities.append(logits.softmax(-1))
            found = stage.box_coder.decode(deltas, boxes[:, :, None])
            boxes = clip_boxes(found[:, :, 0], sizes)
        return torch.stack(probabilities).mean(0), found

    def maps(
        self, stage: Stage, pool: Pool, boxes: Float[Tensor, "N R 4"], sizes: Int64[Tensor, "N 2"]
    ) -> Float[Tensor, "N R_1 C h w"]:
        """The maps of the box head for each region, before its vector; with `global_context` the whole image
        is first.
        """
        regions = with_image_box(boxes, sizes) if self.global_context else boxes
        return stage.box_head.maps(pool(regions)).unflatten(0, regions.shape[:2])

    def predictions(
        self, stage: Stage, maps: Float[Tensor, "N R_1 C h w"]
    ) -> tuple[Float[Tensor, "N R K_1"], Float[Tensor, "N R B 4"]]:
        """Class logits (background last) and deltas of each region."""
        vectors = stage.box_head(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
        vectors = join_image_vector(vectors) if self.global_context else vectors
        logits, deltas = stage.box_predictor(vectors.flatten(0, 1))
        return logits.unflatten(0, vectors.shape[:2]), deltas.unflatten(0, vectors.shape[:2])

    def losses(
        self,
        features: Sequence[Float[Tensor, "N C _h _w"]],
        proposals: Proposals,
        targets: Targets,
        sizes: Int64[Tensor, "N 2"],
    ) -> dict[str, MeanLoss]:
        """`loss_classifier` and `loss_box_reg` over the sampled regions of the batch (Girshick 2015, equation 1); for
        several stages `loss_classifier_stage0` and so on; `loss_mask` if there is a mask head.
        """
        stages, pool = self.stages, partial(self.pool_to_learn, features)
        regions, losses, seen = self.sample(proposals, targets), {}, []
        for number, stage in enumerate(stages):
            seen.append(maps := self.maps(stage, pool, regions.boxes, sizes))
            logits, deltas = self.predictions(stage, maps)
            of_stage = self.region_loss(logits, deltas, regions, stage.box_coder)
            if len(stages) == 1:
                losses |= of_stage
            else:
                losses |= {f"{name}_stage{number}": loss for name, loss in of_stage.items()}
                regions = self.moved(number, deltas, regions, targets, sizes)
        return losses | self.mask_losses(features, seen[-1], regions, targets)

    def pool_to_learn(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], boxes: Float[Tensor, "N R 4"]
    ) -> Float[Tensor, "N*R C h w"]:
        """The pooled regions with gradients divided by the number of stages, so that the maps receive the mean
        gradient.
        """
        pooled = self.pooler(features, boxes)
        count = len(self.matchers)
        return pooled if count == 1 else scaled_gradient(pooled, 1 / count)

    def sample(self, proposals: Proposals, targets: Targets) -> Regions:
        """The regions for the training of the first stage, positives first."""
        return sample_regions(proposals, targets, self.matchers[0], self.sampler, background=self.num_classes)

    def moved(
        self,
        number: int,
        deltas: Float[Tensor, "N R 1 4"],
        regions: Regions,
        targets: Targets,
        sizes: Int64[Tensor, "N 2"],
    ) -> Regions:
        """The regions after stage `number` of several has moved them, matched for the next stage, or for the
        last one.
        """
        boxes = clip_boxes(self.box_coders[number].decode(deltas.detach().squeeze(2), regions.boxes), sizes)
        matcher = self.matchers[min(number + 1, len(self.matchers) - 1)]
        return matched_again(boxes, regions, targets, matcher, background=self.num_classes)

    def mask_losses(
        self,
        features: Sequence[Float[Tensor, "N C _h _w"]],
        maps: Float[Tensor, "N R_1 D h w"],
        regions: Regions,
        targets: Targets,
    ) -> dict[str, MeanLoss]:
        """`loss_mask` if there is a mask head, over as many regions as can be positive.

        `maps` are the maps of the regions, which a mask head without a pooler uses.
        """
        if self.mask_head is None:
            return {}
        if len(self.matchers) > 1:  # after the second matching the positives are no longer first
            regions = positives_first(regions, background=self.num_classes)
        first = slice(self.sampler.most_positives)
        labels = regions.labels[:, first]
        return self.mask_head.losses(
            partial(self.mask_pooler, features) if self.mask_pooler else partial(self._first_maps, maps),
            regions.boxes[:, first],
            labels,
            regions.matched[:, first],
            regions.valid[:, first] & (labels < self.num_classes),
            targets,
        )

    def _first_maps(
        self, maps: Float[Tensor, "N R_1 D h w"], boxes: Float[Tensor, "N r 4"]
    ) -> Float[Tensor, "N*r D h w"]:
        """The maps of the first r regions."""
        regions = maps[:, 1:] if self.global_context else maps
        return regions[:, : boxes.shape[1]].flatten(0, 1)

    def predict(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], proposals: Proposals, sizes: Int64[Tensor, "N 2"]
    ) -> Detections:
        """The boxes of the last stage, with the mean of the stages' class probabilities."""
        probabilities, boxes = self(features, proposals.boxes, sizes)
        detections = suppressed(self.candidates(probabilities, boxes, proposals, sizes), self.limits)
        if self.mask_head is None:
            return detections
        return self.mask_head.predict(partial(self.mask_regions, features), detections)

    def mask_regions(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], boxes: Float[Tensor, "N R 4"]
    ) -> Float[Tensor, "N*R D h w"]:
        """The input of the mask head."""
        if self.mask_pooler is not None:
            return self.mask_pooler(features, boxes)
        return self.stages[-1].box_head.maps(self.pooler(features, boxes))

    def candidates(
        self,
        probabilities: Float[Tensor, "N P K_1"],
        boxes: Float[Tensor, "N P B 4"],
        proposals: Proposals,
        sizes: Int64[Tensor, "N 2"],
    ) -> Detections:
        """Every class of every proposal, from the output of `classify`."""
        threshold = self.limits.score_threshold
        return class_candidates(boxes, probabilities, proposals.valid, sizes, score_threshold=threshold)


def scaled_gradient(x: Float[Tensor, "*S"], scale: float) -> Float[Tensor, "*S"]:
    """x itself; its gradient is multiplied by `scale`."""
    constant = x.detach()
    return constant + (x - constant) * scale


def _alone_or_listed(modules: Sequence[nn.Module]) -> nn.Module:
    return modules[0] if len(modules) == 1 else nn.ModuleList(modules)


def _listed(module: nn.Module) -> list[nn.Module]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]
