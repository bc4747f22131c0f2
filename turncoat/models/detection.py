"""Detection networks: one row of numbers for each anchor out of images in [0, 1]; normalisation is the first layer.

torchvision's networks, losses and decoding; what is added is the loss of each image by itself, which the library has
for a whole batch alone. Boxes are (x1, y1, x2, y2) in pixels; targets are (n, m, 5), see `turncoat.data.targets`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from turncoat.errors import TurncoatError
from turncoat.models.classifiers import Normalize
from turncoat.models.fcos import fcos_losses
from turncoat.models.trunk import WIDTHS, Trunk, built, coloured, library_keywords
from turncoat.settings import DETECTORS

LEAST_SCORE = 0.05  # of a detection that is kept, as RetinaNet has it; what lies below would add a little recall
SIDES = 32  # pixels: what torchvision pads images of a feature pyramid to a multiple of
KEPT = 100  # detections of an image at most, as COCO counts them
COLUMNS = {"fcos": {"cls_logits": 0, "bbox_regression": 4, "bbox_ctrness": 1}}
COLUMNS["anchors"] = {"cls_logits": 0, "bbox_regression": 4}  # RetinaNet, SSD


class Detector(nn.Module):
    """A named network behind its normalisation.

    Args:
        model: one of `DETECTORS`. classes: number of classes, without the background.
        shape: (channels, height, width) of an image. mean, std: per channel, of the training images in [0, 1].
        args: keywords for torchvision's builder.

    Raises:
        TurncoatError: there is no such network, or it does not take these keywords.
    """

    anchors: Tensor

    def __init__(
        self,
        model: str,
        classes: int,
        shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.spec: Final[dict[str, Any]] = {
            "kind": "detector",
            "model": model,
            "classes": int(classes),
            "shape": [int(size) for size in shape],
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            **({"args": dict(args)} if args else {}),
        }
        if "weights_backbone" in (args or {}):
            raise TurncoatError(
                f"model_args.weights_backbone: with it {model} has other layers, its batch norm frozen, so there "
                "is nothing for branches to split; leave it out for detection"
            )
        self.normalize = Normalize(mean, std)
        self.size = (int(shape[1]), int(shape[2]))
        self.ssd = model.startswith("ssd")
        self.fcos = model in ("small_detector", "fcos_resnet50_fpn")
        self.grey = model == "small_detector" and shape[0] == 1
        self.network = _network(model, classes, shape, args or {})
        step = self.network.backbone.trunk.stride if model == "small_detector" else 1 if self.ssd else SIDES
        if any(side % step for side in self.size):  # torchvision pads: else anchors and features part
            raise TurncoatError(
                f"images of {self.size[0]}×{self.size[1]} pixels: {model} takes sides that are multiples of {step}; "
                "set image_size"
            )
        self.columns = COLUMNS["fcos" if self.fcos else "anchors"] | {"cls_logits": classes + self.ssd}
        self._place_anchors(shape[0])

    @torch.no_grad()
    def _place_anchors(self, channels: int) -> None:
        """The anchors of an image of this size, (a, 4), and how many each level of features has."""
        training = self.training
        self.eval()
        images = torch.zeros(1, channels, *self.size)
        features = self._features(images)
        generated = self.network.anchor_generator(ImageList(images, [self.size]), features)
        self.register_buffer("anchors", generated[0], persistent=False)
        each = self.network.anchor_generator.num_anchors_per_location()
        self.levels = [level.shape[2] * level.shape[3] * count for level, count in zip(features, each, strict=True)]
        self.train(training)

    def _features(self, images: Tensor) -> list[Tensor]:
        given = self.normalize(images)
        found = self.network.backbone(given if self.grey else coloured(given))
        return list(found.values()) if isinstance(found, dict) else [found]

    def forward(self, images: Tensor) -> Tensor:
        """(n, anchors, numbers), float32: what the head says of each anchor, `columns` one after the other."""
        said = self.network.head(self._features(images))
        return torch.cat([said[name] for name in self.columns], 2).float()

    def parts(self, outputs: Tensor) -> dict[str, Tensor]:
        """The head's own outputs, by torchvision's names."""
        return dict(zip(self.columns, outputs.split(list(self.columns.values()), 2), strict=True))

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The network's own loss of each image, (n,): classification, box and, of FCOS, centre.

        What torchvision's training loss is of a batch of this one image.
        """
        if self.fcos:
            head = self.parts(outputs)
            return fcos_losses(head, self.anchors, self.levels, targets, self.network.center_sampling_radius)
        return torch.stack(
            [self._library_loss(outputs[at : at + 1], boxed) for at, boxed in enumerate(self.boxed(targets))]
        )

    def _library_loss(self, outputs: Tensor, boxed: dict[str, Tensor]) -> Tensor:
        """torchvision's loss of one image."""
        head, given = self.parts(outputs), [self.anchors]
        if not self.ssd:
            parts = self.network.compute_loss([boxed], head, given)
        else:
            matched = torch.full((len(self.anchors),), -1, dtype=torch.int64, device=outputs.device)
            if len(boxed["boxes"]):
                matched = self.network.proposal_matcher(box_iou(boxed["boxes"], self.anchors))
            parts = self.network.compute_loss([boxed], head, given, [matched])
        total: Tensor = torch.stack(list(parts.values())).sum()
        return total

    def boxed(self, targets: Tensor) -> list[dict[str, Tensor]]:
        """Targets as torchvision takes them, one a dictionary of boxes and labels; an SSD's class 0 is background."""
        rows = [target[target[:, 0] >= 0] for target in targets]
        return [{"boxes": row[:, 1:], "labels": row[:, 0].long() + self.ssd} for row in rows]

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Nothing: a detection is right only among all others."""
        return {}

    @torch.no_grad()
    def found(self, outputs: Tensor) -> list[dict[str, Tensor]]:
        """Detections of each image, the surest first: `boxes` (d, 4), `scores` (d,) in [0, 1], `labels` (d,)."""
        head, sizes = self.parts(outputs), [self.size] * len(outputs)
        anchors: Any = [self.anchors] * len(outputs)
        if self.ssd:
            found = self.network.postprocess_detections(head, anchors, sizes)
            return [one | {"labels": one["labels"] - 1} for one in found]
        by_level = {name: list(values.split(self.levels, 1)) for name, values in head.items()}
        anchors = [list(one.split(self.levels)) for one in anchors]
        return list(self.network.postprocess_detections(by_level, anchors, sizes))


def _network(model: str, classes: int, shape: Sequence[int], args: Mapping[str, Any]) -> Any:
    """torchvision's module with `backbone`, `head`, `anchor_generator`; any, for its losses are no nn.Module's."""
    from torchvision.models import detection

    if model == "small_detector":
        if args:
            raise TurncoatError(f"model_args: {model} takes none")
        return _small(shape[0], shape[1:], classes)
    if model not in DETECTORS:
        raise TurncoatError(f"detection network {model} is not defined; there are {', '.join(DETECTORS)}")
    ssd = model.startswith("ssd")
    keywords = library_keywords(args) | {"num_classes": classes + ssd}  # an SSD counts the background
    keywords |= {"score_thresh": LEAST_SCORE, "detections_per_img": KEPT}
    network: Any = built(model, getattr(detection, model), keywords)
    return network


class _GroupNorm(nn.GroupNorm):
    """Of a copy with channels first: on a CPU the kernel for channels last makes the detector a quarter slower."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.contiguous())


class _Backbone(nn.Module):
    """The deepest features of a trunk: the one level that a small FCOS looks at."""

    def __init__(self, channels: int, size: Sequence[int]) -> None:
        super().__init__()
        self.trunk = Trunk(channels, size)
        self.out_channels = WIDTHS[-1]

    def forward(self, images: Tensor) -> Tensor:
        high: Tensor = self.trunk(images)["high"]
        return high


def _small(channels: int, size: Sequence[int], classes: int) -> nn.Module:
    """FCOS (Tian et al. 2019, arXiv 1904.01355) on one level, with one convolution a branch of its head."""
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOSHead

    backbone = _Backbone(channels, size)
    head = FCOSHead(backbone.out_channels, 1, classes, num_convs=1)
    for name, module in list(head.named_modules()):
        if isinstance(module, nn.GroupNorm):
            head.set_submodule(name, _GroupNorm(module.num_groups, module.num_channels))
    network: nn.Module = FCOS(
        backbone,
        classes,
        anchor_generator=AnchorGenerator(((backbone.trunk.stride,),), ((1.0,),)),
        head=head,
        score_thresh=LEAST_SCORE,
        detections_per_img=KEPT,
    )
    return network
