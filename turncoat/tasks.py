"""What images are for."""

from typing import Literal

Task = Literal["classification", "segmentation", "detection"]
