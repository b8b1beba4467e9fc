// How the devices of a group exchange data. The executor calls a transport once per collective
// and group, when every member that lives in this process has arrived.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pool.h"
#include "reduce.h"

namespace pai {

enum class CollectiveKind {
  all_reduce, all_gather, reduce_scatter, all_to_all, collective_permute, collective_broadcast
};

// Throws PackageError for an unknown name.
CollectiveKind collective_kind(const std::string& name);

// One operand of a collective. The meaning of the numbers, for row-major arrays seen as
// [outer, a, middle, b, inner bytes]:
//   all_reduce                  inner elements (not bytes)
//   all_gather                  the operand is [outer, inner]; results are concatenated on inner
//   reduce_scatter              the operand is [outer, members, inner], in elements
//   all_to_all                  a and b are the two dimensions concerned, as `exchange` says
//   permute, broadcast          inner bytes
enum class Exchange { split_a_concat_b, split_b_concat_a, split_a_concat_a };

struct Layout {
  uint64_t outer = 1, a = 1, middle = 1, b = 1, inner = 1;
  Exchange exchange = Exchange::split_a_concat_b;
};

struct Collective {
  CollectiveKind kind;
  std::string name;    // for messages and traces
  std::vector<std::vector<int>> groups;                  // devices, in the program's order
  std::vector<Layout> layouts;                           // per operand
  std::vector<std::optional<Reducer>> reducers;          // per operand
  std::vector<std::vector<std::pair<int, int>>> pairs;   // permute: per group, member positions
};

// The buffers of one group: [operand][member], members in the order of the group.
struct Members {
  std::vector<std::vector<const void*>> sources;
  std::vector<std::vector<void*>> targets;
};

class Transport {
 public:
  virtual ~Transport() = default;
  // Completes a collective; may divide the work over the pool. Throws TransportError.
  virtual void complete(const Collective& collective, size_t group, const Members& members,
                        Pool& pool, int worker) = 0;
};

// All devices share this process's memory.
std::unique_ptr<Transport> make_inproc_transport();

}  // namespace pai
