"""Where the raw files of each data set come from, and how to know that they are the right ones.

Paths, addresses and md5 sums are those torchvision publishes with its data set classes (a test compares them); the
sizes are those of the published files, so that a truncated or padded file is seen before it is read.  A second address
for a file is a copy kept by the data set's own authors or by another public host; the checksum decides, not the host.

- digits: 1,797 images of 8×8, Alpaydin & Kaynak (UCI 1998), part of scikit-learn: no download.
- mnist: LeCun, Cortes & Burges 1998.  fashion_mnist: Xiao, Rasul & Vollgraf 2017.
- voc2007, voc2012: Everingham et al., PASCAL VOC; of 2007 the test set is published, of 2012 `val` stands for it.
- cifar10, cifar100: Krizhevsky 2009.  imagenette: Howard 2019, ten classes of ImageNet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from turncoat.errors import TurncoatError


@dataclass(frozen=True)
class RawFile:
    """A published file.

    Attributes:
        path: its place below the root folder of torchvision's class; the last part is its published name.
        size: bytes.
        urls: canonical addresses, tried in this order.
        unpacked: for an archive whose content has published checksums, path below the root -> md5 of each file in it;
            a mirror may hold these instead of the archive.
    """

    path: str
    md5: str
    size: int
    urls: tuple[str, ...]
    unpacked: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


def _idx(folder: str, hosts: tuple[str, ...], files: dict[str, tuple[str, int]]) -> tuple[RawFile, ...]:
    """The four gzipped IDX files of a data set in MNIST's form."""
    return tuple(
        RawFile(f"{folder}/raw/{name}", md5, size, tuple(host + name for host in hosts))
        for name, (md5, size) in files.items()
    )


MNIST = _idx(
    "MNIST",
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    {
        "train-images-idx3-ubyte.gz": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", 9912422),
        "train-labels-idx1-ubyte.gz": ("d53e105ee54ea40749a09fcbcd1e9432", 28881),
        "t10k-images-idx3-ubyte.gz": ("9fb629c4189551a2d022fa330f9573f3", 1648877),
        "t10k-labels-idx1-ubyte.gz": ("ec29112dd5afa0611ce80d1b7f02629c", 4542),
    },
)

FASHION_MNIST = _idx(
    "FashionMNIST",
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    {
        "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26421880),
        "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe", 29515),
        "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79", 4422102),
        "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310", 5148),
    },
)

CIFAR10 = RawFile(
    "cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
    170498071,
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    {
        "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
        "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
        "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
        "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
)

CIFAR100 = RawFile(
    "cifar-100-python.tar.gz",
    "eb9058c3a382ffc7106e4002c42a8d85",
    169001437,
    ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
    {
        "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
        "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
    },
)


def _imagenette(name: str, md5: str, size: int) -> RawFile:
    return RawFile(name, md5, size, (f"https://s3.amazonaws.com/fast-ai-imageclas/{name}",))


# Shorter side of the photographs, as torchvision names it; the three archives differ in nothing else.
IMAGENETTE = {
    "160px": _imagenette("imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412", 99003388),
    "320px": _imagenette("imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3", 341663724),
    "full": _imagenette("imagenette2.tgz", "fe2fc210e6bb7c5664d602c3cd71e612", 1557161267),
}


def _voc(year: int, name: str, md5: str, size: int) -> RawFile:
    host = "http://host.robots.ox.ac.uk/pascal/VOC"
    return RawFile(name, md5, size, (f"{host}/voc{year}/{name}",))


VOC2007 = (
    _voc(2007, "VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64", 460032000),
    _voc(2007, "VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f", 451020800),
)
VOC2012 = (_voc(2012, "VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd", 1999639040),)

FILES = {
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "cifar10": (CIFAR10,),
    "cifar100": (CIFAR100,),
    "voc2007": VOC2007,
    "voc2012": VOC2012,
}
SOURCES = ("digits", *FILES, "imagenette")


def imagenette_size(image_size: int) -> str:
    """The smallest of torchvision's three sizes from which `image_size` pixels can be had without enlarging."""
    return "160px" if image_size <= 160 else "320px" if image_size <= 320 else "full"


def raw_files(source: str, image_size: int | None = None) -> tuple[RawFile, ...]:
    """The files that `source` is read from; none for digits, which scikit-learn carries.

    Raises:
        TurncoatError: an unknown source.
    """
    if source not in SOURCES:
        raise TurncoatError(f"unknown data set source {source!r}; there are: {', '.join(SOURCES)}")
    if source == "imagenette":
        return (IMAGENETTE[imagenette_size(image_size or 160)],)
    return FILES.get(source, ())
