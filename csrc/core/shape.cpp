#include "core/shape.h"

#include <algorithm>

#include "core/error.h"

namespace smelt {

Shape::Shape(std::initializer_list<int64_t> dims) {
  for (int64_t d : dims) push_back(d);
}

Shape::Shape(const int64_t* dims, int rank) {
  for (int i = 0; i < rank; ++i) push_back(dims[i]);
}

void Shape::push_back(int64_t extent) {
  require(rank_ < kMaxRank, "shape", "a tensor has at most ", kMaxRank, " axes, got more");
  dims_[rank_++] = extent;
}

int64_t Shape::product(int begin, int end) const {
  int64_t p = 1;
  for (int i = begin; i < end; ++i) p *= dims_[i];
  return p;
}

Shape Shape::without(int axis) const {
  Shape out;
  for (int i = 0; i < rank_; ++i)
    if (i != axis) out.push_back(dims_[i]);
  return out;
}

Shape Shape::with(int axis, int64_t extent) const {
  Shape out = *this;
  out[axis] = extent;
  return out;
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && std::equal(begin(), end(), other.begin());
}

std::string Shape::str() const {
  std::string s = "(";
  for (int i = 0; i < rank_; ++i) {
    if (i) s += ", ";
    s += std::to_string(dims_[i]);
  }
  return s + (rank_ == 1 ? ",)" : ")");
}

Shape broadcast(const char* op, const Shape& a, const Shape& b) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape out = longer;
  for (int i = 1; i <= shorter.rank(); ++i) {
    const int axis = longer.rank() - i;
    const int64_t l = longer[axis], s = shorter.back(i);
    require(l == s || l == 1 || s == 1, op, "shapes must be equal or broadcast to each other, got ", a, " and ", b);
    if (l == 1) out[axis] = s;
  }
  return out;
}

int normalize_axis(const char* op, int64_t axis, int rank) {
  require(axis >= -rank && axis < rank, op, "axis must be in [", -rank, ", ", rank, "), got ", axis);
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

}  // namespace smelt
