#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/base/profile.hpp"
#include "graft/base/rng.hpp"
#include "graft/io/json.hpp"

/// What an adapter costs over the frozen layer below it, as ratios that are measured alternately in
/// one run. For an adapter type of one's own:
///
///     #include "adapter_overhead.hpp"
///     int main(int argc, char** argv) {
///       return graft::bench::adapter_overhead(
///           argc, argv, "mine", [](const graft::DenseLinear& base) { return Mine(base); });
///     }
namespace graft::bench {

/// Sizes of a frozen layer.
struct LayerSize {
  std::string name;
  Index in = 0, out = 0;
};

/// Layers of models that people adapt, and the square one of the limit in README.md.
inline const std::vector<LayerSize>& known_layers() {
  static const std::vector<LayerSize> list{{"square", 1024, 1024},
                                           {"smollm2-q", 576, 576},
                                           {"smollm2-gate", 576, 1536},
                                           {"bert-base", 768, 768},
                                           {"7b", 4096, 4096}};
  return list;
}

/// A frozen map and the same map adapted.
struct Subject {
  std::string method, family, remark;
  std::function<Var(const Var&)> frozen, adapted;
  std::function<void(Tape&)> prepare = [](Tape&) {};  ///< sets the context of a pass
  std::function<Var(Tape&)> loss = [](Tape&) {
    return Var{};
  };  ///< the method's own term, or empty
  std::vector<Parameter> parameters;
  std::int64_t held_bytes = 0;  ///< by the adapter between steps
  std::shared_ptr<void> owner;  ///< of what the functions refer to
};

/// Costs of one subject at one number of rows.
struct Overhead {
  std::string method, family, layer, remark;
  Index rows = 0, trained = 0;
  double frozen_forward_ms = 0, frozen_step_ms = 0;
  double forward = 0, step = 0;  ///< adapted over frozen
  double operations =
      0;  ///< of matrix products in a step, adapted over frozen: the bound by arithmetic
  double extra_mib = 0;   ///< parameters, gradients and what a step keeps, over the frozen step
  bool measured = false;  ///< false: the remark says why not
};

namespace detail {

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Seconds of work: of this process where it has one thread (others that use the processor do not
/// count then), else by the clock.
inline double seconds_now() {
  if (ThreadPool::global().threads() == 1)
    return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline Tensor random_tensor(Shape shape, std::uint64_t seed, double deviation = 1) {
  TorchGenerator generator(seed);
  auto x = Tensor::empty(shape);
  generator.normal(x.data(), x.size(), 0.0, deviation);
  return x;
}

inline void run_forward(const Subject& subject, bool adapted, const Tensor& x) {
  Tape tape({.gradients = false, .training = true});
  subject.prepare(tape);
  const auto y = (adapted ? subject.adapted : subject.frozen)(tape.constant(x));
  if (!(y.size() > 0)) throw ValueError("no output");
}

/// Forward pass and gradients of the input and of all parameters, for a given gradient of the
/// output.
inline void run_step(const Subject& subject, bool adapted, const Tensor& x, Tensor& dy) {
  Tape tape({.seed = 1});
  subject.prepare(tape);
  const auto leaf = tape.leaf(x);
  const auto y = (adapted ? subject.adapted : subject.frozen)(leaf);
  if (dy.shape() != y.shape()) dy = random_tensor(y.shape(), 9);
  const auto extra = adapted ? subject.loss(tape) : Var{};
  if (extra) {
    // One scalar with the wanted gradients: Σ y ⊙ dy + the method's term.
    const auto total = tape.record(Tensor::scalar(0), true,
                                   [gy = y.grad_ref(), dy](const Tensor&) { gy.add(dy); });
    tape.backward(graft::add(total, extra.size() == 1 ? reshape(extra, Shape{}) : sum(extra)));
  } else {
    tape.backward(y, dy);
  }
  for (const auto& p : subject.parameters) p.zero_grad();
}

}  // namespace detail

/// Measures frozen and adapted alternately, forward and step, for about `seconds`; medians of the
/// ratios of neighbours.
inline Overhead measure(const Subject& subject, const Tensor& x, double seconds) {
  Overhead result;
  result.method = subject.method;
  result.family = subject.family;
  result.remark = subject.remark;
  result.rows = x.rows();
  for (const auto& p : subject.parameters) result.trained += p.size();
  Tensor dy;
  const auto once = [&](bool step, bool adapted) {
    if (step)
      detail::run_step(subject, adapted, x, dy);
    else
      detail::run_forward(subject, adapted, x);
  };
  auto& pool = MemoryPool::global();
  std::int64_t peak[2];
  double operations[2];
  for (const bool adapted : {false, true}) {
    once(true, adapted);
    const auto before = pool.stats().bytes_in_use;
    pool.reset_peak();
    Profile profile;
    {
      const auto on = profile.record();
      once(true, adapted);
    }
    peak[adapted ? 1 : 0] = pool.stats().peak_bytes_in_use - before;
    operations[adapted ? 1 : 0] = 0;
    for (const auto& event : profile.events()) operations[adapted ? 1 : 0] += event.operations;
  }
  result.operations = operations[1] / operations[0];
  result.extra_mib =
      static_cast<double>(subject.held_bytes + peak[1] - peak[0]) / (1024.0 * 1024.0);
  constexpr double kSample = 2e-3;  // a sample repeats what is shorter
  double begin = detail::seconds_now();
  once(true, false);
  const double estimate = std::max(detail::seconds_now() - begin, 1e-6);
  const int repeats = std::max(1, static_cast<int>(kSample / estimate));
  std::vector<double> times[2][2], ratios[2];
  double spent = 0;
  for (int round = 0; round < 3 || (spent < seconds && round < 1000); ++round)
    for (const int step : {0, 1}) {
      double pair[2];
      for (const int adapted : {0, 1}) {
        begin = detail::seconds_now();
        for (int i = 0; i < repeats; ++i) once(step == 1, adapted == 1);
        const double time = std::max(detail::seconds_now() - begin, 1e-7);
        spent += time;
        pair[adapted] = time / repeats;
        times[step][adapted].push_back(pair[adapted]);
      }
      ratios[step].push_back(pair[1] / pair[0]);
    }
  result.frozen_forward_ms = 1000 * detail::median(times[0][0]);
  result.frozen_step_ms = 1000 * detail::median(times[1][0]);
  result.forward = detail::median(ratios[0]);
  result.step = detail::median(ratios[1]);
  result.measured = true;
  return result;
}

/// One line a method and layer: ratios at each number of rows, sorted by layer and by the step at
/// the most rows.
inline std::string overhead_markdown(const std::vector<Overhead>& list) {
  struct Line {
    std::vector<const Overhead*> at;
  };
  std::vector<Index> rows;
  std::vector<std::string> layers;
  std::vector<std::vector<const Overhead*>> lines;
  for (const auto& o : list) {
    if (std::find(rows.begin(), rows.end(), o.rows) == rows.end()) rows.push_back(o.rows);
    if (std::find(layers.begin(), layers.end(), o.layer) == layers.end()) layers.push_back(o.layer);
    auto it = std::find_if(lines.begin(), lines.end(), [&](const auto& line) {
      return line[0]->method == o.method && line[0]->layer == o.layer;
    });
    if (it == lines.end()) it = lines.insert(lines.end(), {std::vector<const Overhead*>{}});
    it->push_back(&o);
  }
  const auto place = [&](const auto& line) {
    return std::find(layers.begin(), layers.end(), line[0]->layer) - layers.begin();
  };
  std::stable_sort(lines.begin(), lines.end(), [&](const auto& a, const auto& b) {
    if (place(a) != place(b)) return place(a) < place(b);
    const double x = a.back()->measured ? a.back()->step : 1e9;
    const double y = b.back()->measured ? b.back()->step : 1e9;
    return x < y;
  });
  std::string text = "| layer | method | family | trained |", rule = "|---|---|---|---:|";
  for (const char* what : {"forward", "step"})
    for (const Index r : rows) {
      text += concat(" ", what, " ", r, " |");
      rule += "---:|";
    }
  text += " operations | extra MiB | remark |\n" + rule + "---:|---:|---|\n";
  const auto number = [](double value, const char* format) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, format, value);
    return std::string(buffer);
  };
  for (const auto& line : lines) {
    text += concat("| ", line[0]->layer, " | ", line[0]->method, " | ", line[0]->family, " | ",
                   line[0]->trained, " |");
    for (const bool step : {false, true})
      for (const Index r : rows) {
        const auto it =
            std::find_if(line.begin(), line.end(), [&](const auto* o) { return o->rows == r; });
        text += it == line.end() || !(*it)->measured
                    ? " – |"
                    : " " + number(step ? (*it)->step : (*it)->forward, "%.2f") + " |";
      }
    const auto last = [&](double value, const char* format) {
      return " " + (line.back()->measured ? number(value, format) : "–") + " |";
    };
    text += last(line.back()->operations, "%.2f") + last(line.back()->extra_mib, "%.1f") + " " +
            line.back()->remark + " |\n";
  }
  return text;
}

inline io::Json overhead_json(const std::vector<Overhead>& list) {
  io::Json all = io::Json::array();
  for (const auto& o : list) {
    io::Json one{{"method", o.method},
                 {"family", o.family},
                 {"layer", o.layer},
                 {"rows", o.rows},
                 {"trained", o.trained}};
    if (o.measured) {
      one["forward"] = o.forward;
      one["step"] = o.step;
      one["frozen_forward_ms"] = o.frozen_forward_ms;
      one["frozen_step_ms"] = o.frozen_step_ms;
      one["operations"] = o.operations;
      one["extra_mib"] = o.extra_mib;
    }
    if (!o.remark.empty()) one["remark"] = o.remark;
    all.push_back(std::move(one));
  }
  return all;
}

inline std::vector<Overhead> overhead_from(const io::Json& list) {
  std::vector<Overhead> all;
  for (const auto& one : list) {
    Overhead o;
    o.method = one.at("method").get<std::string>();
    o.family = one.at("family").get<std::string>();
    o.layer = one.at("layer").get<std::string>();
    o.rows = one.at("rows").get<Index>();
    o.trained = one.at("trained").get<Index>();
    o.remark = one.value("remark", "");
    o.measured = one.contains("step");
    if (o.measured) {
      o.forward = one.at("forward").get<double>();
      o.step = one.at("step").get<double>();
      o.frozen_forward_ms = one.at("frozen_forward_ms").get<double>();
      o.frozen_step_ms = one.at("frozen_step_ms").get<double>();
      o.operations = one.at("operations").get<double>();
      o.extra_mib = one.at("extra_mib").get<double>();
    }
    all.push_back(std::move(o));
  }
  return all;
}

/// Method, forward and step, by tabs, at the first layer and its most rows, sorted by the step.
inline std::string overhead_plot_data(std::vector<Overhead> list) {
  Index most = 0;
  for (const auto& o : list)
    if (o.layer == list.front().layer) most = std::max(most, o.rows);
  std::erase_if(list, [layer = list.empty() ? "" : list.front().layer, most](const Overhead& o) {
    return !o.measured || o.layer != layer || o.rows != most;
  });
  std::stable_sort(list.begin(), list.end(),
                   [](const auto& a, const auto& b) { return a.step < b.step; });
  std::string text;
  for (const auto& o : list) text += concat(o.method, "\t", o.forward, "\t", o.step, "\n");
  return text;
}

/// Options that the programs have in common.
struct OverheadOptions {
  std::vector<LayerSize> layers;
  std::vector<Index> rows;
  double seconds = 0.4;
  bool json = false;

