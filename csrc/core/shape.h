// The extents of a dense, row-major array of up to eight axes.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>

namespace smelt {

constexpr int kMaxRank = 8;

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  Shape(const int64_t* dims, int rank);

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return dims_[axis]; }
  int64_t& operator[](int axis) { return dims_[axis]; }
  int64_t back(int from_end = 1) const { return dims_[rank_ - from_end]; }
  const int64_t* begin() const { return dims_; }
  const int64_t* end() const { return dims_ + rank_; }

  int64_t numel() const { return product(0, rank_); }
  int64_t product(int begin, int end) const;  // of the extents of axes [begin, end)
  void push_back(int64_t extent);             // ValueError beyond kMaxRank
  Shape without(int axis) const;
  Shape with(int axis, int64_t extent) const;
  bool operator==(const Shape& other) const;

  std::string str() const;  // "(2, 3)", as Python prints a tuple

 private:
  int64_t dims_[kMaxRank] = {};
  int rank_ = 0;
};

// The shape of a and b stretched to each other, by NumPy's rule; ValueError names `op`.
Shape broadcast(const char* op, const Shape& a, const Shape& b);

// axis in [-rank, rank) as one in [0, rank); ValueError names `op`.
int normalize_axis(const char* op, int64_t axis, int rank);

}  // namespace smelt
