"""Which network a file holds that is no AlexNet, for a sentence instead of a list of its arrays."""

from alexnet_jax.weights.files import RawWeights

FIRST = ("features.0.weight", "conv1_w", "W_0", "W0_0")  # the first kernel, in every format
WINDOW = (11, 11)  # of the first layer, in all networks that are called AlexNet

_VGG = {8: "VGG11", 10: "VGG13", 13: "VGG16", 16: "VGG19"}  # by the number of convolutions


def check_is_alexnet(raw: RawWeights) -> None:
    """Raise a ValueError, which says what the arrays are like, if the first layer is no AlexNet's.

    Of other layers the sizes differ among AlexNets, and a preset may be the remedy.
    """
    name = next((name for name in FIRST if name in raw.arrays), "")
    if not name or raw.arrays[name].ndim != 4 or _window(raw, name) == WINDOW:
        return
    rows, columns = _window(raw, name)
    raise ValueError(
        f"The file holds no AlexNet, but what looks like {_looks_like(raw, name)}: the windows of "
        f"its first layer, {name}, are {rows} x {columns}, and those of an AlexNet 11 x 11; name "
        "the weights of an AlexNet."
    )


def _window(raw: RawWeights, name: str) -> tuple[int, int]:
    """Return rows and columns of a kernel, which formats have in three places."""
    shape = raw.arrays[name].shape
    first = {"tensorflow": 0, "theano": 1}.get(raw.format, 2)
    return shape[first], shape[first + 1]


def _looks_like(raw: RawWeights, name: str) -> str:
    kernels = [key for key, array in raw.arrays.items() if array.ndim == 4]
    outputs = max(raw.arrays[name].shape[axis] for axis in (0, 3))
    window = _window(raw, name)
    if window == (3, 3) and {_window(raw, key) for key in kernels} == {(3, 3)}:
        return _VGG.get(len(kernels), f"a network of {len(kernels)} convolutions like VGG's")
    if window == (5, 5) and len(kernels) <= 3 and outputs <= 64:
        return "LeNet"
    if window == (7, 7):
        return "ZFNet" if outputs == 96 and len(kernels) == 5 else "ResNet or GoogLeNet"
    return f"a network of {len(kernels)} convolutions of its own"
