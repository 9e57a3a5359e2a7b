"""Prints the coefficients of erf in csrc/cpu/kernels/math.inl.h (needs mpmath and numpy).

erf(x) / x - 1 is fitted as a polynomial in x^2 on [0, 1], log(1 - erf(x)) as one in x on [0.95, 4], both at Chebyshev
nodes, which is within a few per cent of the best uniform fit.
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


if __name__ == "__main__":
    print("near 0, in x^2:", *fit(lambda t: mpmath.erf(mpmath.sqrt(t)) / mpmath.sqrt(t) - 1, 0, 1, 7))
    print("log(1 - erf(x)):", *fit(lambda x: mpmath.log(mpmath.erfc(x)), 0.95, 4, 8))
