"""A sequential test of two policies' success rates that may be looked at after every episode; intervals that may too.

Episodes come in pairs, one of each policy in random order. If the policies are equally good, then whatever the scenes
are like and however they change from pair to pair, a pair in which only one of the two succeeds is a fair coin. A
bettor who stakes on the coin being unfair by a uniform mixture has, after `wins` of policy a and `losses`,

    e = ∫ (2θ)^wins (2(1-θ))^losses dθ = 2^n / ((n + 1) · C(n, wins)),      n = wins + losses

times what they began with. That is a non-negative martingale with mean 1 under equality, so that by Ville's inequality
(1939) it ever reaches 1/alpha with probability alpha at the most: it can be looked at as often as one likes, and to
stop when it has reached 1/alpha has an error of at most alpha.

Sources: Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Stat. 41 (1970), for
the mixture; Turner, Ly and Grünwald, "Generic e-variables for exact sequential k-sample tests", arXiv 2106.02693, for
tests in blocks; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024),
for the interval of the difference. To look at pairs that differ alone (McNemar 1947) costs 2 % of the growth at 60
against 80 %, and makes the test exact where scenes are not alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(256)
BETS, BET_WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
"""Of Gauss's quadrature between 0 and 1: what is integrated is a polynomial of as high a degree as there are pairs, and
exact up to 511 of them."""
STEPS = 60
"""Of a bisection: more than a float has bits for."""
FAR = 10**6
"""Pairs beyond which nobody waits."""


def log_e(wins: int, losses: int) -> float:
    """The logarithm of the e-value after so many pairs in which only policy a, or only policy b, succeeded."""
    return _log_e(float(wins), float(losses))


def _log_e(wins: float, losses: float) -> float:
    n = wins + losses
    return n * math.log(2) + math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(n + 2)


def rate_interval(successes: int, episodes: int, alpha: float) -> tuple[float, float]:
    """A success rate's interval that holds at all times at once with probability 1 - alpha: the rates that a uniform
    mixture of bets has not won 1/alpha against. (0, 1) without episodes. Of independent episodes alike."""
    failures, bound = episodes - successes, -math.log(alpha)
    mixture = math.lgamma(successes + 1) + math.lgamma(failures + 1) - math.lgamma(episodes + 2)

    def won(rate: float) -> float:
        likelihood = (successes * math.log(rate) if successes else 0.0) + (
            failures * math.log1p(-rate) if failures else 0.0
        )
        return mixture - likelihood - bound

    return _interval(won, successes / episodes if episodes else 0.5, 0.0, 1.0)


def difference_interval(wins: int, ties: int, losses: int, alpha: float) -> tuple[float, float]:
    """An interval of the rate of a minus the rate of b that holds at all times at once with probability 1 - alpha. It
    leaves out 0 exactly if the e-value of `log_e` is over 1/alpha. Of independent pairs alike."""
    pairs, bound = wins + ties + losses, -math.log(alpha)

    def won(difference: float) -> float:
        mean = (1 + difference) / 2  # of (1 + a - b) / 2, which is 1, 1/2 or 0
        bets = -1 / (1 - mean) + BETS * (1 / mean + 1 / (1 - mean))
        logs = (
            wins * np.log1p(bets * (1 - mean)) + ties * np.log1p(bets * (0.5 - mean)) + losses * np.log1p(-bets * mean)
        )
        top = float(logs.max())
        return top + math.log(float(np.sum(BET_WEIGHTS * np.exp(logs - top)))) - bound

    return _interval(won, (wins - losses) / pairs if pairs else 0.0, -1.0, 1.0)


def _interval(won: Callable[[float], float], middle: float, low: float, high: float) -> tuple[float, float]:
    """Between `low` and `high`, where `won` is not above 0 around `middle`."""
    inside = min(max(middle, low + 1e-9), high - 1e-9)

    def edge(end: float) -> float:
        within, beyond = inside, end + math.copysign(1e-12, inside - end)
        if won(beyond) <= 0:
            return end
        for _ in range(STEPS):
            half = (within + beyond) / 2
            within, beyond = (half, beyond) if won(half) <= 0 else (within, half)
        return beyond

    return edge(low), edge(high)


def pairs_to_go(wins: int, ties: int, losses: int, alpha: float) -> int | None:
    """How many more pairs it takes to be decided if they go on as they went; None if that is beyond foresight."""
    pairs, bound = wins + ties + losses, -math.log(alpha)
    if not pairs or wins == losses:
        return None

    def reached(more: int) -> bool:
        factor = (pairs + more) / pairs
        return _log_e(wins * factor, losses * factor) >= bound

    if reached(0):
        return 0
    if not reached(FAR):
        return None
    short, enough = 0, FAR
    while enough - short > 1:
        half = (short + enough) // 2
        short, enough = (short, half) if reached(half) else (half, enough)
    return enough
