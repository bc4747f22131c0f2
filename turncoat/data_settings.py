"""The section `data` of a data set in params.yaml: where images come from, their size, how they are split."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from turncoat.strict import Strict

OWN = ("folder", "npz", "parquet", "masks", "coco", "voc")  # images of one's own, which `path` names
TASKS = {  # what a source has targets for, where that is not a class an image
    "scenes": ("segmentation", "detection"),
    "masks": ("segmentation",),
    "coco": ("detection",),
    "voc": ("segmentation", "detection"),
    "voc2007": ("segmentation", "detection"),
    "voc2012": ("segmentation", "detection"),
}
SMALLEST, LARGEST = 8, 1024  # pixels; no network here takes less


class DataSettings(Strict):
    """Where images come from and how they are split; None takes all that remain (test: the official test set)."""

    source: Literal[
        "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "imagenette", "folder", "npz", "parquet",
        "scenes", "masks", "coco", "voc", "voc2007", "voc2012",
    ]  # fmt: skip
    path: str | None = Field(
        None, min_length=1, description="folder or file, from the folder of params.yaml or absolute"
    )
    train: int | None = Field(None, gt=0)
    validation: int | None = Field(None, gt=0, description="None: the whole validation set that the images bring along")
    test: int | None = Field(None, gt=0)
    split_seed: int = Field(0, ge=0)
    image_size: int | list[int] | None = Field(
        None, description="side, or [height, width], of the images as they are used"
    )
    classes: list[str] | None = Field(
        None, min_length=1, description="names of what masks and boxes show, in order; None: as they are found"
    )
    void: int | None = Field(None, ge=0, le=255, description="value of a mask that belongs to no class, besides 255")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that images are brought to, or None: they stay as they are."""
        if self.image_size is None:
            return None
        height, width = self.image_size if isinstance(self.image_size, list) else (self.image_size, self.image_size)
        return height, width

    @field_validator("image_size", mode="before")
    @classmethod
    def _one_side_or_two(cls, value: Any) -> Any:
        sides = value if isinstance(value, list) and len(value) == 2 else [value]
        if value is not None and not all(type(side) is int and SMALLEST <= side <= LARGEST for side in sides):
            raise ValueError(f"{SMALLEST}...{LARGEST} pixels, or [height, width], wanted (got {value!r})")
        return value

    @model_validator(mode="after")
    def _targets_are_described(self) -> Self:
        for field in ("classes", "void"):
            if getattr(self, field) is not None and self.source not in ("masks", "coco", "voc"):
                raise ValueError(f"{field}: only masks, coco and voc read it; remove it for {self.source}")
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: a name stands twice: {', '.join(self.classes)}")
        return self

    @model_validator(mode="after")
    def _fields_go_together(self) -> Self:
        if self.source in OWN and self.path is None:
            raise ValueError(f"path is missing: the folder or file that source {self.source} is to read")
        if self.source not in OWN and self.path is not None:
            raise ValueError(f"path: only {', '.join(OWN)} read one; remove it for {self.source}")
        if self.source not in OWN and self.validation is None:
            raise ValueError(f"validation is missing: how many images of {self.source} to hold out of training")
        if self.source == "imagenette":
            if self.image_size is None:
                raise ValueError(
                    "image_size is missing: imagenette's photographs differ in size; set one, for instance 160"
                )
            if not isinstance(self.image_size, int) or self.image_size > 512:
                raise ValueError("image_size: imagenette's photographs become squares of at most 512; set one number")
        elif self.source == "scenes":
            if not all((self.train, self.validation, self.test)):
                raise ValueError("train, validation and test are wanted: scenes are made, as many as are asked for")
            if self.image_size is not None and (not isinstance(self.image_size, int) or self.image_size < 32):
                raise ValueError(f"image_size: scenes are squares from 32 pixels (got {self.image_size!r})")
        elif self.source in ("voc2007", "voc2012"):
            if self.image_size is None:
                raise ValueError("image_size is missing: these photographs differ in size; set [height, width]")
        elif self.source not in OWN and self.image_size is not None:
            raise ValueError(f"image_size: images of {self.source} have one size and keep it; remove it")
        return self
