// The instruction list that every device runs, flat: blocks have become jumps.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "elf.h"
#include "transport.h"

namespace pai {

// buffers: operands, then results; [begin, end): the part of the grid to run.
using KernelFunction = void (*)(void** buffers, int64_t begin, int64_t end, void* scratch);

struct Kernel {
  std::string name;
  KernelFunction function;
  int64_t grid;
  uint64_t scratch_bytes;
};

struct Instruction {
  enum class Kind : uint8_t {
    call,          // kernel `index` on operands [first, first + count)
    copy,          // operand `first` to `first + 1`
    fill,          // pattern `index` repeated over operand `first`
    collective,    // collective `index`; operands: sources, then targets
    jump,          // to `index`
    jump_if_zero,  // to `index` when the byte at operand `first` is zero
    choose,        // to targets[index][value at operand `first`]; the last when out of range
    end,
  };
  Kind kind;
  uint32_t index = 0, first = 0, count = 0;
  uint64_t bytes = 0;  // copied or filled; of the chosen index (1 or 4)
};

// Built once by the Python side, then read only. Each method checks the numbers it is given and
// returns the position of the new instruction; throws PackageError.
class Program {
 public:
  Program(std::shared_ptr<Image> image, uint32_t num_buffers, int num_devices);

  // `object` is the number of the object file in the image.
  uint32_t add_kernel(const std::string& name, size_t object, const std::string& symbol,
                      int64_t grid, uint64_t scratch_bytes);
  uint32_t call(uint32_t kernel, const std::vector<uint32_t>& buffers);
  uint32_t copy(uint32_t source, uint32_t target, uint64_t bytes);
  uint32_t fill(uint32_t target, uint64_t bytes, const std::string& pattern);
  uint32_t collective(Collective collective, const std::vector<uint32_t>& sources,
                      const std::vector<uint32_t>& targets);
  uint32_t jump();
  uint32_t jump_if_zero(uint32_t buffer);
  uint32_t choose(uint32_t buffer, uint64_t bytes, uint32_t num_targets);
  uint32_t end();

  uint32_t position() const { return static_cast<uint32_t>(code.size()); }
  // Sets where the jump at `position` goes; `branch` is the number of the choice.
  void set_target(uint32_t position, uint32_t target, uint32_t branch);

  std::string name_of(const Instruction& instruction) const;

  std::shared_ptr<Image> image;
  uint32_t num_buffers;
  int num_devices;
  std::vector<Instruction> code;
  std::vector<uint32_t> operands;  // buffer numbers
  std::vector<Kernel> kernels;
  std::vector<Collective> collectives;
  std::vector<std::vector<int>> group_of;  // [collective][device], position_of likewise
  std::vector<std::vector<int>> position_of;
  std::vector<std::string> patterns;
  std::vector<std::vector<uint32_t>> choices;

 private:
  uint32_t add(Instruction instruction, const std::vector<uint32_t>& buffers);
  void check_groups(const Collective& collective);
};

}  // namespace pai
