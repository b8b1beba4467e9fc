#include "executor.h"

#include <immintrin.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "errors.h"

namespace pai {
namespace {

using Kind = Instruction::Kind;
using std::memory_order_relaxed;

constexpr int64_t kWorthDividing = 20'000;   // ns; waking a worker costs a few µs
constexpr uint64_t kPollTicks = 40'000'000;  // of the time stamp counter: 10 to 20 ms
constexpr auto kPoll = std::chrono::milliseconds(20);
constexpr auto kPatience = std::chrono::seconds(3);  // for kernels to return after a stop

void fill(void* target, uint64_t bytes, const std::string& pattern) {
  auto* to = static_cast<char*>(target);
  if (pattern.size() == 1) {
    std::memset(to, pattern[0], bytes);
    return;
  }
  uint64_t done = std::min<uint64_t>(pattern.size(), bytes);
  std::memcpy(to, pattern.data(), done);
  for (; done < bytes; done += std::min(done, bytes - done))
    std::memcpy(to + done, to, std::min(done, bytes - done));
}

}  // namespace

Executor::Executor(std::shared_ptr<Program> program, int threads, double deadline_s)
    : program_(std::move(program)), deadline_(deadline_s) {
  int devices = program_->num_devices;
  if (threads < 1) throw PackageError("a run needs at least one thread");
  for (int number = 0; number < devices; ++number) {
    Device& device = devices_.emplace_back();
    device.number = number;
    device.buffers.resize(program_->num_buffers);
    device.operands.resize(program_->operands.size());
  }
  for (const Collective& collective : program_->collectives)
    meetings_.emplace_back(collective.groups.size());
  costs_ = std::make_unique<Cost[]>(program_->code.size());
  uint64_t scratch = 64;
  for (const Kernel& kernel : program_->kernels) scratch = std::max(scratch, kernel.scratch_bytes);
  for (int worker = 0; worker < threads; ++worker) {
    scratch_.emplace_back(std::aligned_alloc(64, (scratch + 63) / 64 * 64), std::free);
    if (!scratch_.back()) throw PackageError("no memory for the scratch space of the kernels");
  }
  divides_ = threads > devices;
  int first = devices == 1 ? 1 : 0;
  pool_ = std::make_unique<Pool>(first, threads - first,
                                 [this](int worker) { return run_ready(worker); });
}

Executor::~Executor() = default;

void Executor::bind(int device, uint32_t buffer, uintptr_t address) {
  devices_.at(device).buffers.at(buffer) = reinterpret_cast<void*>(address);
  devices_[device].rebound = true;
}

void Executor::bind_all(int device, uintptr_t base, const std::vector<uint32_t>& buffers,
                        const std::vector<uint64_t>& offsets) {
  for (size_t k = 0; k < buffers.size(); ++k) bind(device, buffers[k], base + offsets.at(k));
}

bool Executor::run(const std::function<bool()>& interrupted) {
  if (hangs_) throw TransportError("a kernel of an earlier run never returned");
  reset();
  return devices_.size() == 1 ? run_alone(interrupted) : run_together(interrupted);
}

void Executor::reset() {
  start_ = Clock::now();
  stopped_ = false;
  failure_.clear();
  for (auto& groups : meetings_)
    for (Meeting& meeting : groups) meeting.count = 0;
  for (size_t c = 0; c < meetings_.size(); ++c)
    for (size_t g = 0; g < meetings_[c].size(); ++g)
      meetings_[c][g].arrived.assign(program_->collectives[c].groups[g].size(), false);
  for (Device& device : devices_) {
    device.pc = 0;
    device.events.clear();
    if (device.rebound) resolve(device);
  }
}

void Executor::resolve(Device& device) {
  for (size_t k = 0; k < device.operands.size(); ++k) {
    device.operands[k] = device.buffers[program_->operands[k]];
    if (!device.operands[k])
      throw PackageError("buffer " + std::to_string(program_->operands[k]) + " has no memory");
  }
  device.rebound = false;
}

bool Executor::run_alone(const std::function<bool()>& interrupted) {
  return advance(devices_[0], 0, &interrupted) == Outcome::ended;
}

bool Executor::run_together(const std::function<bool()>& interrupted) {
  active_ = unfinished_ = static_cast<int>(devices_.size());
  std::vector<int> all;
  for (const Device& device : devices_) all.push_back(device.number);
  make_ready(all, -1);
  bool interrupt = false;
  std::unique_lock lock(finish_mutex_);
  auto done = [this] { return unfinished_ == 0 || stopped_; };
  while (!finish_.wait_for(lock, kPoll, done)) {
    lock.unlock();
    if ((interrupt = interrupted()))
      stop("");
    else
      check_deadlines();
    lock.lock();
  }
  std::string failure = failure_;
  lock.unlock();
  if (!settle(kPatience)) {
    hangs_ = true;
    pool_->abandon();
  }
  if (!failure.empty()) throw TransportError(failure);
  return !interrupt;
}

bool Executor::run_ready(int worker) {
  if (num_ready_ == 0) return false;
  int number;
  {
    std::lock_guard lock(ready_mutex_);
    if (ready_.empty()) return false;
    number = ready_.front();
    ready_.pop_front();
    --num_ready_;
    ++busy_;
  }
  Device& device = devices_[number];
  device.running_since = now_ns();
  device.status = Status::running;
  try {
    if (advance(device, worker, nullptr) == Outcome::ended) {
      device.status = Status::ended;
      if (--unfinished_ == 0) {
        std::lock_guard lock(finish_mutex_);
        finish_.notify_all();
      }
      leave();
    }
  } catch (const std::exception& error) {
    stop(error.what());
  }
  --busy_;
  return true;
}

// Runs a device until it ends, waits in a collective or everything stops. A device that waits
// belongs to whoever completes its group: it must not be touched any more.
Executor::Outcome Executor::advance(Device& device, int worker,
                                    const std::function<bool()>* interrupted) {
  const Instruction* code = program_->code.data();
  uint32_t pc = device.pc.load(memory_order_relaxed);
  const bool tracing = tracing_;
  if (tracing && pc > 0) close_event(device);  // of the collective it waited in
  uint64_t polled = __rdtsc();
  for (unsigned steps = 0;; ++steps) {
    if (stopped_.load(memory_order_relaxed)) return Outcome::stopped;
    if (interrupted && steps % 4 == 0 && __rdtsc() - polled > kPollTicks) {
      if ((*interrupted)()) return Outcome::stopped;
      polled = __rdtsc();
    }
    const Instruction& instruction = code[pc];
    void** operands = device.operands.data() + instruction.first;
    device.pc.store(pc, memory_order_relaxed);
    if (tracing) open_event(device, pc, worker);
    ++pc;
    switch (instruction.kind) {
      case Kind::call:
        call(device, instruction, worker);
        break;
      case Kind::copy:
        std::memmove(operands[1], operands[0], instruction.bytes);
        break;
      case Kind::fill:
        fill(operands[0], instruction.bytes, program_->patterns[instruction.index]);
        break;
      case Kind::collective:
        device.pc.store(pc, memory_order_relaxed);
        if (!arrive(device, instruction, worker)) return Outcome::waits;
        break;
      case Kind::jump:
      case Kind::jump_if_zero:
      case Kind::choose:
        pc = branch(device, instruction, pc);
        break;
      case Kind::end:
        return Outcome::ended;
    }
    if (tracing) close_event(device);
  }
}

uint32_t Executor::branch(const Device& device, const Instruction& instruction,
                          uint32_t next) const {
  if (instruction.kind == Kind::jump) return instruction.index;
  const void* value = device.operands[instruction.first];
  if (instruction.kind == Kind::jump_if_zero)
    return *static_cast<const uint8_t*>(value) ? next : instruction.index;
  uint32_t index = *static_cast<const uint8_t*>(value);
  if (instruction.bytes == 4) std::memcpy(&index, value, 4);
  const auto& targets = program_->choices[instruction.index];
  return targets[std::min<size_t>(index, targets.size() - 1)];
}

void Executor::call(Device& device, const Instruction& instruction, int worker) {
  const Kernel& kernel = program_->kernels[instruction.index];
  void** buffers = device.operands.data() + instruction.first;
  auto whole = [&] { kernel.function(buffers, 0, kernel.grid, scratch_[worker].get()); };
  if (!divides_ || kernel.grid < 2) return whole();
  Cost& cost = costs_[&instruction - program_->code.data()];
  if (cost.runs.load(memory_order_relaxed) < 2) {
    int64_t begin = now_ns();
    whole();
    cost.ns.store(std::min(cost.ns.load(memory_order_relaxed), now_ns() - begin),
                  memory_order_relaxed);
    cost.runs.fetch_add(1, memory_order_relaxed);
  } else if (cost.ns.load(memory_order_relaxed) < kWorthDividing) {
    whole();
  } else {
    divide(buffers, kernel, worker);
  }
}

void Executor::divide(void** buffers, const Kernel& kernel, int worker) {
  struct Context {
    Executor& executor;
    void** buffers;
    const Kernel& kernel;
    int64_t parts;
  } context{*this, buffers, kernel, std::min<int64_t>(kernel.grid, 4 * pool_->workers())};
  auto run = [](void* opaque, int64_t part, int by) {
    auto& c = *static_cast<Context*>(opaque);
    c.kernel.function(c.buffers, c.kernel.grid * part / c.parts,
                      c.kernel.grid * (part + 1) / c.parts, c.executor.scratch_[by].get());
  };
  pool_->divide(worker, static_cast<uint32_t>(context.parts), run, &context);
}

// Returns whether the collective is complete; when not, the device waits.
bool Executor::arrive(Device& device, const Instruction& instruction, int worker) {
  int group = program_->group_of[instruction.index][device.number];
  const std::vector<int>& members = program_->collectives[instruction.index].groups[group];
  Meeting& meeting = meetings_[instruction.index][group];
  bool nobody_left = false;
  {
    std::lock_guard lock(meeting.mutex);
    if (meeting.count == 0) meeting.since = now_ns();
    meeting.arrived[program_->position_of[instruction.index][device.number]] = true;
    if (++meeting.count < members.size()) {
      device.status = Status::waiting;
      nobody_left = --active_ == 0;
      if (!nobody_left) return false;
    }
  }
  if (nobody_left) {
    report_deadlock();
    return false;
  }
  complete(instruction, group, worker);
  {
    std::lock_guard lock(meeting.mutex);
    meeting.count = 0;
    meeting.arrived.assign(members.size(), false);
  }
  if (members.size() > 1) make_ready(members, device.number);
  return true;
}

void Executor::complete(const Instruction& instruction, int group, int worker) {
  const Collective& collective = program_->collectives[instruction.index];
  const std::vector<int>& devices = collective.groups[group];
  size_t operands = collective.layouts.size();
  Members members{std::vector(operands, std::vector<const void*>(devices.size())),
                  std::vector(operands, std::vector<void*>(devices.size()))};
  for (size_t m = 0; m < devices.size(); ++m) {
    void* const* buffers = devices_[devices[m]].operands.data() + instruction.first;
    for (size_t k = 0; k < operands; ++k) {
      members.sources[k][m] = buffers[k];
      members.targets[k][m] = buffers[operands + k];
    }
  }
  transport_->complete(collective, group, members, *pool_, worker);
}

void Executor::make_ready(const std::vector<int>& devices, int except) {
  {
    std::lock_guard lock(ready_mutex_);
    for (int number : devices)
      if (number != except) {
        devices_[number].status = Status::ready;
        ready_.push_back(number);
        ++num_ready_;
        if (except >= 0) ++active_;
      }
  }
  pool_->wake();
}

void Executor::leave() {
  if (--active_ == 0 && unfinished_ > 0) report_deadlock();
}

void Executor::open_event(Device& device, uint32_t pc, int worker) {
  device.events.push_back({pc, worker, now_ns(), -1});
}

void Executor::close_event(Device& device) {
  if (!device.events.empty() && device.events.back().end_ns < 0)
    device.events.back().end_ns = now_ns();
}

}  // namespace pai
