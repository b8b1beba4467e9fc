// Runs a program on virtual devices. A device is a resumable task: its program counter and its
// buffers. It runs until it ends or waits for the members of a collective's group, so any number
// of devices shares the worker threads. One device runs on the caller's thread, helped by workers.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "pool.h"
#include "program.h"
#include "transport.h"

namespace pai {

using Clock = std::chrono::steady_clock;

struct TraceEvent {
  uint32_t instruction;
  int worker;
  int64_t begin_ns, end_ns;  // since the start of the run
};

class Executor {
 public:
  // `threads` counts the threads that compute.
  Executor(std::shared_ptr<Program> program, int threads, double deadline_s);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Says where a buffer of a device lies. The memory must outlive the runs.
  void bind(int device, uint32_t buffer, uintptr_t address);

  // Says where many buffers of a device lie, by their distance from `base`.
  void bind_all(int device, uintptr_t base, const std::vector<uint32_t>& buffers,
                const std::vector<uint64_t>& offsets);

  // Runs the program once on all devices. `interrupted` is polled on the calling thread about
  // every 20 ms; when it returns true the run stops and `run` returns false.
  // Throws TransportError when a collective cannot complete. The executor can run again
  // afterwards, unless `hangs`.
  bool run(const std::function<bool()>& interrupted);

  // Whether a kernel of an ended run still has not returned; its memory must stay.
  bool hangs() const { return hangs_; }

  void set_deadline(double seconds) { deadline_ = std::chrono::duration<double>(seconds); }
  void set_tracing(bool on) { tracing_ = on; }
  const std::vector<TraceEvent>& events(int device) const { return devices_[device].events; }
  int workers() const { return pool_->workers(); }

 private:
  enum class Status : int { ready, running, waiting, ended };
  enum class Outcome { waits, ended, stopped };

  struct Device {
    int number = 0;
    std::atomic<uint32_t> pc{0};  // where it runs, or where it goes on
    std::vector<void*> buffers;   // by buffer number
    std::vector<void*> operands;  // resolved, in the order of program.operands
    std::atomic<Status> status{Status::ended};
    std::atomic<int64_t> running_since{0};  // ns
    bool rebound = true;  // operands have to be resolved again
    std::vector<TraceEvent> events;
  };

  struct Meeting {  // one group of one collective
    std::mutex mutex;
    std::vector<bool> arrived;
    size_t count = 0;
    int64_t since = 0;  // ns, of the first arrival
  };

  // How a kernel's grid is divided; learned from its first serial runs.
  struct Cost {
    std::atomic<uint32_t> runs{0};
    std::atomic<int64_t> ns{INT64_MAX};
  };

  // executor.cc
  void reset();
  void resolve(Device& device);
  bool run_alone(const std::function<bool()>& interrupted);
  bool run_together(const std::function<bool()>& interrupted);
  bool run_ready(int worker);
  Outcome advance(Device& device, int worker, const std::function<bool()>* interrupted);
  uint32_t branch(const Device& device, const Instruction& instruction, uint32_t next) const;
  void call(Device& device, const Instruction& instruction, int worker);
  void divide(void** buffers, const Kernel& kernel, int worker);
  bool arrive(Device& device, const Instruction& instruction, int worker);
  void complete(const Instruction& instruction, int group, int worker);
  void make_ready(const std::vector<int>& devices, int except);
  void leave();
  void open_event(Device& device, uint32_t pc, int worker);
  void close_event(Device& device);

  // watch.cc
  void stop(const std::string& why);
  bool settle(std::chrono::duration<double> patience);
  void check_deadlines();
  bool is_late(int missing, int64_t since) const;
  bool overruns(const Device& device, int64_t since) const;
  void report_deadlock();
  std::string describe(size_t collective, size_t group, const std::string& why);
  int64_t now_ns() const;

  std::shared_ptr<Program> program_;
  std::unique_ptr<Transport> transport_ = make_inproc_transport();
  std::chrono::duration<double> deadline_;
  std::deque<Device> devices_;
  std::vector<std::deque<Meeting>> meetings_;  // [collective][group]
  std::unique_ptr<Cost[]> costs_;              // per instruction
  std::vector<std::unique_ptr<void, void (*)(void*)>> scratch_;  // per worker
  bool tracing_ = false, divides_ = false, hangs_ = false;
  Clock::time_point start_;

  std::mutex ready_mutex_;
  std::deque<int> ready_;
  std::atomic<int> num_ready_{0};
  std::atomic<int> active_{0};  // devices that are ready or running
  std::atomic<int> busy_{0};    // workers inside run_ready
  std::atomic<bool> stopped_{false};

  std::mutex finish_mutex_;  // guards failure_ and wakes the caller
  std::condition_variable finish_;
  std::string failure_;
  std::atomic<int> unfinished_{0};

  std::unique_ptr<Pool> pool_;  // last: its threads end before the rest goes
};

}  // namespace pai