  /// Adds the options; call `finish` after parsing.
  void add_to(CLI::App& app) {
    app.add_option("--shape", shapes_,
                   "square, smollm2-q, smollm2-gate, bert-base, 7b, or IN x OUT as 768x3072; "
                   "repeatable, separated by commas")
        ->delimiter(',');
    app.add_option("--rows", rows, "Numbers of rows (tokens of a batch)")
        ->delimiter(',')
        ->check(CLI::PositiveNumber);
    app.add_option("--seconds", seconds, "Time for each measurement")->check(CLI::PositiveNumber);
    app.add_option("--threads", threads_)->check(CLI::PositiveNumber);
    app.add_flag("--json", json, "Print JSON");
  }
  /// @throws ValueError for a shape that is none
  void finish(std::vector<std::string> shapes, std::vector<Index> default_rows) {
    ThreadPool::global().set_threads(threads_);
    if (!shapes_.empty()) shapes = shapes_;
    if (rows.empty()) rows = std::move(default_rows);
    for (const auto& text : shapes) {
      const auto& known = known_layers();
      const auto it = std::find_if(known.begin(), known.end(),
                                   [&](const LayerSize& l) { return l.name == text; });
      LayerSize size;
      long in = 0, out = 0;
      if (it != known.end())
        size = *it;
      else if (std::sscanf(text.c_str(), "%ldx%ld", &in, &out) == 2 && in > 0 && out > 0)
        size = {text, in, out};
      else
        throw ValueError(concat("--shape ", text, ": expected a name or INxOUT"));
      layers.push_back(std::move(size));
    }
  }
  void print(const std::vector<Overhead>& list) const {
    std::fputs(
        (json ? io::json_text(overhead_json(list), 2) + "\n" : overhead_markdown(list)).c_str(),
        stdout);
  }

