"""Segmentation networks: a logit for each class and pixel out of images in [0, 1]; normalisation is the first layer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from turncoat.data.targets import VOID
from turncoat.errors import TurncoatError
from turncoat.models.classifiers import Normalize
from turncoat.models.trunk import WIDTHS, Trunk, built, coloured, library_keywords
from turncoat.settings import SEGMENTERS

TORCHVISION = tuple(name for name in SEGMENTERS if name != "small_segmenter")


class Segmenter(nn.Module):
    """A named network behind its normalisation.

    Args:
        model: one of `SEGMENTERS`. classes: number of classes, the background one of them.
        shape: (channels, height, width) of an image. mean, std: per channel, of the training images in [0, 1].
        args: keywords for torchvision's builder.

    Raises:
        TurncoatError: there is no such network, or it does not take these keywords.
    """

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
        # pretrained weights are where a network starts from: a file that deploys it has its own
        kept = {name: value for name, value in (args or {}).items() if name != "weights_backbone"}
        self.spec: Final[dict[str, Any]] = {
            "kind": "segmenter",
            "model": model,
            "classes": int(classes),
            "shape": [int(size) for size in shape],
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            **({"args": kept} if kept else {}),
        }
        self.normalize = Normalize(mean, std)
        if model == "small_segmenter":
            if args:
                raise TurncoatError(f"model_args: {model} takes none")
            self.network: nn.Module = _Small(shape[0], shape[1:], classes)
        elif model in TORCHVISION:
            from torchvision.models import segmentation

            if set(args or {}) - {"weights_backbone"}:  # torchvision's builders pass over what they do not know
                raise TurncoatError(f"model_args: {model} takes weights_backbone alone (got {', '.join(args or {})})")
            make: Callable[..., nn.Module] = getattr(segmentation, model)
            self.network = built(model, make, library_keywords(args or {}) | {"num_classes": classes})
        else:
            raise TurncoatError(f"segmentation network {model} is not defined; there are {', '.join(SEGMENTERS)}")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes, h, w), float32 also under autocast."""
        given = self.normalize(images)
        found: Any = self.network(given if isinstance(self.network, _Small) else coloured(given))
        logits: Tensor = found["out"] if isinstance(found, dict) else found
        return logits.float()

    def pixel_losses(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Cross-entropy of each pixel, (n, h, w); 0 where the mask is void."""
        return functional.cross_entropy(logits, masks.long(), ignore_index=VOID, reduction="none")

    def averaged(self, values: Tensor, masks: Tensor) -> Tensor:
        """Mean over each image's pixels that are not void, (n,), of values (n, h, w) that are 0 there."""
        return values.sum((1, 2)) / (masks != VOID).sum((1, 2)).clamp_min(1)

    def losses(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Cross-entropy of each image, (n,): the mean over its pixels that are not void.

        Args: masks: (n, h, w) integers, 0...classes−1, or `VOID`.
        """
        return self.averaged(self.pixel_losses(logits, masks), masks)

    def scores(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Share of right pixels, a detached scalar."""
        right = (logits.detach().argmax(1) == masks).float()
        return {"train_accuracy": right.sum() / (masks != VOID).sum().clamp_min(1)}

    @torch.no_grad()
    def found(self, logits: Tensor) -> Tensor:
        """The class of each pixel, (n, h, w) uint8."""
        return logits.argmax(1).to(torch.uint8)


class _Small(nn.Module):
    """A trunk and the head of LR-ASPP (Howard et al. 2019, arXiv 1905.02244): for small images and a CPU."""

    def __init__(self, channels: int, size: Sequence[int], classes: int) -> None:
        super().__init__()
        from torchvision.models.segmentation.lraspp import LRASPPHead

        self.trunk = Trunk(channels, size)
        self.head = LRASPPHead(WIDTHS[1], WIDTHS[2], classes, WIDTHS[2])

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.trunk(images))
        return functional.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=False)
