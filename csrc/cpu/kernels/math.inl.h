// Elementary functions on vectors, and VecD: float64 with one lane, for checks rather than speed.
// float32 forms: range reduction and polynomials after Cephes (Moshier); errors of 1 to 3 units in the last place.
#pragma once
#include <cmath>

namespace smelt {
namespace {

struct VecD {
  static constexpr int W = 1;
  using T = double;
  struct Mask {
    bool m;
    friend Mask operator&(Mask a, Mask b) { return {a.m && b.m}; }
    friend Mask operator|(Mask a, Mask b) { return {a.m || b.m}; }
    friend Mask operator!(Mask a) { return {!a.m}; }
    unsigned bits() const { return m; }
  };
  double v;

  static VecD set(double x) { return {x}; }
  static VecD zero() { return {0}; }
  static VecD load(const double* p, int = 1) { return {*p}; }
  void store(double* p, int = 1) const { *p = v; }

  friend VecD operator+(VecD a, VecD b) { return {a.v + b.v}; }
  friend VecD operator-(VecD a, VecD b) { return {a.v - b.v}; }
  friend VecD operator*(VecD a, VecD b) { return {a.v * b.v}; }
  friend VecD operator/(VecD a, VecD b) { return {a.v / b.v}; }
  friend VecD operator-(VecD a) { return {-a.v}; }
  friend Mask operator<(VecD a, VecD b) { return {a.v < b.v}; }
  friend Mask operator<=(VecD a, VecD b) { return {a.v <= b.v}; }
  friend Mask operator==(VecD a, VecD b) { return {a.v == b.v}; }
};
inline VecD fma(VecD a, VecD b, VecD c) { return {a.v * b.v + c.v}; }
inline VecD select(VecD::Mask m, VecD a, VecD b) { return m.m ? a : b; }
inline VecD abs(VecD a) { return {std::fabs(a.v)}; }
inline VecD sqrt(VecD a) { return {std::sqrt(a.v)}; }
inline VecD floor(VecD a) { return {std::floor(a.v)}; }
inline VecD trunc(VecD a) { return {std::trunc(a.v)}; }
inline VecD round(VecD a) { return {std::nearbyint(a.v)}; }
inline VecD max(VecD a, VecD b) { return b.v < a.v ? a : b; }
inline VecD min(VecD a, VecD b) { return a.v < b.v ? a : b; }
inline double sum(VecD a) { return a.v; }
inline double max_lane(VecD a) { return a.v; }

template <class V>
inline typename V::Mask is_nan(V x) {
  return !(x == x);
}
template <class V>
inline V constant(typename V::T c) {
  return V::set(c);
}
// The larger (smaller), and NaN when either is.
template <class V>
inline V max_nan(V a, V b) {
  return select(is_nan(a), a, max(a, b));
}
template <class V>
inline V min_nan(V a, V b) {
  return select(is_nan(a), a, min(a, b));
}

inline VecD exp(VecD x) { return {std::exp(x.v)}; }
inline VecD expm1(VecD x) { return {std::expm1(x.v)}; }
inline VecD log(VecD x) { return {std::log(x.v)}; }
inline VecD log1p(VecD x) { return {std::log1p(x.v)}; }
inline VecD tanh(VecD x) { return {std::tanh(x.v)}; }
inline VecD erf(VecD x) { return {std::erf(x.v)}; }

// x = n log 2 + r with |r| <= log(2) / 2; e^x = 2^n e^r.
inline VecF exp(VecF x) {
  const VecF high = VecF::set(88.72284f), low = VecF::set(-87.33654f);
  const VecF clamped = max(min(x, high), low);
  const VecF n = round(clamped * VecF::set(1.44269504f));
  VecF r = fma(n, VecF::set(-0.693359375f), clamped);
  r = fma(n, VecF::set(2.12194440e-4f), r);
  VecF p = VecF::set(1.9875691500e-4f);
  p = fma(p, r, VecF::set(1.3981999507e-3f));
  p = fma(p, r, VecF::set(8.3334519073e-3f));
  p = fma(p, r, VecF::set(4.1665795894e-2f));
  p = fma(p, r, VecF::set(1.6666665459e-1f));
  p = fma(p, r, VecF::set(5.0000001201e-1f));
  p = fma(p, r * r, r) + VecF::set(1);
  // 2^128 has no float: two factors.
  const VecF half = floor(n * VecF::set(0.5f));
  VecF y = p * exp2_whole(half) * exp2_whole(n - half);
  y = select(high < x, VecF::set(__builtin_inff()), y);
  y = select(x < low, VecF::zero(), y);  // subnormal results are flushed
  return select(is_nan(x), x, y);
}

// m in [sqrt(1/2), sqrt(2)): log x = e log 2 + log m.
inline VecF log(VecF x) {
  const VecF::Mask subnormal = x < VecF::set(1.17549435e-38f);
  const VecF scaled = select(subnormal, x * VecF::set(8388608.0f), x);
  VecF m, e;
  split_exponent(scaled, &m, &e);
  e = e - select(subnormal, VecF::set(23), VecF::zero());
  const VecF::Mask upper = VecF::set(1.41421356f) < m;
  m = select(upper, m * VecF::set(0.5f), m);
  e = select(upper, e + VecF::set(1), e);
  const VecF r = m - VecF::set(1), r2 = r * r;
  VecF p = VecF::set(7.0376836292e-2f);
  p = fma(p, r, VecF::set(-1.1514610310e-1f));
  p = fma(p, r, VecF::set(1.1676998740e-1f));
  p = fma(p, r, VecF::set(-1.2420140846e-1f));
  p = fma(p, r, VecF::set(1.4249322787e-1f));
  p = fma(p, r, VecF::set(-1.6668057665e-1f));
  p = fma(p, r, VecF::set(2.0000714765e-1f));
  p = fma(p, r, VecF::set(-2.4999993993e-1f));
  p = fma(p, r, VecF::set(3.3333331174e-1f));
  p = p * r * r2;
  p = fma(e, VecF::set(-2.12194440e-4f), p);
  p = fma(r2, VecF::set(-0.5f), p);
  VecF y = fma(e, VecF::set(0.693359375f), r + p);
  const VecF inf = VecF::set(__builtin_inff());
  y = select(x == inf, inf, y);
  y = select(x == VecF::zero(), -inf, y);
  return select((x < VecF::zero()) | is_nan(x), VecF::set(__builtin_nanf("")), y);
}

// log(1 + x): the rounding of 1 + x is corrected to first order.
inline VecF log1p(VecF x) {
  const VecF u = VecF::set(1) + x;
  const VecF lost = (x - (u - VecF::set(1))) / u;
  const VecF y = log(u) + select((VecF::zero() < u) & (u < VecF::set(1e6f)), lost, VecF::zero());
  return select(u == VecF::set(1), x, y);
}

inline VecF expm1(VecF x) {
  // Near 0 the polynomial of e^r - 1 itself, elsewhere the difference loses nothing.
  VecF p = VecF::set(1.9875691500e-4f);
  p = fma(p, x, VecF::set(1.3981999507e-3f));
  p = fma(p, x, VecF::set(8.3334519073e-3f));
  p = fma(p, x, VecF::set(4.1665795894e-2f));
  p = fma(p, x, VecF::set(1.6666665459e-1f));
  p = fma(p, x, VecF::set(5.0000001201e-1f));
  p = fma(p, x * x, x);
  return select(abs(x) < VecF::set(0.34657359f), p, exp(x) - VecF::set(1));
}

inline VecF tanh(VecF x) {
  const VecF z = abs(x), x2 = x * x;
  VecF p = VecF::set(-5.70498872745e-3f);
  p = fma(p, x2, VecF::set(2.06390887954e-2f));
  p = fma(p, x2, VecF::set(-5.37397155531e-2f));
  p = fma(p, x2, VecF::set(1.33314422036e-1f));
  p = fma(p, x2, VecF::set(-3.33332819422e-1f));
  p = fma(p * x2, x, x);
  const VecF e = exp(z + z);
  const VecF big = VecF::set(1) - VecF::set(2) / (e + VecF::set(1));
  const VecF y = select(z < VecF::set(0.625f), p, select(x < VecF::zero(), -big, big));
  return select(is_nan(x), x, y);
}

// Near 0 an odd polynomial, elsewhere 1 - e^q(x); both fitted by tools/fit_erf.py.
inline VecF erf(VecF x) {
  const VecF z = abs(x), t = x * x, c = min(z, VecF::set(4));
  VecF p = VecF::set(-9.673590284364764e-06f);
  p = fma(p, t, VecF::set(0.00011268253729213029f));
  p = fma(p, t, VecF::set(-0.0008484396385028958f));
  p = fma(p, t, VecF::set(0.005221053492277861f));
  p = fma(p, t, VecF::set(-0.026865437626838684f));
  p = fma(p, t, VecF::set(0.11283782869577408f));
  p = fma(p, t, VecF::set(-0.37612637877464294f));
  p = fma(p, t, VecF::set(0.1283791661262512f));
  VecF q = VecF::set(1.6150449937413214e-06f);
  q = fma(q, c, VecF::set(-4.561102105071768e-05f));
  q = fma(q, c, VecF::set(0.0005929505568929017f));
  q = fma(q, c, VecF::set(-0.00474111782386899f));
  q = fma(q, c, VecF::set(0.026367414742708206f));
  q = fma(q, c, VecF::set(-0.10998330265283585f));
  q = fma(q, c, VecF::set(-0.6319313645362854f));
  q = fma(q, c, VecF::set(-1.1301703453063965f));
  q = fma(q, c, VecF::set(0.00030417676316574216f));
  const VecF big = VecF::set(1) - exp(q);
  const VecF y = select(z < VecF::set(1), fma(p, x, x), select(x < VecF::zero(), -big, big));
  return select(is_nan(x), x, y);
}

template <class V>
inline V sigmoid(V x) {
  // What the rounding of 1 + e loses is known, and corrected.
  const V one = constant<V>(1), e = exp(-x), s = one + e, t = one / s;
  const V lost = select(e < one, e - (s - one), one - (s - e));
  return select(e < constant<V>(1e9), fma(-(t * lost), t, t), t);
}
// log(1 + e^x) without overflow.
template <class V>
inline V softplus(V x) {
  return max_nan(x, V::zero()) + log1p(exp(-abs(x)));
}

// Lane by lane, for functions without a vector form.
template <class V, class F>
inline V per_lane(V x, const F& f) {
  typename V::T lanes[V::W];
  x.store(lanes);
  for (int i = 0; i < V::W; ++i) lanes[i] = f(lanes[i]);
  return V::load(lanes);
}

}  // namespace
}  // namespace smelt
