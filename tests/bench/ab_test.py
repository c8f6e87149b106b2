"""How often the sequential test of `--policies` is wrong under continuous looking, and how many episodes it needs.

    python tests/bench/ab_test.py [--experiments=2000] [--episodes=400] [--seed=0]

Policies are coins. Beside it a p-value (Fisher's exact test) that is looked at after each episode, which is the known
wrong way, and Fisher's test with a number of episodes that is fixed before.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy.stats import binom, hypergeom

from tactus.runtime.sequential_test import log_e

ALPHA = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--episodes", type=int, default=400, help="of a run that is not decided before")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random = np.random.default_rng(given.seed)
    pairs = given.episodes // 2
    fisher = Fisher(pairs)
    print(f"{given.experiments} experiments of up to {given.episodes} episodes, looked at all along, alpha {ALPHA}\n")
    print("false alarms at equal rates      sequential test    p < 0.05 after each episode")
    for rate in np.arange(0.1, 1.0, 0.1):
        a, b = coins(random, given.experiments, pairs, rate, rate)
        test, naive = (decided(a, b) > 0).mean(), fisher.ever(a, b).mean()
        print(f"  {rate:.1f} and {rate:.1f}{test:29.1%}{naive:27.1%}")
    print("  scenes get harder, 0.9 to 0.1", end="")
    ramp = np.linspace(0.9, 0.1, pairs)
    a, b = coins(random, given.experiments, pairs, ramp, ramp)
    print(f"{(decided(a, b) > 0).mean():11.1%}{fisher.ever(a, b).mean():27.1%}")
    print("\nepisodes that it takes           median   90th percentile   Fisher, fixed before, for 80 % and 90 % power")
    for low, high in ((0.6, 0.8), (0.5, 0.9), (0.7, 0.8)):
        a, b = coins(random, given.experiments, 2000, low, high)
        found = decided(a, b)
        assert (found > 0).all()
        fixed = " and ".join(str(2 * sample(low, high, power)) for power in (0.8, 0.9))
        print(f"  {low:.0%} against {high:.0%}{np.median(found):20.0f}{np.percentile(found, 90):18.0f}   {fixed}")


def coins(random: np.random.Generator, experiments: int, pairs: int, a: object, b: object) -> tuple[np.ndarray, ...]:
    """bool[experiments, pairs] of each policy."""
    return tuple(random.random((experiments, pairs)) < np.broadcast_to(rate, pairs) for rate in (a, b))  # type: ignore[arg-type]


def decided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """After how many episodes each experiment is; 0 for never."""
    wins, losses = np.cumsum(a & ~b, axis=1), np.cumsum(b & ~a, axis=1)
    most = int(max(wins.max(), losses.max())) + 1
    table = np.array([[log_e(w, n) for n in range(most)] for w in range(most)])
    over = table[wins, losses] >= -math.log(ALPHA)
    return np.where(over.any(axis=1), 2 * (over.argmax(axis=1) + 1), 0)


class Fisher:
    """Whether Fisher's exact test of n episodes of each policy rejects, for all outcomes; two-sided, as scipy's."""

    def __init__(self, pairs: int) -> None:
        self._tables = [rejects(n) for n in range(1, pairs + 1)]

    def ever(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether it does after some pair, for each experiment."""
        a, b = np.cumsum(a, axis=1), np.cumsum(b, axis=1)
        return np.any([table[a[:, n], b[:, n]] for n, table in enumerate(self._tables)], axis=0)


def rejects(n: int) -> np.ndarray:
    """bool[n + 1, n + 1], by the successes of either policy."""
    found = np.zeros((n + 1, n + 1), bool)
    for both in range(2 * n + 1):
        first = np.arange(max(0, both - n), min(n, both) + 1)
        likely = hypergeom.pmf(first, 2 * n, n, both)
        order = np.argsort(likely)
        p = np.cumsum(likely[order])[np.searchsorted(likely[order], likely * (1 + 1e-7), side="right") - 1]
        found[first, both - first] = p < ALPHA
    return found


def sample(low: float, high: float, power: float) -> int:
    """Episodes of each policy that Fisher's test needs to find the difference so often: the exact power."""
    n = 10
    while binom.pmf(range(n + 1), n, low) @ rejects(n) @ binom.pmf(range(n + 1), n, high) < power:
        n += 1
    return n


if __name__ == "__main__":
    main()
