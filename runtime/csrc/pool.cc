#include "pool.h"

#include <immintrin.h>

namespace pai {
namespace {

constexpr int kSpins = 2000;  // some 20 to 50 µs before an idle worker sleeps

void pause(int& spins) {
  if (++spins < kSpins)
    _mm_pause();
  else
    std::this_thread::yield();
}

}  // namespace

void Share::run(PartFunction function, void* context, uint32_t parts, int worker) {
  function_.store(function, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  uint64_t generation = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(generation << 32 | parts, std::memory_order_release);
  while (help(worker)) {
  }
  for (int spins = 0; done_.load(std::memory_order_acquire) != parts;) pause(spins);
}

bool Share::help(int worker) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (auto left = static_cast<uint32_t>(ticket)) {
    PartFunction function = function_.load(std::memory_order_relaxed);
    void* context = context_.load(std::memory_order_relaxed);
    if (ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      function(context, left - 1, worker);
      done_.fetch_add(1, std::memory_order_release);
      return true;
    }
  }
  return false;
}

Pool::Pool(int first, int count, std::function<bool(int)> task)
    : shared_(std::make_shared<Shared>()) {
  shared_->shares = std::vector<Share>(first + count);
  shared_->task = std::move(task);
  for (int worker = first; worker < first + count; ++worker)
    threads_.emplace_back([shared = shared_, worker] { loop(*shared, worker); });
}

Pool::~Pool() {
  shared_->ends = true;
  wake();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::abandon() {
  shared_->ends = true;
  wake();
  for (std::thread& thread : threads_) thread.detach();
  threads_.clear();
}

void Pool::wake() {
  shared_->epoch.fetch_add(1);
  shared_->epoch.notify_all();
}

void Pool::divide(int worker, uint32_t parts, PartFunction function, void* context) {
  shared_->offers.fetch_add(1);
  wake();
  shared_->shares[worker].run(function, context, parts, worker);
  shared_->offers.fetch_sub(1);
}

void Pool::loop(Shared& shared, int worker) {
  auto help = [&] {
    if (shared.offers.load() == 0) return false;
    for (Share& share : shared.shares)
      if (share.help(worker)) return true;
    return false;
  };
  int idle = 0;
  while (!shared.ends) {
    uint32_t seen = shared.epoch.load();
    if (shared.task(worker) || help()) {
      idle = 0;
    } else if (++idle < kSpins) {
      _mm_pause();
    } else {
      shared.epoch.wait(seen);
      idle = 0;
    }
  }
}

}  // namespace pai
