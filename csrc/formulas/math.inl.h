// Elementary functions on vectors: of the CPU's instruction sets, or of one number in a GPU's thread.
// float32 forms: range reduction and polynomials after Cephes (Moshier); errors of 1 to 3 units in the last place.
#pragma once
#include <cmath>

#include "core/annotations.h"

namespace smelt {
namespace {

// One number behind the interface of a vector: float64 on the CPU, every floating type of a GPU's thread.
template <class Number>
struct One {
  static constexpr int W = 1;
  using T = Number;
  struct Mask {
    bool m;
    SMELT_INLINE friend Mask operator&(Mask a, Mask b) { return {a.m && b.m}; }
    SMELT_INLINE friend Mask operator|(Mask a, Mask b) { return {a.m || b.m}; }
    SMELT_INLINE friend Mask operator!(Mask a) { return {!a.m}; }
    SMELT_INLINE unsigned bits() const { return m; }
  };
  Number v;

  SMELT_INLINE static One set(Number x) { return {x}; }
  SMELT_INLINE static One zero() { return {0}; }
  SMELT_INLINE static One load(const Number* p, int = 1) { return {*p}; }
  SMELT_INLINE void store(Number* p, int = 1) const { *p = v; }
  SMELT_INLINE void stream(Number* p) const { *p = v; }
  SMELT_INLINE static One load_bytes(const unsigned char* p, int = 1) { return {static_cast<Number>(*p)}; }
  SMELT_INLINE void store_bytes(unsigned char* p, int = 1) const { *p = static_cast<unsigned char>(v); }

  SMELT_INLINE friend One operator+(One a, One b) { return {a.v + b.v}; }
  SMELT_INLINE friend One operator-(One a, One b) { return {a.v - b.v}; }
  SMELT_INLINE friend One operator*(One a, One b) { return {a.v * b.v}; }
  SMELT_INLINE friend One operator/(One a, One b) { return {a.v / b.v}; }
  SMELT_INLINE friend One operator-(One a) { return {-a.v}; }
  SMELT_INLINE friend Mask operator<(One a, One b) { return {a.v < b.v}; }
  SMELT_INLINE friend Mask operator<=(One a, One b) { return {a.v <= b.v}; }
  SMELT_INLINE friend Mask operator==(One a, One b) { return {a.v == b.v}; }

  SMELT_INLINE friend One select(Mask m, One a, One b) { return m.m ? a : b; }
  SMELT_INLINE friend One abs(One a) { return {std::fabs(a.v)}; }
  SMELT_INLINE friend One sqrt(One a) { return {std::sqrt(a.v)}; }
  SMELT_INLINE friend One floor(One a) { return {std::floor(a.v)}; }
  SMELT_INLINE friend One trunc(One a) { return {std::trunc(a.v)}; }
  SMELT_INLINE friend One round(One a) { return {std::nearbyint(a.v)}; }
  SMELT_INLINE friend One max(One a, One b) { return b.v < a.v ? a : b; }
  SMELT_INLINE friend One min(One a, One b) { return a.v < b.v ? a : b; }
  SMELT_INLINE friend Number sum(One a) { return a.v; }
  SMELT_INLINE friend Number max_lane(One a) { return a.v; }
};
using VecD = One<double>;
SMELT_INLINE VecD fma(VecD a, VecD b, VecD c) { return {a.v * b.v + c.v}; }  // two roundings, as on every CPU

template <class V>
SMELT_INLINE typename V::Mask is_nan(V x) {
  return !(x == x);
}
template <class V>
SMELT_INLINE V constant(typename V::T c) {
  return V::set(c);
}
// The larger (smaller), and NaN when either is.
template <class V>
SMELT_INLINE V max_nan(V a, V b) {
  return select(is_nan(a), a, max(a, b));
}
template <class V>
SMELT_INLINE V min_nan(V a, V b) {
  return select(is_nan(a), a, min(a, b));
}

SMELT_INLINE VecD exp(VecD x) { return {std::exp(x.v)}; }
SMELT_INLINE VecD expm1(VecD x) { return {std::expm1(x.v)}; }
SMELT_INLINE VecD log(VecD x) { return {std::log(x.v)}; }
SMELT_INLINE VecD log1p(VecD x) { return {std::log1p(x.v)}; }
SMELT_INLINE VecD tanh(VecD x) { return {std::tanh(x.v)}; }
SMELT_INLINE VecD erf(VecD x) { return {std::erf(x.v)}; }

// Two vectors as one: what waits for one half's results meanwhile works on the other. For functions of many dependent steps.
template <class V>
struct Twice {
  static constexpr int W = 2 * V::W;
  using T = typename V::T;
  struct Mask {
    typename V::Mask a, b;
    friend Mask operator&(Mask x, Mask y) { return {x.a & y.a, x.b & y.b}; }
    friend Mask operator|(Mask x, Mask y) { return {x.a | y.a, x.b | y.b}; }
    friend Mask operator!(Mask x) { return {!x.a, !x.b}; }
  };
  V a, b;

