#include "reduce.h"

#include <algorithm>
#include <unordered_map>

#include "element.h"
#include "errors.h"

namespace pai {
namespace {

constexpr size_t kBlockBytes = 8192;  // the accumulator of a block stays in L1

template <class E, ReduceOp op>
void reduce_blocks(const void* const* sources, size_t num_sources, void* const* targets,
                   size_t num_targets, size_t count, const SmallFloat* small) {
  using Stored = typename E::Stored;
  using Accumulator = typename E::Accumulator;
  constexpr size_t kBlock = kBlockBytes / sizeof(Accumulator);
  alignas(64) Accumulator total[kBlock];
  for (size_t begin = 0; begin < count; begin += kBlock) {
    size_t size = std::min(kBlock, count - begin);
    auto* first = static_cast<const Stored*>(sources[0]) + begin;
    for (size_t i = 0; i < size; ++i) total[i] = E::load(first[i], small);
    for (size_t k = 1; k < num_sources; ++k) {
      auto* next = static_cast<const Stored*>(sources[k]) + begin;
      for (size_t i = 0; i < size; ++i)
        total[i] = combine<op, Accumulator>(total[i], E::load(next[i], small));
    }
    auto* made = static_cast<Stored*>(targets[0]) + begin;
    for (size_t i = 0; i < size; ++i) made[i] = E::store(total[i], small);
    for (size_t k = 1; k < num_targets; ++k)
      std::memcpy(static_cast<Stored*>(targets[k]) + begin, made, size * sizeof(Stored));
  }
}

struct Choice {
  Reducer::Function function;
  size_t bytes;
};

template <class E, ReduceOp op>
Reducer::Function defined_or_null() {
  if constexpr (is_defined<typename E::Accumulator, op>())
    return reduce_blocks<E, op>;
  else
    return nullptr;
}

template <class E>
Choice choose(ReduceOp op) {
  constexpr size_t bytes = sizeof(typename E::Stored);
  switch (op) {
    case ReduceOp::add: return {defined_or_null<E, ReduceOp::add>(), bytes};
    case ReduceOp::max: return {defined_or_null<E, ReduceOp::max>(), bytes};
    case ReduceOp::min: return {defined_or_null<E, ReduceOp::min>(), bytes};
    case ReduceOp::mul: return {defined_or_null<E, ReduceOp::mul>(), bytes};
    case ReduceOp::and_: return {defined_or_null<E, ReduceOp::and_>(), bytes};
    case ReduceOp::or_: return {defined_or_null<E, ReduceOp::or_>(), bytes};
    case ReduceOp::xor_: return {defined_or_null<E, ReduceOp::xor_>(), bytes};
  }
  return {nullptr, bytes};
}

using Chooser = Choice (*)(ReduceOp);

const std::unordered_map<std::string, Chooser>& choosers() {
  static const std::unordered_map<std::string, Chooser> table = {
      {"i1", choose<Bool>},
      {"i2", choose<Narrow<int8_t, 2>>},
      {"i4", choose<Narrow<int8_t, 4>>},
      {"ui2", choose<Narrow<uint8_t, 2>>},
      {"ui4", choose<Narrow<uint8_t, 4>>},
      {"i8", choose<Native<int8_t>>},
      {"i16", choose<Native<int16_t>>},
      {"i32", choose<Native<int32_t>>},
      {"i64", choose<Native<int64_t>>},
      {"ui8", choose<Native<uint8_t>>},
      {"ui16", choose<Native<uint16_t>>},
      {"ui32", choose<Native<uint32_t>>},
      {"ui64", choose<Native<uint64_t>>},
      {"bf16", choose<BFloat16>},
      {"f16", choose<Float16>},
      {"f32", choose<Native<float>>},
      {"f64", choose<Native<double>>},
      {"complex<f32>", choose<Native<std::complex<float>>>},
      {"complex<f64>", choose<Native<std::complex<double>>>},
  };
  return table;
}

}  // namespace

Reducer::Reducer(const std::string& dtype, ReduceOp op, std::shared_ptr<const SmallFloat> small)
    : small_(std::move(small)) {
  Choice choice{nullptr, 1};
  if (small_) {
    if (small_->decode.size() != 256 || small_->encode.size() != 65536)
      throw PackageError("the tables of " + dtype + " have the wrong size");
    choice = choose<Small>(op);
  } else if (auto found = choosers().find(dtype); found != choosers().end()) {
    choice = found->second(op);
  }
  if (!choice.function) throw PackageError("a collective cannot reduce elements of type " + dtype);
  function_ = choice.function;
  element_bytes_ = choice.bytes;
}

ReduceOp reduce_op(const std::string& name) {
  static const std::unordered_map<std::string, ReduceOp> table = {
      {"add", ReduceOp::add}, {"max", ReduceOp::max}, {"min", ReduceOp::min},
      {"mul", ReduceOp::mul}, {"and", ReduceOp::and_}, {"or", ReduceOp::or_},
      {"xor", ReduceOp::xor_}};
  auto found = table.find(name);
  if (found == table.end()) throw PackageError("unknown reduction '" + name + "'");
  return found->second;
}

}  // namespace pai
