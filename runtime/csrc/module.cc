// The Python face of the core; runtime/executor.py is its only user.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "errors.h"
#include "executor.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using pai::Program;

std::shared_ptr<pai::Image> make_image(const std::vector<std::pair<std::string, nb::bytes>>& all) {
  std::vector<pai::ObjectFile> files;
  for (const auto& [name, bytes] : all) files.push_back({name, {bytes.c_str(), bytes.size()}});
  return std::make_shared<pai::Image>(files);
}

using LayoutNumbers = std::tuple<uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, int>;
using Reduction = std::tuple<std::string, std::string, std::shared_ptr<pai::SmallFloat>>;

uint32_t add_collective(Program& program, const std::string& kind, const std::string& name,
                        std::vector<std::vector<int>> groups,
                        const std::vector<LayoutNumbers>& layouts,
                        const std::vector<Reduction>& reductions,
                        std::vector<std::vector<std::pair<int, int>>> pairs,
                        const std::vector<uint32_t>& sources,
                        const std::vector<uint32_t>& targets) {
  pai::Collective collective{pai::collective_kind(kind), name, std::move(groups), {}, {},
                             std::move(pairs)};
  for (auto [outer, a, middle, b, inner, exchange] : layouts)
    collective.layouts.push_back({outer, a, middle, b, inner, pai::Exchange{exchange}});
  for (const auto& [dtype, op, tables] : reductions)
    collective.reducers.emplace_back(pai::Reducer(dtype, pai::reduce_op(op), tables));
  return program.collective(std::move(collective), sources, targets);
}

// Runs without the GIL; Ctrl-C (a pending signal) ends the run with KeyboardInterrupt.
void run(pai::Executor& executor) {
  auto interrupted = [] {
    nb::gil_scoped_acquire held;
    return PyErr_CheckSignals() != 0;
  };
  bool finished;
  {
    nb::gil_scoped_release released;
    finished = executor.run(interrupted);
  }
  if (!finished) throw nb::python_error();
}

nb::list events(const pai::Executor& executor, int device) {
  nb::list out;
  for (const pai::TraceEvent& event : executor.events(device))
    out.append(nb::make_tuple(event.instruction, event.worker, event.begin_ns, event.end_ns));
  return out;
}

}  // namespace

NB_MODULE(_core, m) {
  nb::exception<pai::PackageError>(m, "CorePackageError");
  nb::exception<pai::TransportError>(m, "CoreTransportError");

  nb::class_<pai::Image>(m, "Image")
      .def("symbol", [](const pai::Image& image, size_t object, const std::string& name) {
        return reinterpret_cast<uintptr_t>(image.symbol(object, name));
      });
  m.def("load_image", &make_image, "objects"_a);

  nb::class_<pai::SmallFloat>(m, "SmallFloat")
      .def(nb::init<std::vector<float>, std::vector<uint8_t>>(), "decode"_a, "encode"_a);

  nb::class_<Program>(m, "Program")
      .def(nb::init<std::shared_ptr<pai::Image>, uint32_t, int>(), "image"_a, "num_buffers"_a,
           "num_devices"_a)
      .def("add_kernel", &Program::add_kernel, "name"_a, "index"_a, "symbol"_a,
           "grid"_a, "scratch_bytes"_a)
      .def("call", &Program::call, "kernel"_a, "buffers"_a)
      .def("copy", &Program::copy, "source"_a, "target"_a, "size"_a)
      .def("fill",
           [](Program& program, uint32_t target, uint64_t bytes, const nb::bytes& pattern) {
             return program.fill(target, bytes, std::string(pattern.c_str(), pattern.size()));
           },
           "target"_a, "size"_a, "pattern"_a)
      .def("collective", &add_collective, "kind"_a, "name"_a, "groups"_a, "layouts"_a,
           "reductions"_a, "pairs"_a, "sources"_a, "targets"_a)
      .def("jump", &Program::jump)
      .def("jump_if_zero", &Program::jump_if_zero, "buffer"_a)
      .def("choose", &Program::choose, "buffer"_a, "size"_a, "num_targets"_a)
      .def("end", &Program::end)
      .def("position", &Program::position)
      .def("set_target", &Program::set_target, "position"_a, "target"_a, "branch"_a = 0)
      .def("name_of", [](const Program& program, uint32_t position) {
        return program.name_of(program.code.at(position));
      });

  nb::class_<pai::Executor>(m, "Executor")
      .def(nb::init<std::shared_ptr<Program>, int, double>(), "program"_a, "threads"_a,
           "deadline_s"_a)
      .def("bind", &pai::Executor::bind, "device"_a, "buffer"_a, "address"_a)
      .def("bind_all", &pai::Executor::bind_all, "device"_a, "base"_a, "buffers"_a, "offsets"_a)
      .def("run", &run)
      .def("set_deadline", &pai::Executor::set_deadline, "seconds"_a)
      .def("set_tracing", &pai::Executor::set_tracing, "on"_a)
      .def("events", &events, "device"_a)
      .def_prop_ro("hangs", &pai::Executor::hangs)
      .def_prop_ro("workers", &pai::Executor::workers);
}
