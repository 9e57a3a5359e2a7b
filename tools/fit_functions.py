"""Prints the coefficients of erf and GELU in csrc/formulas/math.inl.h (needs mpmath and numpy).

erf(x) / x - 1 is fitted as a polynomial in x^2 on [0, 1], log(1 - erf(x)) as one in x on [0.95, 4], both at Chebyshev
nodes, which is within a few per cent of the best uniform fit. For GELU on [0, 5] with the least largest error of the
result: the logarithm to base 2 of the tail t(x) beyond x of the normal distribution, weighted with t(x) + 1e-4, which
bounds the error of the tail and, of small ones, also the relative one; and (t(x) - x p(x)) e^(x^2 / 2), p being the
density, on [0, 4.5] with e^(-x^2 / 2) + 1e-6. Their coefficients are rounded from the highest on, each followed by a fit
of the lower ones.
"""

import mpmath
import numpy as np

mpmath.mp.dps = 40


def fit(function, begin, end, degree, nodes=400):
    t = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    x = (begin + end) / 2 + (end - begin) / 2 * t
    y = np.array([float(function(mpmath.mpf(v))) for v in x])
    series = np.polynomial.chebyshev.Chebyshev.fit(x, y, degree, domain=[begin, end])
    return series.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)


def least_largest(powers, y, weight, rounds=60):
    """Coefficients with nearly the least largest weighted error: squares whose weights follow the error (Lawson, 1961)."""
    trust, best = np.ones(len(y)), (np.inf, None)
    for _ in range(rounds):
        w = weight * np.sqrt(trust)
        c = np.linalg.lstsq(powers * w[:, None], y * w, rcond=1e-16)[0]
        error = np.abs(powers @ c - y) * weight
        if error.max() < best[0]:
            best = (error.max(), c)
        trust *= error / error.max() + 1e-3
        trust /= trust.mean()
    return best[1]


def fit_rounded(function, weight, end, degree, nodes=4000):
    """From the lowest power on, each a float32."""
    x = end / 2 * (1 + np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes))
    y, w = (np.array([float(f(mpmath.mpf(v))) for v in x]) for f in (function, weight))
    rounded = np.zeros(degree + 1)
    for top in range(degree, -1, -1):
        powers = (x[:, None] / end) ** np.arange(top + 1)
        c = least_largest(powers, y - (x[:, None] ** np.arange(degree + 1)) @ rounded, w)
        rounded[top] = np.float32(c[top] / end**top)
    return [float(c) for c in rounded]


def tail(x):
    return mpmath.erfc(x / mpmath.sqrt(2)) / 2


def bell(x):
    return mpmath.exp(-x * x / 2)


if __name__ == "__main__":
    print("near 0, in x^2:", *fit(lambda t: mpmath.erf(mpmath.sqrt(t)) / mpmath.sqrt(t) - 1, 0, 1, 7))
    print("log(1 - erf(x)):", *fit(lambda x: mpmath.log(mpmath.erfc(x)), 0.95, 4, 8))
    log_tail = fit_rounded(lambda x: mpmath.log(tail(x), 2), lambda x: mpmath.log(2) * (tail(x) + 1e-4), 5.0, 8)
    print("log2 of the normal tail:", *log_tail)
    slope = fit_rounded(lambda x: tail(x) / bell(x) - x / mpmath.sqrt(2 * mpmath.pi), lambda x: bell(x) + 1e-6, 4.5, 10)
    print("slope of GELU over e^(-x^2 / 2):", *slope)