  static Twice set(T x) { return {V::set(x), V::set(x)}; }
  static Twice zero() { return {V::zero(), V::zero()}; }
  template <class S>
  static Twice load(const S* p) {
    return {V::load(p), V::load(p + V::W)};
  }
  template <class S>
  static Twice load(const S* p, int n) {
    if (n <= V::W) return {V::load(p, n), V::zero()};
    return {V::load(p), V::load(p + V::W, n - V::W)};
  }
  template <class S>
  void store(S* p) const {
    a.store(p);
    b.store(p + V::W);
  }
  template <class S>
  void store(S* p, int n) const {
    if (n <= V::W) return a.store(p, n);
    a.store(p);
    b.store(p + V::W, n - V::W);
  }

  template <class S>
  void stream(S* p) const {
    a.stream(p);
    b.stream(p + V::W);
  }

  friend Twice operator+(Twice x, Twice y) { return {x.a + y.a, x.b + y.b}; }
  friend Twice operator-(Twice x, Twice y) { return {x.a - y.a, x.b - y.b}; }
  friend Twice operator*(Twice x, Twice y) { return {x.a * y.a, x.b * y.b}; }
  friend Twice operator/(Twice x, Twice y) { return {x.a / y.a, x.b / y.b}; }
  friend Twice operator-(Twice x) { return {-x.a, -x.b}; }
  friend Mask operator<(Twice x, Twice y) { return {x.a < y.a, x.b < y.b}; }
  friend Mask operator<=(Twice x, Twice y) { return {x.a <= y.a, x.b <= y.b}; }
  friend Mask operator==(Twice x, Twice y) { return {x.a == y.a, x.b == y.b}; }

