"""Whether one tower's first layer sees color and the other's oriented edges (P6.1, Figure 3).

For each filter: the fraction of its energy that is color, and how strongly it is oriented. For the
two towers: a permutation test of whether they differ. Which tower sees color depends on the seed;
the results do not depend on the order of the towers.
"""

import dataclasses
import itertools
import math

import numpy as np

from alexnet_jax.config import invalid

DRAWS = 10_000  # permutations of a test; all of them if there are no more
LEVEL = 0.01  # significance level
FREQUENCIES = 64  # on a side: filters are padded to it for a fine resolution of directions
NO_PATTERN = 1e-10  # fraction of a filter's energy that is rounding
NOISE = 256  # random filters for the value of noise


@dataclasses.dataclass(frozen=True)
class Measure:
    """One property of the filters, compared between the towers."""

    name: str
    towers: tuple[np.ndarray, np.ndarray]  # of each filter that is not all zeros
    noise: float  # the mean over filters of independent Gaussian weights
    p_value: float

    @property
    def means(self) -> tuple[float, float]:
        """The mean over each tower's filters."""
        return float(self.towers[0].mean()), float(self.towers[1].mean())

    @property
    def difference(self) -> float:
        """The absolute difference of the means."""
        return abs(self.means[0] - self.means[1])


@dataclasses.dataclass(frozen=True)
class Specialization:
    """Color and orientation of the first layer's filters in both towers."""

    color: Measure
    orientation: Measure
    color_of_energy: tuple[float, float]  # fraction of each tower's energy that is color
    zero: int  # number of filters that are all zeros and are left out


def measure_specialization(kernel: np.ndarray, seed: int = 0) -> Specialization:
    """Measure how the towers' filters differ; `seed` is for the permutations and the noise.

    Args:
        kernel: [k, k, 3, C], of the first layer; the first half of the filters is tower 0's.

    Raises:
        ValueError: the shape is another, C is odd, or all filters of a tower are zero.
    """
    if kernel.ndim != 4 or kernel.shape[2] != 3 or kernel.shape[3] % 2:
        rule = "must have the shape [k, k, 3, C] with an even C, half for each tower"
        raise invalid("kernel", str(kernel.shape), rule, "pass the kernel of the first layer")
    kernel = kernel.astype(np.float64)
    total = (kernel**2).sum(axis=(0, 1, 2))
    halves = np.split(np.arange(kernel.shape[3]), 2)
    halves = [half[total[half] > 0] for half in halves]
    if not all(half.size for half in halves):
        rule = "must not have a tower whose filters are all zero"
        raise invalid("kernel", str(kernel.shape), rule, "use a trained network")
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(*kernel.shape[:3], NOISE))
    measures = {}
    for name, property_of in (("color", color_share), ("orientation", orientation_strength)):
        values = property_of(kernel)
        towers = (values[halves[0]], values[halves[1]])
        p_value = permutation_test(*towers, rng)
        measures[name] = Measure(name, towers, float(property_of(noise).mean()), p_value)
    energy = [float(np.average(color_share(kernel)[h], weights=total[h])) for h in halves]
    zero = int((total == 0).sum())
    return Specialization(measures["color"], measures["orientation"], (energy[0], energy[1]), zero)


def color_share(kernel: np.ndarray) -> np.ndarray:
    """Return the fraction of each filter's energy off the gray axis, [C]; 0 for all zeros.

    0 if red, green and blue have equal weights, 1 if they sum to zero everywhere, 2/3 for noise.
    """
    gray = kernel.mean(axis=2, keepdims=True)
    return _ratio(((kernel - gray) ** 2).sum(axis=(0, 1, 2)), (kernel**2).sum(axis=(0, 1, 2)))


def orientation_strength(kernel: np.ndarray) -> np.ndarray:
    """Return how strongly each filter is oriented, [C].

    |sum P exp(2it)| / sum P over the Fourier power P at frequencies of direction t, up to half a
    cycle a pixel and without the mean. 1 is a grating; 0 is a round blob, two equal gratings at
    right angles, or no pattern.
    """
    pattern = kernel - kernel.mean(axis=(0, 1), keepdims=True)
    spectrum = np.fft.fft2(pattern, (FREQUENCIES, FREQUENCIES), axes=(0, 1))
    power = (np.abs(spectrum) ** 2).sum(axis=2)
    down, across = np.meshgrid(*[np.fft.fftfreq(FREQUENCIES)] * 2, indexing="ij")
    radius = np.hypot(down, across)
    power[(radius == 0) | (radius > 0.5)] = 0
    direction = np.exp(2j * np.arctan2(down, across))
    strength = np.abs(np.einsum("yxc,yx->c", power, direction))
    whole = (kernel**2).sum(axis=(0, 1, 2))
    uniform = (pattern**2).sum(axis=(0, 1, 2)) <= NO_PATTERN * whole
    return np.where(uniform, 0, _ratio(strength, power.sum(axis=(0, 1))))


def permutation_test(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> float:
    """Return the p-value of the difference of two means under random assignment to the towers.

    It is exact if there are at most `DRAWS` assignments; otherwise it is estimated from `DRAWS`
    random ones and the observed one. It does not depend on the order of values or towers.
    """
    pooled = np.sort(np.concatenate([first, second]))
    number, smaller = len(pooled), min(len(first), len(second))
    exact = math.comb(number, smaller) <= DRAWS
    if exact:
        samples = np.array(list(itertools.combinations(pooled, smaller)))
    else:
        samples = rng.permuted(np.tile(pooled, (DRAWS, 1)), axis=1)[:, :smaller]
    sums = samples.sum(axis=1)
    apart = np.abs(sums / smaller - (pooled.sum() - sums) / (number - smaller))
    # Equal up to rounding counts as equal.
    reached = int((apart >= abs(first.mean() - second.mean()) - 1e-12).sum())
    return reached / len(apart) if exact else (reached + 1) / (len(apart) + 1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def statement(specialization: Specialization) -> str:
    """Return the result in sentences."""
    sentences = []
    for measure in (specialization.color, specialization.orientation):
        low, high = sorted(measure.means)
        verdict = "differ" if measure.p_value < LEVEL else "do not differ"
        sentences.append(
            f"In {measure.name} the towers {verdict}: {low:.3f} in one and {high:.3f} in the other "
            f"(p = {measure.p_value:.2g}; noise {measure.noise:.3f})."
        )
    return " ".join(sentences)


def as_json(specialization: Specialization) -> dict[str, object]:
    """Return the result as plain values."""
    measures = {
        measure.name: {
            "towers": measure.means,
            "difference": measure.difference,
            "p_value": measure.p_value,
            "differs": measure.p_value < LEVEL,
            "noise": measure.noise,
            "filters": [values.tolist() for values in measure.towers],
        }
        for measure in (specialization.color, specialization.orientation)
    }
    energy = {
        "color_of_energy": specialization.color_of_energy,
        "zero_filters": specialization.zero,
    }
    return {**measures, **energy, "level": LEVEL, "statement": statement(specialization)}
