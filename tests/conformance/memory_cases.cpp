// Side networks that are told hidden states, functions that keep codes for their backward pass,
// optimisers that live inside of it.
#include "graft/adapters/memory/s2a.hpp"
#include "graft/adapters/memory/sherl.hpp"
#include "graft/adapters/memory/unipt.hpp"
#include "graft/optim/lomo.hpp"
#include "handlers.hpp"
#include "method_layer.hpp"

namespace conformance {
namespace {

using graft::Tape;
using graft::Tensor;
using graft::Var;

template <class Integer>
std::vector<std::int64_t> wide(const std::vector<Integer>& list) {
  return {list.begin(), list.end()};
}
/// "h0", "h1", … as values of a tape.
std::vector<Var> states(Tape& tape, const SafetensorsFile& file) {
  std::vector<Var> list;
  for (std::size_t i = 0; file.find(concat("h", i)) != nullptr; ++i)
    list.push_back(tape.constant(tensor_of<float>(file, concat("h", i))));
  return list;
}

void run_unipt(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  graft::StandaloneInit<float> init(0);
  graft::UniPT network(read_config_of<graft::UniPTConfig>(c),
                       static_cast<Index>(file.at("h0").shape.back()), init.context());
  const auto tensors = load_tensors(c, network);
  std::vector<unsigned char> mask;
  if (const auto* view = file.find("mask"))
    for (const double m : graft::io::to_f64(*view)) mask.push_back(m != 0);
  Tape tape;
  const auto found = network(states(tape, file), mask);
  check.compare("y", values_of(found.y.value()), graft::io::to_f64(file.at("y")));
  if (const auto* view = file.find("confidence"))
    check.compare("confidence", values_of(found.confidence.value()), graft::io::to_f64(*view));
  tape.backward(found.y, tensor_of<float>(file, "dy"));
  compare_tensor_gradients(check, file, tensors, "grad.", c.json);
}

void run_sherl(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  graft::StandaloneInit<float> init(0);
  graft::SHERL network(read_config_of<graft::SHERLConfig>(c),
                       static_cast<Index>(file.at("h0").shape.back()), init.context());
  const auto tensors = load_tensors(c, network);
  Tape tape({.training = false});
  const auto found = network(states(tape, file), tape.constant(tensor_of<float>(file, "last")));
  check.compare("y", values_of(found.y.value()), graft::io::to_f64(file.at("y")));
  if (const auto* view = file.find("weights"))
    check.compare("weights", values_of(found.weights.value()), graft::io::to_f64(*view));
  tape.backward(found.y, tensor_of<float>(file, "dy"));
  compare_tensor_gradients(check, file, tensors, "grad.", c.json);
}

/// A function with codes in its backward pass, in double precision: the cases keep codes away from
/// ties, not from what single precision does to derivatives.
void run_coded_function(Checker& check, const Case& c) {
  using Wide = BasicTensor<double>;
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::S2AConfig>(c);
  const auto options = config.codes();
  const auto input = tensor_of<double>(file, "x"), dy = tensor_of<double>(file, "dy_given");
  const double eps = config_of(c).value("eps", 1e-5);
  const auto weight = tensor_of<double>(file, "norm.weight"),
             bias = tensor_of<double>(file, "norm.bias");
  const auto apply = [&](const graft::BasicVar<double>& x, bool exact) -> graft::BasicVar<double> {
    using A = graft::kernels::Activation;
    if (config.function == "softmax") return exact ? softmax(x) : coded_softmax(x, options);
    if (config.function == "layer_norm")
      return exact ? layer_norm(x, x.tape().constant(weight), x.tape().constant(bias), eps)
                   : coded_layer_norm(x, weight, bias, eps, options);
    const A kind = config.function == "relu"   ? A::relu
                   : config.function == "silu" ? A::silu
                   : config.function == "gelu" ? A::gelu
                                               : throw Unsupported{config.function};
    return exact ? activation(kind, x) : coded_activation(kind, x, options);
  };
  for (const bool exact : {false, true}) {
    graft::BasicTape<double> tape;
    const auto x = tape.leaf(input);
    const auto y = apply(x, exact);
    check.compare("output", values_of(y.value()), graft::io::to_f64(file.at("output")));
    tape.backward(y, dy);
    const char* name = exact ? "dx_exact" : "dx";
    check.compare(name, values_of(x.grad()), graft::io::to_f64(file.at(name)));
  }
  // The codes themselves, of what the function keeps.
  graft::BasicTape<double> tape;
  Wide kept;
  if (config.function == "softmax") {
    kept = softmax(tape.constant(input)).value();
  } else if (config.function == "layer_norm") {
    kept = layer_norm(tape.constant(input), tape.constant(Wide::ones({input.cols()})),
                      tape.constant(Wide::zeros({input.cols()})), eps)
               .value();
  } else {
    const auto x = tape.leaf(input);
    tape.backward(apply(x, true), Wide::ones(input.shape()));
    kept = x.grad();
  }
  const graft::DerivativeCodes<double> codes(kept, options);
  check.require(wide(codes.codes()) == graft::io::to_i64(file.at("codes")), "other codes");
  std::vector<double> low, high;
  for (Index k = 0; k < codes.groups(); ++k) {
    low.push_back(codes.low(k));
    high.push_back(codes.high(k));
  }
  check.compare("lo", low, graft::io::to_f64(file.at("lo")));
  check.compare("hi", high, graft::io::to_f64(file.at("hi")));
}

void run_side_module(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  graft::StandaloneInit<float> init(0);
  graft::BasicS2ASide<float> module(read_config_of<graft::S2AConfig>(c),
                                    static_cast<Index>(file.at("x").shape.back()), init.context());
  const auto run = [&](Tape& tape, const Var& x, const Var& h) {
    (void)tape;
    return module.apply(x, h);
  };
  {
    Tape tape;
    const auto h = tape.constant(tensor_of<float>(file, "h"));
    check.compare("identity", run(tape, tape.constant(tensor_of<float>(file, "x")), h).value(),
                  h.value());
  }
  const auto tensors = load_tensors(c, module);
  Tape tape;
  const auto x = tape.leaf(tensor_of<float>(file, "x")), h = tape.leaf(tensor_of<float>(file, "h"));
  const auto y = run(tape, x, h);
  check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
  tape.backward(y, tensor_of<float>(file, "dy"));
  check.compare("dx", values_of(x.grad()), graft::io::to_f64(file.at("dx")));
  check.compare("dh", values_of(h.grad()), graft::io::to_f64(file.at("dh")));
  compare_tensor_gradients(check, file, tensors, "grad.", c.json);
}

/// The network's own tensors under an optimiser, with given gradients.
template <class Optimizer>
void run_steps(Checker& check, const Case& c,
               const std::function<Optimizer(std::vector<graft::BasicParameter<double>>)>& make) {
  const auto file = tensors_of(c);
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  std::vector<graft::BasicParameter<double>> parameters;
  std::vector<std::string> names;
  static const std::string prefix = "base_model.model.";
  for (const auto& view : saved.tensors()) {
    names.push_back(view.name.substr(prefix.size()));
    parameters.emplace_back(tensor_of<double>(saved, view.name));
  }
  auto optimizer = make(parameters);
  const auto part = [](const BasicTensor<double>& t, Index step) {
    const auto row = t.slice_rows(step, 1).clone();
    return std::vector<double>(row.begin(), row.end());
  };
  const auto steps = static_cast<Index>(file.at("gradient." + names.at(0)).shape.at(0));
  for (Index t = 0; t < steps; ++t) {
    for (std::size_t k = 0; k < names.size(); ++k)
      parameters[k].mutable_grad() = BasicTensor<double>::from(
          part(tensor_of<double>(file, "gradient." + names[k]), t), parameters[k].shape());
    optimizer.step();
    optimizer.zero_grad();
    for (std::size_t k = 0; k < names.size(); ++k) {
      check.compare(concat("step ", t + 1, " of ", names[k]), values_of(parameters[k].value()),
                    part(tensor_of<double>(file, "after." + names[k]), t));
      if constexpr (requires { optimizer.second_moment(parameters[k]); }) {
        const auto& moment = optimizer.second_moment(parameters[k]);
        const bool matrix = parameters[k].shape().rank() > 1;
        check.compare(concat("second moment ", t + 1), moment.row,
                      part(tensor_of<double>(file, matrix ? "row" : "vector"), t));
        if (matrix)
          check.compare(concat("second moment ", t + 1), moment.column,
                        part(tensor_of<double>(file, "column"), t));
      }
    }
  }
}

void run_lomo(Checker& check, const Case& c) {
  const Json config = config_of(c);
  run_steps<graft::BasicLomo<double>>(check, c, [&](auto parameters) {
    return graft::BasicLomo<double>(parameters,
                                    {.learning_rate = config.at("learning_rate"),
                                     .clip_grad_value = config.value("clip_grad_value", 0.0),
                                     .clip_grad_norm = config.value("clip_grad_norm", 0.0)});
  });
}
void run_adalomo(Checker& check, const Case& c) {
  const Json config = config_of(c);
  run_steps<graft::BasicAdaLomo<double>>(check, c, [&](auto parameters) {
    graft::AdaLomoConfig options;
    options.learning_rate = config.at("learning_rate");
    options.eps = config.value("eps", options.eps);
    options.clip_threshold = config.value("clip_threshold", options.clip_threshold);
    options.decay_rate = config.value("decay_rate", options.decay_rate);
    options.weight_decay = config.value("weight_decay", options.weight_decay);
    return graft::BasicAdaLomo<double>(parameters, options);
  });
}

const Handler handlers[] = {
    {{.kind = "layer", .peft_type = "UNIPT"}, run_unipt},
    {{.kind = "layer", .peft_type = "SHERL"}, run_sherl},
    {{.kind = "transform", .peft_type = "S2A"}, run_coded_function},
    {{.kind = "layer", .peft_type = "S2A"}, run_side_module},
    {{.kind = "procedure", .peft_type = "LOMO"}, run_lomo},
    {{.kind = "procedure", .peft_type = "ADALOMO"}, run_adalomo},
};

}  // namespace
}  // namespace conformance