  friend Twice fma(Twice x, Twice y, Twice z) { return {fma(x.a, y.a, z.a), fma(x.b, y.b, z.b)}; }
  friend Twice select(Mask m, Twice x, Twice y) { return {select(m.a, x.a, y.a), select(m.b, x.b, y.b)}; }
  friend Twice max(Twice x, Twice y) { return {max(x.a, y.a), max(x.b, y.b)}; }
  friend Twice min(Twice x, Twice y) { return {min(x.a, y.a), min(x.b, y.b)}; }
  friend Twice abs(Twice x) { return {abs(x.a), abs(x.b)}; }
  friend Twice sqrt(Twice x) { return {sqrt(x.a), sqrt(x.b)}; }
  friend Twice floor(Twice x) { return {floor(x.a), floor(x.b)}; }
  friend Twice trunc(Twice x) { return {trunc(x.a), trunc(x.b)}; }
  friend Twice round(Twice x) { return {round(x.a), round(x.b)}; }
  friend Twice exp2_whole(Twice n) { return {exp2_whole(n.a), exp2_whole(n.b)}; }
  friend Twice times_exp2(Twice p, Twice n) { return {times_exp2(p.a, n.a), times_exp2(p.b, n.b)}; }
  friend T sum(Twice x) { return sum(x.a + x.b); }
  friend void split_exponent(Twice x, Twice* m, Twice* e) {
    split_exponent(x.a, &m->a, &e->a);
    split_exponent(x.b, &m->b, &e->b);
  }
};

template <class V>
concept FloatVector = __is_same(typename V::T, float);

// e^r - 1 for |r| <= log(2) / 2.
template <FloatVector V>
SMELT_INLINE V small_expm1(V r) {
  V p = V::set(1.9875691500e-4f);
  p = fma(p, r, V::set(1.3981999507e-3f));
  p = fma(p, r, V::set(8.3334519073e-3f));
  p = fma(p, r, V::set(4.1665795894e-2f));
  p = fma(p, r, V::set(1.6666665459e-1f));
  p = fma(p, r, V::set(5.0000001201e-1f));
  return fma(p, r * r, r);
}

// x = n log 2 + r with |r| <= log(2) / 2; e^x = 2^n e^r.
template <FloatVector V>
SMELT_INLINE V exp(V x) {
  const V high = V::set(88.72284f), low = V::set(-87.33654f);
  const V clamped = max(min(x, high), low);
  const V n = round(clamped * V::set(1.44269504f));
  V r = fma(n, V::set(-0.693359375f), clamped);
  r = fma(n, V::set(2.12194440e-4f), r);
  const V p = small_expm1(r) + V::set(1);
  // 2^128 has no float: two factors.
  const V half = floor(n * V::set(0.5f));
  V y = p * exp2_whole(half) * exp2_whole(n - half);
  y = select(high < x, V::set(__builtin_inff()), y);
  y = select(x < low, V::zero(), y);  // subnormal results are flushed
  return select(is_nan(x), x, y);
}

// The same for x <= 0, down to results of 2^-127: twice that is a normal number.
template <FloatVector V>
SMELT_INLINE V exp_down(V x) {
  const V low = V::set(-88.02969f), clamped = max(low, x);  // NaN passes through
  const V n = round(clamped * V::set(1.44269504f));
  V r = fma(n, V::set(-0.693359375f), clamped);
  r = fma(n, V::set(2.12194440e-4f), r);
  const V twice = times_exp2(small_expm1(r) + V::set(1), n + V::set(1));
  return select(x < low, V::zero(), twice * V::set(0.5f));
}
SMELT_INLINE VecD exp_down(VecD x) { return exp(x); }

// 2^x for x in [-126, 127], the polynomial being that of Cephes. NaN passes through.
template <FloatVector V>
SMELT_INLINE V exp2_fraction(V f) {
  V p = V::set(1.535336188e-4f);
  p = fma(p, f, V::set(1.339887440e-3f));
  p = fma(p, f, V::set(9.618437358e-3f));
  p = fma(p, f, V::set(5.550332471e-2f));
  p = fma(p, f, V::set(2.402264791e-1f));
  p = fma(p, f, V::set(6.931472029e-1f));
  return fma(p, f, V::set(1));
}
template <FloatVector V>
SMELT_INLINE V exp2_near(V x) {
  const V n = round(x);
  return times_exp2(exp2_fraction(x - n), n);
}

// e^x for x below 88: what softmax needs, where x is a distance to the largest. x / log 2 = n + f with |f| <= 1/2, the product
// being exact within the fma. NaN passes through.
template <FloatVector V>
SMELT_INLINE V exp_small(V x) {
  const V low = V::set(-87.33654f), clamped = max(low, x), inverse = V::set(1.44269504f);
  const V n = round(clamped * inverse);
  const V f = fma(clamped, V::set(1.92596299e-8f), fma(clamped, inverse, -n));
  return select(x < low, V::zero(), times_exp2(exp2_fraction(f), n));  // subnormal results are flushed
}
template <class Number>
SMELT_INLINE One<Number> exp_small(One<Number> x) {
  return exp(x);
}

// m in [sqrt(1/2), sqrt(2)): log x = e log 2 + log m.
template <FloatVector V>
SMELT_INLINE V log(V x) {
  const typename V::Mask subnormal = x < V::set(1.17549435e-38f);
  const V scaled = select(subnormal, x * V::set(8388608.0f), x);
  V m, e;
  split_exponent(scaled, &m, &e);
  e = e - select(subnormal, V::set(23), V::zero());
  const typename V::Mask upper = V::set(1.41421356f) < m;
  m = select(upper, m * V::set(0.5f), m);
  e = select(upper, e + V::set(1), e);
  const V r = m - V::set(1), r2 = r * r;
  V p = V::set(7.0376836292e-2f);
  p = fma(p, r, V::set(-1.1514610310e-1f));
  p = fma(p, r, V::set(1.1676998740e-1f));
  p = fma(p, r, V::set(-1.2420140846e-1f));
  p = fma(p, r, V::set(1.4249322787e-1f));
  p = fma(p, r, V::set(-1.6668057665e-1f));
  p = fma(p, r, V::set(2.0000714765e-1f));
  p = fma(p, r, V::set(-2.4999993993e-1f));
  p = fma(p, r, V::set(3.3333331174e-1f));
  p = p * r * r2;
  p = fma(e, V::set(-2.12194440e-4f), p);
  p = fma(r2, V::set(-0.5f), p);
  V y = fma(e, V::set(0.693359375f), r + p);
  const V inf = V::set(__builtin_inff());
  y = select(x == inf, inf, y);
  y = select(x == V::zero(), -inf, y);
  return select((x < V::zero()) | is_nan(x), V::set(__builtin_nanf("")), y);
}

// log(1 + x): the rounding of 1 + x is corrected to first order.
template <FloatVector V>
SMELT_INLINE V log1p(V x) {
  const V u = V::set(1) + x;
  const V lost = (x - (u - V::set(1))) / u;
  const V y = log(u) + select((V::zero() < u) & (u < V::set(1e6f)), lost, V::zero());
  return select(u == V::set(1), x, y);
}

template <FloatVector V>
SMELT_INLINE V expm1(V x) {
  // Near 0 the polynomial of e^r - 1 itself, elsewhere the difference loses nothing.
  return select(abs(x) < V::set(0.34657359f), small_expm1(x), exp(x) - V::set(1));
}

template <FloatVector V>
SMELT_INLINE V tanh(V x) {
  const V z = abs(x), x2 = x * x;
  V p = V::set(-5.70498872745e-3f);
  p = fma(p, x2, V::set(2.06390887954e-2f));
  p = fma(p, x2, V::set(-5.37397155531e-2f));
  p = fma(p, x2, V::set(1.33314422036e-1f));
  p = fma(p, x2, V::set(-3.33332819422e-1f));
  p = fma(p * x2, x, x);
  const V e = exp_down(z * V::set(-2));
  const V big = (V::set(1) - e) / (V::set(1) + e);
  return select(z < V::set(0.625f), p, select(x < V::zero(), -big, big));
}

// Near 0 an odd polynomial, elsewhere 1 - e^q(x); both fitted by tools/fit_functions.py.
template <FloatVector V>
SMELT_INLINE V erf(V x) {
  const V z = abs(x), t = x * x, c = min(z, V::set(4));
  V p = V::set(-9.673590284364764e-06f);
  p = fma(p, t, V::set(0.00011268253729213029f));
  p = fma(p, t, V::set(-0.0008484396385028958f));
  p = fma(p, t, V::set(0.005221053492277861f));
  p = fma(p, t, V::set(-0.026865437626838684f));
  p = fma(p, t, V::set(0.11283782869577408f));
  p = fma(p, t, V::set(-0.37612637877464294f));
  p = fma(p, t, V::set(0.1283791661262512f));
  V q = V::set(1.6150449937413214e-06f);
  q = fma(q, c, V::set(-4.561102105071768e-05f));
  q = fma(q, c, V::set(0.0005929505568929017f));
  q = fma(q, c, V::set(-0.00474111782386899f));
  q = fma(q, c, V::set(0.026367414742708206f));
  q = fma(q, c, V::set(-0.10998330265283585f));
  q = fma(q, c, V::set(-0.6319313645362854f));
  q = fma(q, c, V::set(-1.1301703453063965f));
  q = fma(q, c, V::set(0.00030417676316574216f));
  const V big = V::set(1) - exp(q);
  const V y = select(z < V::set(1), fma(p, x, x), select(x < V::zero(), -big, big));
  return select(is_nan(x), x, y);
}

// The Gaussian error linear unit x P(X < x) = max(x, 0) - |x| P(X > |x|), X being normal. The logarithm of the tail is a polynomial
// fitted by tools/fit_functions.py. The tail is off by about a unit of 1; relative to itself by 1e-5 up to 3, 2e-4 up to 5. From
// 10.6 on it is 2^-125.
template <FloatVector V>
SMELT_INLINE V gelu(V x) {
  const V z = min(V::set(10.6f), abs(x));  // NaN passes through
  V q = V::set(-1.6121123280754546e-06f);
  q = fma(q, z, V::set(2.5480903786956333e-05f));
  q = fma(q, z, V::set(-0.00012465410691220313f));
  q = fma(q, z, V::set(-0.0002729150583036244f));
  q = fma(q, z, V::set(0.007222981657832861f));
  q = fma(q, z, V::set(-0.05259367451071739f));
  q = fma(q, z, V::set(-0.4591800272464752f));
  q = fma(q, z, V::set(-1.1511082649230957f));
  q = fma(q, z, V::set(-0.9999999403953552f));
  // -inf has no value, x - x says so.
  return fma(-z, exp2_near(q), select(x < V::zero(), x - x, x));
}
// Its derivative P(X < x) + x p(x): of |x| the tail less |x| times the density is e^(-x^2 / 2) times a polynomial, fitted likewise;
// 3 units of 1.
template <FloatVector V>
SMELT_INLINE V gelu_slope(V x) {
  const V z = min(V::set(13), abs(x));
  V p = V::set(1.7408644907845883e-06f);
  p = fma(p, z, V::set(-3.690583980642259e-05f));
  p = fma(p, z, V::set(0.0003507331421133131f));
  p = fma(p, z, V::set(-0.002013202989473939f));
  p = fma(p, z, V::set(0.008019383996725082f));
  p = fma(p, z, V::set(-0.02441427856683731f));
  p = fma(p, z, V::set(0.06122976168990135f));
  p = fma(p, z, V::set(-0.13254514336585999f));
  p = fma(p, z, V::set(0.24992328882217407f));
  p = fma(p, z, V::set(-0.7978792786598206f));
  p = fma(p, z, V::set(0.4999999403953552f));
  const V beyond = p * exp2_near(z * (z * V::set(-0.72134752f)));
  return select(x < V::zero(), beyond, V::set(1) - beyond);
}
SMELT_INLINE VecD gelu(VecD x) { return {x.v * 0.5 * std::erfc(-x.v * 0.70710678118654752440)}; }
SMELT_INLINE VecD gelu_slope(VecD x) {
  const double density = 0.39894228040143267794 * std::exp(-0.5 * x.v * x.v);
  return {0.5 * std::erfc(-x.v * 0.70710678118654752440) + (density == 0 ? 0 : x.v * density)};
}

template <FloatVector V>
SMELT_INLINE V sigmoid(V x) {
  const V one = V::set(1), e = exp_down(-abs(x));
  return select(x < V::zero(), e, one) / (one + e);
}
SMELT_INLINE VecD sigmoid(VecD x) { return {1 / (1 + std::exp(-x.v))}; }
// log(1 + e^x) without overflow.
template <class V>
SMELT_INLINE V softplus(V x) {
  return max_nan(x, V::zero()) + log1p(exp_down(-abs(x)));
}

// Lane by lane, for functions without a vector form.
template <class V, class F>
SMELT_INLINE V per_lane(V x, const F& f) {
  typename V::T lanes[V::W];
  x.store(lanes);
  for (int i = 0; i < V::W; ++i) lanes[i] = f(lanes[i]);
  return V::load(lanes);
}

}  // namespace
}  // namespace smelt
