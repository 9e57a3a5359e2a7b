"""Prints the coefficients of erf and of the normal tail in csrc/formulas/math.inl.h (needs mpmath and numpy).

erf(x) / x - 1 is fitted as a polynomial in x^2 on [0, 1], log(1 - erf(x)) as one in x on [0.95, 4], both at Chebyshev
nodes, which is within a few per cent of the best uniform fit. The tail beyond x of the normal distribution, relative to
e^(-x^2 / 2), is fitted as a polynomial in t = 1 / (1 + 0.4 x) with least relative squares on [0, 14].
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


def fit_tail(degree=8, nodes=4000):
    scale = mpmath.mpf(float(np.float32(0.4)))
    low = float(1 / (1 + 14 * scale))
    t = (1 + low) / 2 + (1 - low) / 2 * np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    x = [(1 / mpmath.mpf(v) - 1) / scale for v in t]
    tail = np.array([float(mpmath.erfc(v / mpmath.sqrt(2)) / 2 * mpmath.exp(v * v / 2)) for v in x])
    powers = np.vander(t, degree + 1) / tail[:, None]
    return np.linalg.lstsq(powers, np.ones(nodes), rcond=None)[0].astype(np.float32)


if __name__ == "__main__":
    print("near 0, in x^2:", *fit(lambda t: mpmath.erf(mpmath.sqrt(t)) / mpmath.sqrt(t) - 1, 0, 1, 7))
    print("log(1 - erf(x)):", *fit(lambda x: mpmath.log(mpmath.erfc(x)), 0.95, 4, 8))
    print("normal tail, in t, highest power first:", *fit_tail())
