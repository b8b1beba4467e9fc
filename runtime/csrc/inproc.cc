// Collectives between devices of one process: the last to arrive moves the data, helped by idle
// workers. Reductions run block by block in the order of device numbers, so that every device gets
// the same bits on every run.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <unordered_map>

#include "errors.h"
#include "transport.h"

namespace pai {
namespace {

constexpr uint64_t kPartBytes = 128 << 10;  // long runs per buffer keep the prefetcher going

// Calls body(begin, end) over [0, count) in parts of about kPartBytes of `unit_bytes` each.
template <class Body>
void divide(Pool& pool, int worker, uint64_t count, uint64_t unit_bytes, const Body& body) {
  uint64_t step = std::max<uint64_t>(1, kPartBytes / std::max<uint64_t>(unit_bytes, 1));
  uint64_t parts = (count + step - 1) / step;
  if (parts > 4096) parts = 4096, step = (count + parts - 1) / parts;
  if (parts <= 2 || pool.workers() == 1) return body(uint64_t{0}, count);
  struct Context {
    const Body& body;
    uint64_t count, step;
  } context{body, count, step};
  auto run = [](void* opaque, int64_t part, int) {
    auto& c = *static_cast<Context*>(opaque);
    uint64_t begin = std::min(part * c.step, c.count);
    c.body(begin, std::min(begin + c.step, c.count));
  };
  pool.divide(worker, static_cast<uint32_t>(parts), run, &context);
}

char* at(void* base, uint64_t offset) { return static_cast<char*>(base) + offset; }
const char* at(const void* base, uint64_t offset) {
  return static_cast<const char*>(base) + offset;
}

class Inproc final : public Transport {
 public:
  void complete(const Collective& collective, size_t group, const Members& members, Pool& pool,
                int worker) override {
    const std::vector<int>& devices = collective.groups[group];
    std::vector<size_t> order(devices.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](size_t x, size_t y) { return devices[x] < devices[y]; });
    for (size_t k = 0; k < collective.layouts.size(); ++k) {
      const auto& sources = members.sources[k];
      const auto& targets = members.targets[k];
      const Layout& layout = collective.layouts[k];
      switch (collective.kind) {
        case CollectiveKind::all_reduce:
          all_reduce(*collective.reducers[k], layout, order, sources, targets, pool, worker);
          break;
        case CollectiveKind::reduce_scatter:
          reduce_scatter(*collective.reducers[k], layout, order, sources, targets, pool, worker);
          break;
        case CollectiveKind::all_gather:
          all_gather(layout, sources, targets, pool, worker);
          break;
        case CollectiveKind::all_to_all:
          all_to_all(layout, sources, targets, pool, worker);
          break;
        case CollectiveKind::collective_broadcast:
          for (size_t m = 1; m < targets.size(); ++m)
            copy(targets[m], sources[0], layout.inner, pool, worker);
          copy(targets[0], sources[0], layout.inner, pool, worker);
          break;
        case CollectiveKind::collective_permute:
          permute(collective.pairs[group], layout, sources, targets, pool, worker);
          break;
      }
    }
  }

 private:
  using Sources = std::vector<const void*>;
  using Targets = std::vector<void*>;

  static void copy(void* target, const void* source, uint64_t bytes, Pool& pool, int worker) {
    if (target == source) return;
    divide(pool, worker, bytes, 1, [&](uint64_t begin, uint64_t end) {
      std::memcpy(at(target, begin), at(source, begin), end - begin);
    });
  }

  static void all_reduce(const Reducer& reducer, const Layout& layout,
                         const std::vector<size_t>& order, const Sources& sources,
                         const Targets& targets, Pool& pool, int worker) {
    uint64_t bytes = reducer.element_bytes();
    divide(pool, worker, layout.inner, bytes * sources.size(), [&](uint64_t begin, uint64_t end) {
      Sources from(order.size());
      Targets to(order.size());
      for (size_t i = 0; i < order.size(); ++i) from[i] = at(sources[order[i]], begin * bytes);
      for (size_t i = 0; i < order.size(); ++i) to[i] = at(targets[i], begin * bytes);
      reducer(from.data(), from.size(), to.data(), to.size(), end - begin);
    });
  }