 private:
  std::vector<std::string> shapes_;
  int threads_ = 1;
};

/// A frozen layer of this size with random values, packed as models hold theirs.
inline DenseLinear random_layer(const LayerSize& size) {
  DenseLinear layer(
      detail::random_tensor({size.out, size.in}, 3, 1 / std::sqrt(static_cast<double>(size.in))));
  layer.pack();
  return layer;
}

/// Bench of one adapter type: `make(base)` gives a `LinearAdapter`. Returns the exit code.
template <class Make>
int adapter_overhead(int argc, char** argv, const std::string& name, Make&& make) {
  CLI::App app("The cost of " + name + " over the frozen layer.");
  OverheadOptions options;
  options.add_to(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    options.finish({"square", "smollm2-q", "bert-base"}, {1, 16, 256});
    std::vector<Overhead> list;
    for (const auto& size : options.layers) {
      const auto base = random_layer(size);
      const auto before = MemoryPool::global().stats().bytes_in_use;
      const Adapted layer(base, make(base));
      Subject subject;
      subject.method = name;
      subject.family = "own";
      subject.frozen = [&](const Var& x) { return linear(base, x); };
      subject.adapted = [&](const Var& x) { return layer(x); };
      subject.parameters = layer.parameters();
      subject.held_bytes = MemoryPool::global().stats().bytes_in_use - before;
      for (const Index rows : options.rows) {
        list.push_back(
            measure(subject, detail::random_tensor({rows, size.in}, 5), options.seconds));
        list.back().layer = size.name;
      }
    }
    options.print(list);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 2;
  }
}

}  // namespace graft::bench
