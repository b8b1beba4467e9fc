// Worker threads that run ready tasks and help each other with divisible work.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace pai {

// Runs part `part` of a divisible piece of work on worker `worker`.
using PartFunction = void (*)(void* context, int64_t part, int worker);

// Each worker owns one Share: the divisible work it offers to the others. A Share outlives the
// work, so a helper may look at it at any time: `ticket` holds a generation (upper half) and the
// number of unclaimed parts (lower half); a claim takes one off, and fails when either changed.
class alignas(64) Share {
 public:
  // Runs all parts; returns when every part is done.
  void run(PartFunction function, void* context, uint32_t parts, int worker);
  // Runs one part of what is offered here; false when there is none.
  bool help(int worker);

 private:
  std::atomic<uint64_t> ticket_{0};
  std::atomic<uint32_t> done_{0};
  std::atomic<PartFunction> function_{nullptr};
  std::atomic<void*> context_{nullptr};
};

class Pool {
 public:
  // Starts threads numbered [first, first + count). `task(worker)` runs a ready task and returns
  // whether there was one. Worker numbers below `first` belong to threads that call `divide`.
  Pool(int first, int count, std::function<bool(int)> task);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int workers() const { return static_cast<int>(shared_->shares.size()); }
  // Runs function(context, part, worker) for all parts on this worker and on idle ones.
  void divide(int worker, uint32_t parts, PartFunction function, void* context);
  // Tells idle workers that a task is ready.
  void wake();
  // Ends the threads without waiting for those that hang in a kernel.
  void abandon();

 private:
  struct Shared {  // what threads touch; they keep it alive when abandoned
    std::vector<Share> shares;
    std::function<bool(int)> task;
    std::atomic<uint32_t> epoch{0};
    std::atomic<int> offers{0};
    std::atomic<bool> ends{false};
  };
  static void loop(Shared& shared, int worker);

  std::shared_ptr<Shared> shared_;
  std::vector<std::thread> threads_;
};

}  // namespace pai
