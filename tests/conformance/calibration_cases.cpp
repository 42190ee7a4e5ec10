// Adapters whose first values come from data: read as any other, and made once more from the data
// of the case.
#include "graft/compose/calibrate.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::AdapterModel;
using graft::Tensor;

Tensor product_of(const Tensor& b, const Tensor& a) { return graft::detail::product(b, a); }

/// The batches that a case describes: its x, for EVA also 0.5 · x backwards and x rolled − 0.2.
std::vector<Tensor> batches_of(const Tensor& x, bool eva) {
  std::vector<Tensor> list{x};
  if (!eva) return list;
  auto backwards = Tensor::empty(x.shape()), rolled = Tensor::empty(x.shape());
  for (Index r = 0; r < x.rows(); ++r)
    for (Index i = 0; i < x.cols(); ++i) {
      backwards(r, i) = 0.5F * x(x.rows() - 1 - r, i);
      rolled((r + 1) % x.rows(), i) = x(r, i) - 0.2F;
    }
  list.push_back(backwards);
  list.push_back(rolled);
  return list;
}

void run_calibrated(Checker& check, const Case& c) {
  check.merge(run_layer_case(c), "");
  const auto config = graft::read_config_file(c.folder / "adapter_config.json");
  const std::string init = *config.at("init_lora_weights").get_if<std::string>();
  const auto file = tensors_of(c);
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  if (c.json.value("values", "") != "as PEFT initialises them" || file.find("x") == nullptr) return;
  Toy<float> toy(c.json.value("module", Json()), file, single_target(c.folder));
  AdapterModel model(toy.sites(), methods<float>());
  auto in = toy.inputs(file);
  const auto batches = batches_of(in.x[0], init == "eva");
  const graft::CalibrationData<float> data{.batches = static_cast<Index>(batches.size()),
                                           .run = [&](graft::Tape& tape, Index i) {
                                             in.x[0] = batches[static_cast<std::size_t>(i)];
                                             return graft::mean(graft::square(toy(tape, in)[0]));
                                           }};
  graft::TorchGenerator generator(0);
  auto& set = graft::add_calibrated(model, "default", config, generator, data);
  const double tolerance = std::max(check.tolerance(), 1e-4);
  std::map<std::string, Tensor> found;
  for (const auto& [key, tensor] : set.tensors()) found[key] = tensor.parameter.value();
  for (const auto& [key, value] : found) {
    if (!key.ends_with("lora_A.weight")) continue;
    const std::string path = key.substr(0, key.size() - std::string("lora_A.weight").size());
    const auto a = tensor_of<float>(saved, key),
               b = tensor_of<float>(saved, path + "lora_B.weight");
    const auto& made_b = found.at(path + "lora_B.weight");
    if (init == "corda") {
      check.compare("calibrated product", values_of(product_of(made_b, value)),
                    values_of(product_of(b, a)), tolerance);
      continue;
    }
    // Each direction up to its sign; LoRA-GA's pairs come from different ones.
    auto rows = value.clone(), columns = made_b.clone();
    for (Index k = 0; k < a.rows() && value.shape() == a.shape(); ++k) {
      double row = 0, column = 0;
      for (Index i = 0; i < a.cols(); ++i) row += value(k, i) * a(k, i);
      for (Index o = 0; o < b.rows(); ++o) column += made_b(o, k) * b(o, k);
      for (Index i = 0; i < a.cols() && row < 0; ++i) rows(k, i) = -value(k, i);
      for (Index o = 0; o < b.rows() && column < 0; ++o) columns(o, k) = -made_b(o, k);
    }
    check.compare("calibrated " + key, values_of(rows), values_of(a), tolerance);
    check.compare("calibrated " + path + "lora_B.weight", values_of(columns), values_of(b),
                  tolerance);
  }
  if (init == "lora_ga") {
    // What the weight lost, the factors have.
    in.x[0] = batches[0];
    const auto y = forward(toy, in);
    Toy<float> fresh(c.json.value("module", Json()), file, single_target(c.folder));
    check.compare("calibrated y", y, forward(fresh, in), tolerance);
    return;
  }
  for (const auto& view : file.tensors())
    if (const auto at = view.name.find("rewritten_"); at != std::string::npos) {
      std::string name = view.name;
      name.erase(at, 10);
      check.compare("calibrated " + name, values_of(toy.frozen(name)), graft::io::to_f64(view),
                    tolerance);
    }
}

const Handler eva({.kind = "layer", .peft_type = "LORA", .name = "lora_eva"}, run_calibrated);
const Handler corda({.kind = "layer", .peft_type = "LORA", .name = "lora_corda"}, run_calibrated);
const Handler lora_ga({.kind = "layer", .peft_type = "LORA", .name = "lora_ga"}, run_calibrated);

/// LoftQ, round by round.
void run_loftq(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json& config = c.json.at("config");
  const auto w = tensor_of<float>(file, "in.weight");
  const auto rank = config.at("r").get<Index>();
  const double scaling =
      config.value("lora_alpha", static_cast<double>(rank)) / static_cast<double>(rank);
  const std::string format = config.value("quantiser", "nf4");
  const auto quantise = [&](const Tensor& rest) -> Tensor {
    if (format == "nf4") return graft::quantised_weight(rest, 4);
    if (format == "int8") return graft::quantised_weight(rest, 8);
    if (format != "uniform4") throw Unsupported{concat("LoftQ with ", format)};
    auto q = rest.clone();  // symmetric, one scale a row
    for (Index r = 0; r < q.rows(); ++r) {
      float top = 0;
      for (Index i = 0; i < q.cols(); ++i) top = std::max(top, std::abs(q(r, i)));
      const float step = top / 7;
      for (Index i = 0; i < q.cols() && step > 0; ++i)
        q(r, i) = step * std::nearbyint(q(r, i) / step);
    }
    return q;
  };
  auto a = Tensor::empty({rank, w.cols()}), b = Tensor::empty({w.rows(), rank});
  Index step = 0;
  std::vector<double> errors;
  graft::loftq_factors<float>(
      w, config.value("loftq_iter", Index{1}), static_cast<float>(scaling), quantise, a, b,
      [&](const Tensor& q) {
        auto product = product_of(b, a);
        double error = 0;
        for (Index i = 0; i < w.size(); ++i) {
          product[i] *= static_cast<float>(scaling);
          const double e = static_cast<double>(w[i] - q[i] - product[i]);
          error += e * e;
        }
        errors.push_back(std::sqrt(error));
        const auto compare = [&](const char* name, const Tensor& value) {
          if (const auto* view = file.find(concat("out.step", step, ".", name)))
            check.compare(view->name, values_of(value), graft::io::to_f64(*view));
        };
        compare("base", q);
        compare("product", product);
        ++step;
      });
  if (const auto* view = file.find("out.error"))
    check.compare(view->name, errors, graft::io::to_f64(*view));
}

const Handler loftq({.kind = "transform", .peft_type = "LORA", .method = "LoftQ initialisation"},
                    run_loftq);

}  // namespace
}  // namespace conformance
