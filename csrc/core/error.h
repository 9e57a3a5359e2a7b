// Errors: every message reads "op: what was required, what was given".
#pragma once
#include <exception>
#include <string>

#include "core/dtype.h"
#include "core/shape.h"

namespace smelt {

enum class ErrorKind { value, type, index, memory, runtime, buffer };

class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
  std::string message_;
};

inline std::string text(const std::string& s) { return s; }
inline std::string text(const char* s) { return s; }
inline std::string text(DType dtype) { return dtype_name(dtype); }
inline std::string text(const Shape& shape) { return shape.str(); }
std::string text(double v);
std::string text(Device device);
template <class T>
  requires std::is_integral_v<T>
std::string text(T v) {
  return std::to_string(v);
}

template <class... Parts>
std::string cat(const Parts&... parts) {
  std::string s;
  ((s += text(parts)), ...);
  return s;
}

template <class... Parts>
[[noreturn]] void fail(ErrorKind kind, const char* op, const Parts&... parts) {
  throw Error(kind, cat(op, ": ", parts...));
}

// Raises ValueError when the condition does not hold; the message is put together only then.
template <class... Parts>
inline void require(bool condition, const char* op, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail(ErrorKind::value, op, parts...);
}
template <class... Parts>
inline void require_type(bool condition, const char* op, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail(ErrorKind::type, op, parts...);
}

}  // namespace smelt
