"""Whether one tower's first layer sees color and the other's oriented edges (P6.1, Figure 3).

Of each filter: which share of its energy is color, and how much its pattern runs in one direction.
Then, of the two towers: whether they differ more than filters dealt to them at random would. Which
of the two has the color is an accident of the seed; nothing here depends on the towers' numbers.
"""

import dataclasses
import itertools
import math

import numpy as np

DRAWS = 10_000  # of a permutation test, or all dealings where there are no more
LEVEL = 0.01  # a p-value below it is called a difference
FREQUENCIES = 64  # to a side: filters are padded to it, so that directions are finely told apart
NO_PATTERN = 1e-10  # of a filter's energy: what is left of a uniform one by rounding
NOISE = 256  # filters drawn to know what noise would give


@dataclasses.dataclass(frozen=True)
class Measure:
    """One property of the filters, compared between the towers."""

    name: str
    towers: tuple[np.ndarray, np.ndarray]  # of each filter that is not zero
    noise: float  # the mean over filters of independent Gaussian weights
    p_value: float

    @property
    def means(self) -> tuple[float, float]:
        """The mean over each tower's filters."""
        return float(self.towers[0].mean()), float(self.towers[1].mean())

    @property
    def difference(self) -> float:
        """How far the means are apart, whichever is the larger."""
        return abs(self.means[0] - self.means[1])


@dataclasses.dataclass(frozen=True)
class Specialization:
    """What the first layer's filters see, tower by tower."""

    color: Measure
    orientation: Measure
    color_of_energy: tuple[float, float]  # which share of a tower's energy is color
    zero: int  # filters without any energy, which count nowhere


def measure_specialization(kernel: np.ndarray, seed: int = 0) -> Specialization:
    """Return how the towers' filters differ; `seed` draws the permutations and the noise.

    Args:
        kernel: [k, k, 3, C], the first layer's; the first half of the filters is tower 0's.

    Raises:
        ValueError: another shape, an odd C, or a tower of which all filters are zero.
    """
    if kernel.ndim != 4 or kernel.shape[2] != 3 or kernel.shape[3] % 2:
        raise ValueError(
            f"kernel of shape {kernel.shape}: specialization is measured on [k, k, 3, C] with an "
            "even C, one half a tower; pass the first layer's kernel."
        )
    kernel = kernel.astype(np.float64)
    total = (kernel**2).sum(axis=(0, 1, 2))
    halves = np.split(np.arange(kernel.shape[3]), 2)
    halves = [half[total[half] > 0] for half in halves]
    if not all(half.size for half in halves):
        raise ValueError(
            "all filters of a tower are zero: there is nothing to compare; name a trained network."
        )
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(*kernel.shape[:3], NOISE))
    compared = {}
    for name, property_of in (("color", color_share), ("orientation", orientation_strength)):
        values = property_of(kernel)
        towers = (values[halves[0]], values[halves[1]])
        p_value = permutation_test(*towers, rng)
        compared[name] = Measure(name, towers, float(property_of(noise).mean()), p_value)
    energy = [float(np.average(color_share(kernel)[h], weights=total[h])) for h in halves]
    zero = int((total == 0).sum())
    return Specialization(compared["color"], compared["orientation"], (energy[0], energy[1]), zero)


def color_share(kernel: np.ndarray) -> np.ndarray:
    """Return the share of each filter's energy off the gray axis, [C]; 0 for a filter of zeros.

    0 where red, green and blue weigh alike, 1 where they sum to zero everywhere, 2/3 in noise.
    """
    gray = kernel.mean(axis=2, keepdims=True)
    return _ratio(((kernel - gray) ** 2).sum(axis=(0, 1, 2)), (kernel**2).sum(axis=(0, 1, 2)))


def orientation_strength(kernel: np.ndarray) -> np.ndarray:
    """Return how much each filter's pattern runs in one direction, [C].

    Of the Fourier power P at frequencies of direction t, up to half a cycle a pixel, without the
    mean: |sum P exp(2it)| / sum P. 1 is a grating; 0 has no direction, as a round blob, two equal
    gratings at right angles, or no pattern.
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
    """Return how often filters dealt at random to two towers have means as far apart.

    Of all dealings where they are at most `DRAWS`, else of as many drawn ones and the true one. The
    order of the values and which tower is first change nothing, not even the draws.
    """
    pooled = np.sort(np.concatenate([first, second]))
    number, smaller = len(pooled), min(len(first), len(second))
    exact = math.comb(number, smaller) <= DRAWS
    if exact:
        dealt = np.array(list(itertools.combinations(pooled, smaller)))
    else:
        dealt = rng.permuted(np.tile(pooled, (DRAWS, 1)), axis=1)[:, :smaller]
    sums = dealt.sum(axis=1)
    apart = np.abs(sums / smaller - (pooled.sum() - sums) / (number - smaller))
    # As far apart but for rounding is as far apart.
    reached = int((apart >= abs(first.mean() - second.mean()) - 1e-12).sum())
    return reached / len(apart) if exact else (reached + 1) / (len(apart) + 1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def statement(found: Specialization) -> str:
    """Return what was found, in sentences."""
    said = []
    for one in (found.color, found.orientation):
        low, high = sorted(one.means)
        verdict = "differ" if one.p_value < LEVEL else "do not differ"
        said.append(
            f"In {one.name} the towers {verdict}: {low:.3f} in one and {high:.3f} in the other "
            f"(p = {one.p_value:.2g}; noise {one.noise:.3f})."
        )
    return " ".join(said)


def as_json(found: Specialization) -> dict[str, object]:
    """Return all that was found as plain values."""
    measures = {
        one.name: {
            "towers": one.means,
            "difference": one.difference,
            "p_value": one.p_value,
            "differs": one.p_value < LEVEL,
            "noise": one.noise,
            "filters": [values.tolist() for values in one.towers],
        }
        for one in (found.color, found.orientation)
    }
    energy = {"color_of_energy": found.color_of_energy, "zero_filters": found.zero}
    return {**measures, **energy, "level": LEVEL, "statement": statement(found)}
