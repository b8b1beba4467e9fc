// What keeps a run from hanging: deadlines of collectives, deadlocks, and the end of a run.
#include <algorithm>
#include <thread>

#include "executor.h"

namespace pai {

int64_t Executor::now_ns() const {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count();
}

void Executor::stop(const std::string& why) {
  std::lock_guard lock(finish_mutex_);
  if (failure_.empty()) failure_ = why;
  stopped_ = true;
  finish_.notify_all();
}

// Waits until no worker runs a device or can begin to; false when that takes longer than
// `patience`. Devices are taken from the queue, and counted as busy, under the same mutex.
bool Executor::settle(std::chrono::duration<double> patience) {
  auto limit = Clock::now() + patience;
  auto quiet = [this] {
    std::lock_guard lock(ready_mutex_);
    ready_.clear();
    num_ready_ = 0;
    return busy_ == 0;
  };
  for (int spins = 0; !quiet(); ++spins) {
    if (spins < 100)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    if (Clock::now() > limit) return false;
  }
  return true;
}

void Executor::check_deadlines() {
  for (size_t c = 0; c < meetings_.size(); ++c) {
    const Collective& collective = program_->collectives[c];
    for (size_t g = 0; g < meetings_[c].size(); ++g) {
      bool late = false;
      {
        Meeting& meeting = meetings_[c][g];
        std::lock_guard lock(meeting.mutex);
        const std::vector<int>& members = collective.groups[g];
        if (meeting.count == 0 || meeting.count == members.size()) continue;
        for (size_t m = 0; m < members.size(); ++m)
          late = late || (!meeting.arrived[m] && is_late(members[m], meeting.since));
      }
      if (!late) continue;
      char seconds[32];
      snprintf(seconds, sizeof seconds, "%g", deadline_.count());
      return stop(describe(c, g, std::string("missed its deadline of ") + seconds + " s"));
    }
  }
}

bool Executor::overruns(const Device& device, int64_t since) const {
  int64_t from = std::max(since, device.running_since.load());
  return static_cast<double>(now_ns() - from) > deadline_.count() * 1e9;
}

// A device is late when it has run for the whole deadline since the others began to wait. One that
// waits for a worker is late only when every running device overruns.
bool Executor::is_late(int missing, int64_t since) const {
  const Device& device = devices_[missing];
  if (device.status == Status::running) return overruns(device, since);
  if (device.status != Status::ready) return false;  // seen by another meeting, or a deadlock
  bool any = false, all = true;
  for (const Device& other : devices_)
    if (other.status == Status::running) {
      any = true;
      all = all && overruns(other, since);
    }
  return any && all;
}

// Every device waits or has ended: the collectives of the devices do not match.
void Executor::report_deadlock() {
  for (size_t c = 0; c < meetings_.size(); ++c)
    for (size_t g = 0; g < meetings_[c].size(); ++g) {
      bool waits;
      {
        std::lock_guard lock(meetings_[c][g].mutex);
        waits = meetings_[c][g].count > 0;
      }
      if (waits) return stop(describe(c, g, "can never complete"));
    }
  stop("the devices wait for each other");
}

std::string Executor::describe(size_t collective, size_t group, const std::string& why) {
  const Collective& spec = program_->collectives[collective];
  Meeting& meeting = meetings_[collective][group];
  std::lock_guard lock(meeting.mutex);
  std::string arrived, missing;
  for (size_t m = 0; m < spec.groups[group].size(); ++m) {
    const Device& device = devices_[spec.groups[group][m]];
    std::string& list = meeting.arrived[m] ? arrived : missing;
    list += (list.empty() ? "" : ", ") + std::to_string(device.number);
    if (meeting.arrived[m]) continue;
    uint32_t pc = std::min<uint32_t>(device.pc, program_->position() - 1);
    Status status = device.status;
    if (status == Status::ended) list += " (has ended)";
    if (status == Status::ready) list += " (has no thread to run on)";
    if (status == Status::running) list += " (in " + program_->name_of(program_->code[pc]) + ")";
    if (status == Status::waiting && pc > 0)
      list += " (waits in " + program_->name_of(program_->code[pc - 1]) + ")";
  }
  return spec.name + " " + why + ": devices " + arrived + " arrived, " + missing + " did not";
}

}  // namespace pai
