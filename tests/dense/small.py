"""Scenes, networks and methods of segmentation and detection, small enough for seconds."""

from functools import cache
from pathlib import Path

import torch

from turncoat import models
from turncoat.attacks import Threat
from turncoat.data.batches import Batch, resident
from turncoat.data.prepare import prepare
from turncoat.methods.base import Task
from turncoat.papers.arms import method_class
from turncoat.randomness import generator
from turncoat.settings import DataSettings
from turncoat.training import initialised

TASKS = ("segmentation", "detection")
SMALL = {"segmentation": "small_segmenter", "detection": "small_detector"}
LARGE = {
    "segmentation": ("lraspp_mobilenet_v3_large", "fcn_resnet50", "deeplabv3_resnet50"),
    "detection": ("ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn", "retinanet_resnet50_fpn"),
}
THREAT = Threat("linf", 8 / 255)


@cache
def scenes(task, train=24, side=40):
    """A few scenes, as the download stage makes them."""
    settings = DataSettings(source="scenes", train=train, validation=8, test=12, image_size=side)
    return prepare("scenes", settings, Path(), task)


def network(task, model=None, seed=0, side=40, **args):
    """A fresh network for the scenes."""
    data = scenes(task, side=side)
    kind = (len(data.classes), data.shape, data.mean, data.std)
    return initialised(seed, lambda: models.OF_TASK[task](model or SMALL[task], *kind, args))


def split_of(task, part="train", side=40):
    data = scenes(task, side=side)
    split = getattr(data, part)
    return resident(split.images, split.labels, "cpu", task)


def batch_of(task, n=6, seed=0, side=40):
    """The same batch at each call, with a generator that has not been drawn from."""
    split = split_of(task, side=side)
    return Batch(split.floats(0, n), split.labels[:n], torch.arange(n), generator(seed, "batch"))


def method(name, net, task, **settings):
    """A prepared method in training mode."""
    cls = method_class(name)
    made = cls(cls.settings_class(method=name, **settings), Task(THREAT, len(scenes(task).classes)))
    made.prepare(net, split_of(task), seed=0)
    made.model.train()
    return made
