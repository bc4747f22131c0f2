"""A network, a task and batches small enough to be checked by hand."""

import copy
import math

import numpy as np
import torch

from turncoat import models
from turncoat.attacks import Threat, pgd
from turncoat.data.batches import Batch, DeviceSplit
from turncoat.methods.base import Task
from turncoat.papers.arms import method_class
from turncoat.randomness import generator
from turncoat.training import initialised

CLASSES = 4
TASK = Task(Threat("linf", 0.1), CLASSES)


def network(seed=0, steps=0):
    """A small classifier; with `steps` its running statistics have met some images."""
    net = initialised(seed, lambda: models.Classifier("small_cnn", CLASSES, (1, 8, 8), [0.4], [0.3]))
    with torch.no_grad():
        for step in range(steps):
            net(images_of(8, 100 + step))
    return net


def images_of(n, seed=0):
    return torch.rand(n, 1, 8, 8, generator=generator(seed, "images"))


def split_of(n, seed=0):
    """Images whose class shows: a bright quadrant on noise."""
    source = generator(seed, "split")
    images = torch.randint(0, 120, (n, 1, 8, 8), generator=source, dtype=torch.uint8)
    labels = torch.arange(n) % CLASSES
    for place, label in enumerate(labels.tolist()):
        row, column = 4 * (label // 2), 4 * (label % 2)
        images[place, :, row : row + 4, column : column + 4] += 100
    return DeviceSplit(images, labels)


def batch_of(n=6, seed=0):
    """The same batch at each call, with a generator that has not been drawn from."""
    labels = torch.randint(0, CLASSES, (n,), generator=generator(seed, "labels"))
    return Batch(images_of(n, seed), labels, torch.arange(n), generator(seed, "batch"))


def method(name, net=None, split=None, task=TASK, **settings):
    """A prepared method in training mode."""
    cls = method_class(name)
    made = cls(cls.settings_class(method=name, **settings), task)
    made.prepare(network() if net is None else net, split or split_of(6), seed=0)
    made.model.train()
    return made


def gradients(made, batch):
    """Loss, and the gradient of every parameter, as the trainer would see them."""
    made.model.zero_grad(set_to_none=True)
    loss, parts = made.loss(batch)
    loss.backward()
    found = {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}
    made.before_step()
    return loss.detach(), found, parts


def adversarial(net, batch, settings, loss="ce"):
    """What the arm's attack makes of a batch, found without the method."""
    threat = Threat(TASK.threat.norm, TASK.threat.epsilon * settings.radius)
    return pgd(
        net, batch.images, batch.labels, threat, steps=settings.steps,
        relative_step=settings.relative_step / settings.radius,
        start=settings.start, loss=loss, generator=batch.generator, mode=settings.mode,
    )  # fmt: skip


def double(net):
    """A float64 copy in training mode; its normalisation buffers too."""
    copied = copy.deepcopy(net).double().train()
    copied.forward = lambda images: copied.network(copied.normalize(images.double()))
    return copied


def softmax(row):
    """Probabilities of one row of logits, in plain arithmetic."""
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [value / sum(powers) for value in powers]


def slopes(function, logits, step=1e-6):
    """Central differences of a scalar function of a float64 array."""
    found = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        up, down = logits.copy(), logits.copy()
        up[place] += step
        down[place] -= step
        found[place] = (function(up) - function(down)) / (2 * step)
    return found