  // Operand [outer, members, inner] in elements; result of member m is the sum of slices m.
  static void reduce_scatter(const Reducer& reducer, const Layout& layout,
                             const std::vector<size_t>& order, const Sources& sources,
                             const Targets& targets, Pool& pool, int worker) {
    uint64_t bytes = reducer.element_bytes(), members = sources.size();
    uint64_t rows = layout.outer * members;
    divide(pool, worker, rows, layout.inner * bytes * members, [&](uint64_t begin, uint64_t end) {
      Sources from(members);
      for (uint64_t row = begin; row < end; ++row) {
        for (size_t i = 0; i < members; ++i)
          from[i] = at(sources[order[i]], row * layout.inner * bytes);
        void* to = at(targets[row % members], row / members * layout.inner * bytes);
        reducer(from.data(), members, &to, 1, layout.inner);
      }
    });
  }

  static void all_gather(const Layout& layout, const Sources& sources, const Targets& targets,
                         Pool& pool, int worker) {
    uint64_t members = sources.size(), run = layout.inner;
    uint64_t rows = layout.outer * members * members;  // (receiver, outer, sender)
    divide(pool, worker, rows, run, [&](uint64_t begin, uint64_t end) {
      for (uint64_t row = begin; row < end; ++row) {
        uint64_t sender = row % members, outer = row / members % layout.outer;
        uint64_t receiver = row / members / layout.outer;
        std::memcpy(at(targets[receiver], (outer * members + sender) * run),
                    at(sources[sender], outer * run), run);
      }
    });
  }

  // Part j of the split dimension of sender i lands at place i of the concatenated dimension of
  // receiver j. Rows run over (receiver, sender, outer, a, middle) of one part; b and what is
  // inside it are contiguous on both sides.
  static void all_to_all(const Layout& whole, const Sources& sources, const Targets& targets,
                         Pool& pool, int worker) {
    uint64_t n = sources.size();
    bool splits_b = whole.exchange == Exchange::split_b_concat_a;
    bool joins_b = whole.exchange == Exchange::split_a_concat_b;
    uint64_t part_a = splits_b ? whole.a : whole.a / n;
    uint64_t run = (splits_b ? whole.b / n : whole.b) * whole.inner;
    uint64_t from_b = whole.b * whole.inner, to_b = joins_b ? run * n : run;
    uint64_t to_a = joins_b ? part_a : part_a * n;
    uint64_t rows = n * n * whole.outer * part_a * whole.middle;
    divide(pool, worker, rows, run, [&](uint64_t begin, uint64_t end) {
      for (uint64_t row = begin; row < end; ++row) {
        uint64_t middle = row % whole.middle, rest = row / whole.middle;
        uint64_t a = rest % part_a;
        uint64_t outer = (rest /= part_a) % whole.outer;
        uint64_t sender = (rest /= whole.outer) % n, receiver = rest / n;
        uint64_t a_from = splits_b ? a : receiver * part_a + a;
        uint64_t a_to = joins_b ? a : sender * part_a + a;
        uint64_t from = ((outer * whole.a + a_from) * whole.middle + middle) * from_b;
        uint64_t to = ((outer * to_a + a_to) * whole.middle + middle) * to_b;
        std::memcpy(at(targets[receiver], to + (joins_b ? sender * run : 0)),
                    at(sources[sender], from + (splits_b ? receiver * run : 0)), run);
      }
    });
  }

  static void permute(const std::vector<std::pair<int, int>>& pairs, const Layout& layout,
                      const Sources& sources, const Targets& targets, Pool& pool, int worker) {
    std::vector<bool> received(targets.size());
    for (auto [sender, receiver] : pairs) {
      copy(targets[receiver], sources[sender], layout.inner, pool, worker);
      received[receiver] = true;
    }
    for (size_t m = 0; m < targets.size(); ++m)
      if (!received[m]) std::memset(targets[m], 0, layout.inner);
  }
};

}  // namespace

std::unique_ptr<Transport> make_inproc_transport() { return std::make_unique<Inproc>(); }

CollectiveKind collective_kind(const std::string& name) {
  static const std::unordered_map<std::string, CollectiveKind> table = {
      {"all_reduce", CollectiveKind::all_reduce},
      {"all_gather", CollectiveKind::all_gather},
      {"reduce_scatter", CollectiveKind::reduce_scatter},
      {"all_to_all", CollectiveKind::all_to_all},
      {"collective_permute", CollectiveKind::collective_permute},
      {"collective_broadcast", CollectiveKind::collective_broadcast}};
  auto found = table.find(name);
  if (found == table.end()) throw PackageError("unknown collective '" + name + "'");
  return found->second;
}

}  // namespace pai
