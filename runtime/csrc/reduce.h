// Element-wise reduction of several arrays into one, for every element type of runtime/dtypes.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace pai {

enum class ReduceOp { add, max, min, mul, and_, or_, xor_ };

// How a float of at most 8 bits is read and written. `encode` is indexed by the upper 16 bits of
// an f32 that was rounded to odd, which keeps enough bits to round once and correctly.
struct SmallFloat {
  std::vector<float> decode;    // 256 entries
  std::vector<uint8_t> encode;  // 65536 entries
};

// Writes op(sources[0][i], sources[1][i], ...), taken from left to right, to every target.
// A target may be one of the sources. Floats below 32 bits are accumulated in f32, rounded once.
class Reducer {
 public:
  using Function = void (*)(const void* const* sources, size_t num_sources, void* const* targets,
                            size_t num_targets, size_t count, const SmallFloat* small);

  // `dtype` is the MLIR spelling. Throws PackageError for a pair that has no meaning.
  Reducer(const std::string& dtype, ReduceOp op, std::shared_ptr<const SmallFloat> small);

  size_t element_bytes() const { return element_bytes_; }

  void operator()(const void* const* sources, size_t num_sources, void* const* targets,
                  size_t num_targets, size_t count) const {
    function_(sources, num_sources, targets, num_targets, count, small_.get());
  }

 private:
  Function function_ = nullptr;
  size_t element_bytes_ = 1;
  std::shared_ptr<const SmallFloat> small_;
};

// Throws PackageError for an unknown name ("add", "max", "min", "mul", "and", "or", "xor").
ReduceOp reduce_op(const std::string& name);

}  // namespace pai
