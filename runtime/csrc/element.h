// Element types: how each is read into, combined in, and written from its accumulator type.
#pragma once

#include <bit>
#include <complex>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "reduce.h"

namespace pai {

template <class T>
struct Native {  // integers of whole bytes, f32, f64, complex: accumulated as they are
  using Stored = T;
  using Accumulator = T;
  static T load(T value, const SmallFloat*) { return value; }
  static T store(T value, const SmallFloat*) { return value; }
};

struct Bool {  // i1: 0 or 1 in a byte; add is "or", mul is "and"
  using Stored = uint8_t;
  using Accumulator = bool;
  static bool load(uint8_t value, const SmallFloat*) { return value != 0; }
  static uint8_t store(bool value, const SmallFloat*) { return value; }
};

template <class T, int bits>
struct Narrow {  // integers of 2 or 4 bits, extended to their byte; they wrap around
  using Stored = T;
  using Accumulator = T;
  static T load(T value, const SmallFloat*) { return value; }
  static T store(T value, const SmallFloat*) {
    auto shifted = static_cast<uint8_t>(static_cast<uint8_t>(value) << (8 - bits));
    return static_cast<T>(static_cast<T>(shifted) >> (8 - bits));
  }
};

struct BFloat16 {
  using Stored = uint16_t;
  using Accumulator = float;
  static float load(uint16_t value, const SmallFloat*) {
    return std::bit_cast<float>(uint32_t{value} << 16);
  }
  static uint16_t store(float value, const SmallFloat*) {
    auto bits = std::bit_cast<uint32_t>(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return static_cast<uint16_t>(value != value ? (bits >> 16) | 0x40 : rounded);
  }
};

struct Float16 {
  using Stored = _Float16;
  using Accumulator = float;
  static float load(_Float16 value, const SmallFloat*) { return static_cast<float>(value); }
  static _Float16 store(float value, const SmallFloat*) { return static_cast<_Float16>(value); }
};

struct Small {  // f8, f6 and f4 formats through their tables
  using Stored = uint8_t;
  using Accumulator = float;
  static float load(uint8_t value, const SmallFloat* tables) { return tables->decode[value]; }
  static uint8_t store(float value, const SmallFloat* tables) {
    auto bits = std::bit_cast<uint32_t>(value);
    return tables->encode[(bits >> 16) | ((bits & 0xffff) != 0)];
  }
};

template <class T>
constexpr bool is_complex = false;
template <class T>
constexpr bool is_complex<std::complex<T>> = true;

// Whether the reduction means something for this accumulator.
template <class T, ReduceOp op>
constexpr bool is_defined() {
  if constexpr (op == ReduceOp::add || op == ReduceOp::mul) return true;
  if constexpr (op == ReduceOp::max || op == ReduceOp::min) return !is_complex<T>;
  return std::is_integral_v<T>;
}

template <class T>
T wrapping(uint64_t value) {
  return static_cast<T>(value);
}

template <ReduceOp op, class T>
T combine(T a, T b) {
  if constexpr (std::is_same_v<T, bool>) {
    if constexpr (op == ReduceOp::xor_) return a != b;
    constexpr bool any = op == ReduceOp::add || op == ReduceOp::max || op == ReduceOp::or_;
    return any ? (a | b) : (a & b);
  } else if constexpr (op == ReduceOp::add) {
    if constexpr (std::is_integral_v<T>)
      return wrapping<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    else
      return a + b;
  } else if constexpr (op == ReduceOp::mul) {
    if constexpr (std::is_integral_v<T>)
      return wrapping<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    else if constexpr (is_complex<T>)
      return T(a.real() * b.real() - a.imag() * b.imag(),
               a.real() * b.imag() + a.imag() * b.real());
    else
      return a * b;
  } else if constexpr (op == ReduceOp::max) {
    return (a > b || a != a) ? a : b;  // a NaN on either side stays
  } else if constexpr (op == ReduceOp::min) {
    return (a < b || a != a) ? a : b;
  } else if constexpr (op == ReduceOp::and_) {
    return static_cast<T>(a & b);
  } else if constexpr (op == ReduceOp::or_) {
    return static_cast<T>(a | b);
  } else {
    return static_cast<T>(a ^ b);
  }
}

}  // namespace pai
