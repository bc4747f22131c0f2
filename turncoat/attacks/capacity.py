"""How many images an attack should meet at a time: as many as the device computes fastest and holds in its memory."""

import torch
from torch import Tensor, nn

from .engine import attacked, input_gradient
from .losses import ce

# Measured on one core: with more pixels a batch the activations leave its caches, with fewer the calls cost more.
PIXELS, MOST_ON_CPU = 50_000, 500
PROBED = 16  # images of the probing pass
SHARE = 0.5  # of the free memory; the rest is for fragments, and for what other attacks hold
MOST_ON_CUDA = 4096  # a GPU is busy long before
STATE = 24  # images that an attack keeps for each one it works on: iterates, gradients, bounds, in float32


def batch_size(model: nn.Module, images: Tensor) -> int:
    """A batch size for attacks on `model` with images like `images` (n, c, h, w), on their device.

    On a CPU it hangs on the images' size alone. On CUDA one forward and backward pass of a few images tells how much of
    the free memory an image takes; the size is a power of 2, so that it seldom differs between two runs.
    """
    if not images.is_cuda:
        return max(1, min(MOST_ON_CPU, PIXELS // images[0, 0].numel()))
    probe = images[:PROBED].repeat(-(-PROBED // len(images)), 1, 1, 1)[:PROBED]
    device = images.device
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with attacked(model):
        input_gradient(model, probe, ce, torch.zeros(PROBED, dtype=torch.int64, device=device))
    used = torch.cuda.max_memory_allocated(device) - before
    image = used / PROBED + STATE * images[0].numel() * 4
    return fitting(torch.cuda.mem_get_info(device)[0], image)


def fitting(free: float, image: float) -> int:
    """The largest power of 2, 1 to `MOST_ON_CUDA`, of images of so many bytes each that `SHARE` of `free` holds."""
    count = int(SHARE * free / max(1.0, image))
    return min(MOST_ON_CUDA, 1 << max(0, count.bit_length() - 1))
