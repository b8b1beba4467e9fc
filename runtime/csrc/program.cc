#include "program.h"

#include "errors.h"

namespace pai {

using Kind = Instruction::Kind;

Program::Program(std::shared_ptr<Image> image, uint32_t num_buffers, int num_devices)
    : image(std::move(image)), num_buffers(num_buffers), num_devices(num_devices) {
  if (num_devices < 1) throw PackageError("a program needs at least one device");
}

uint32_t Program::add_kernel(const std::string& name, size_t object, const std::string& symbol,
                             int64_t grid, uint64_t scratch_bytes) {
  if (grid < 0) throw PackageError("kernel " + name + " has a negative grid");
  auto function = reinterpret_cast<KernelFunction>(image->symbol(object, symbol));
  kernels.push_back({name, function, grid, scratch_bytes});
  return static_cast<uint32_t>(kernels.size() - 1);
}

uint32_t Program::add(Instruction instruction, const std::vector<uint32_t>& buffers) {
  instruction.first = static_cast<uint32_t>(operands.size());
  instruction.count = static_cast<uint32_t>(buffers.size());
  for (uint32_t buffer : buffers) {
    if (buffer >= num_buffers) throw PackageError("an instruction refers to an unknown buffer");
    operands.push_back(buffer);
  }
  code.push_back(instruction);
  return position() - 1;
}

uint32_t Program::call(uint32_t kernel, const std::vector<uint32_t>& buffers) {
  if (kernel >= kernels.size()) throw PackageError("an instruction calls an unknown kernel");
  return add({.kind = Kind::call, .index = kernel}, buffers);
}

uint32_t Program::copy(uint32_t source, uint32_t target, uint64_t bytes) {
  return add({.kind = Kind::copy, .bytes = bytes}, {source, target});
}

uint32_t Program::fill(uint32_t target, uint64_t bytes, const std::string& pattern) {
  if (pattern.empty() || bytes % pattern.size())
    throw PackageError("a fill pattern does not divide its buffer");
  patterns.push_back(pattern);
  auto index = static_cast<uint32_t>(patterns.size() - 1);
  return add({.kind = Kind::fill, .index = index, .bytes = bytes}, {target});
}

void Program::check_groups(const Collective& collective) {
  std::vector<int> group(num_devices, -1), position(num_devices, -1);
  for (size_t g = 0; g < collective.groups.size(); ++g)
    for (size_t p = 0; p < collective.groups[g].size(); ++p) {
      int device = collective.groups[g][p];
      if (device < 0 || device >= num_devices || group[device] >= 0)
        throw PackageError(collective.name + " has invalid replica groups");
      group[device] = static_cast<int>(g);
      position[device] = static_cast<int>(p);
    }
  for (int device = 0; device < num_devices; ++device)
    if (group[device] < 0)
      throw PackageError(collective.name + " has no group for device " + std::to_string(device));
  group_of.push_back(std::move(group));
  position_of.push_back(std::move(position));
}

uint32_t Program::collective(Collective collective, const std::vector<uint32_t>& sources,
                             const std::vector<uint32_t>& targets) {
  if (sources.size() != targets.size() || sources.size() != collective.layouts.size())
    throw PackageError(collective.name + " has as many results as operands");
  bool reduces = collective.kind == CollectiveKind::all_reduce ||
                 collective.kind == CollectiveKind::reduce_scatter;
  if (collective.reducers.size() != (reduces ? sources.size() : 0))
    throw PackageError(collective.name + " needs one reduction per operand");
  bool permutes = collective.kind == CollectiveKind::collective_permute;
  if (collective.pairs.size() != (permutes ? collective.groups.size() : 0))
    throw PackageError(collective.name + " needs one list of pairs per group");
  for (size_t g = 0; g < collective.pairs.size(); ++g)
    for (auto [from, to] : collective.pairs[g]) {
      int members = static_cast<int>(collective.groups[g].size());
      if (from < 0 || to < 0 || from >= members || to >= members)
        throw PackageError(collective.name + " has invalid pairs");
    }
  check_groups(collective);
  collectives.push_back(std::move(collective));
  std::vector<uint32_t> buffers = sources;
  buffers.insert(buffers.end(), targets.begin(), targets.end());
  auto index = static_cast<uint32_t>(collectives.size() - 1);
  return add({.kind = Kind::collective, .index = index}, buffers);
}

uint32_t Program::jump() { return add({.kind = Kind::jump}, {}); }

uint32_t Program::jump_if_zero(uint32_t buffer) {
  return add({.kind = Kind::jump_if_zero, .bytes = 1}, {buffer});
}

uint32_t Program::choose(uint32_t buffer, uint64_t bytes, uint32_t num_targets) {
  if ((bytes != 1 && bytes != 4) || num_targets == 0)
    throw PackageError("a choice needs an index of 1 or 4 bytes and a branch");
  choices.emplace_back(num_targets, 0);
  auto index = static_cast<uint32_t>(choices.size() - 1);
  return add({.kind = Kind::choose, .index = index, .bytes = bytes}, {buffer});
}

uint32_t Program::end() { return add({.kind = Kind::end}, {}); }

void Program::set_target(uint32_t position, uint32_t target, uint32_t branch) {
  if (position >= code.size() || target > code.size())
    throw PackageError("a jump leaves the program");
  Instruction& instruction = code[position];
  if (instruction.kind == Kind::choose)
    choices[instruction.index].at(branch) = target;
  else
    instruction.index = target;
}

std::string Program::name_of(const Instruction& instruction) const {
  switch (instruction.kind) {
    case Kind::call: return kernels[instruction.index].name;
    case Kind::collective: return collectives[instruction.index].name;
    case Kind::copy: return "copy";
    case Kind::fill: return "fill";
    case Kind::jump:
    case Kind::jump_if_zero:
    case Kind::choose: return "branch";
    case Kind::end: return "end";
  }
  return "";
}

}  // namespace pai
