// Side networks that are told hidden states, functions that keep codes for their backward pass,
// optimisers that live inside of it.
#include "graft/adapters/memory/deft_density.hpp"
#include "graft/adapters/memory/lemo.hpp"
#include "graft/adapters/memory/lemo_predictor.hpp"
#include "graft/adapters/memory/meft.hpp"
#include "graft/adapters/memory/pyra.hpp"
#include "graft/adapters/memory/s2a.hpp"
#include "graft/adapters/memory/sherl.hpp"
#include "graft/adapters/memory/unipt.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/optim/lomo.hpp"
#include "handlers.hpp"
#include "method_layer.hpp"

namespace conformance {
namespace {

using Wide = BasicTensor<double>;

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
    static const std::map<std::string, A> kinds{
        {"relu", A::relu},           {"silu", A::silu},         {"swish", A::silu},
        {"gelu", A::gelu},           {"tanh", A::tanh},         {"sigmoid", A::sigmoid},
        {"gelu_tanh", A::gelu_tanh}, {"gelu_new", A::gelu_tanh}};
    const auto found = kinds.find(config.function);
    if (found == kinds.end()) throw Unsupported{config.function};
    const A kind = found->second;
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

void run_predictor(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  graft::StandaloneInit<float> init(0);
  const auto input = tensor_of<float>(file, "x"),
             target = tensor_of<float>(file, "informativeness");
  graft::LeMoPredictor predictor(input.cols(), config.at("predictor_dim"),
                                 config.at("predictor_out"), init.context());
  const auto tensors = load_tensors(c, predictor);
  const auto loss = [&](Tape& tape) {
    return graft::mse(predictor(tape.constant(input)), tape.constant(target));
  };
  {
    Tape tape;
    check.compare("score", values_of(predictor(tape.constant(input)).value()),
                  graft::io::to_f64(file.at("score")));
    const auto found = loss(tape);
    check.compare("loss", values_of(found.value()), graft::io::to_f64(file.at("loss")));
    tape.backward(found);
    compare_tensor_gradients(check, file, tensors);
  }
  if (file.find("trace_loss") == nullptr) return;
  std::vector<graft::Parameter> parameters;
  for (const auto& [key, p] : tensors) parameters.push_back(p);
  graft::AdamW optimizer(parameters, {.learning_rate = 1e-2, .weight_decay = 0});
  optimizer.zero_grad();
  std::vector<float> trace;
  for (std::size_t step = 0; step < graft::io::to_f64(file.at("trace_loss")).size(); ++step) {
    Tape tape;
    const auto found = loss(tape);
    trace.push_back(found.item());
    tape.backward(found);
    optimizer.step();
    optimizer.zero_grad();
  }
  check.compare("trace_loss", trace, graft::io::to_f64(file.at("trace_loss")),
                c.json.value("/trace/tolerance"_json_pointer, check.tolerance()));
}

/// Parts of the adapter of a model case that are of one class.
template <class Part>
std::vector<const Part*> parts_of(graft::BasicAdapterModel<float>& adapters) {
  std::vector<const Part*> list;
  for (const auto& placed : adapters.at("default").parts())
    if (const auto* part = dynamic_cast<const Part*>(placed.part.get())) list.push_back(part);
  return list;
}
void run_density(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto result = run_method_model_case(c, {}, [&](Checker& inner, auto& adapters) {
    std::vector<double> penalty, density;
    for (const auto* watch : parts_of<graft::DensityWatch<float>>(adapters)) {
      penalty.push_back(watch->last_penalty());
      density.push_back(watch->last_density());
    }
    inner.compare("density_loss", penalty, graft::io::to_f64(file.at("density_loss")));
    inner.compare("density", density, graft::io::to_f64(file.at("density")));
  });
  check.merge(result, "");
}

void run_sherl_model(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto result = run_method_model_case(c, {}, [&](Checker& inner, auto& adapters) {
    inner.compare("weights",
                  values_of(parts_of<graft::SHERLStack<float>>(adapters).at(0)->last_weights()),
                  graft::io::to_f64(file.at("weights")));
  });
  check.merge(result, "");
}

void run_meft(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto result = run_method_model_case(c, {}, [&](Checker& inner, auto& adapters) {
    const auto& [one, two] = parts_of<graft::MEFTStack<float>>(adapters).at(0)->last_streams();
    inner.compare("stream1", values_of(one), graft::io::to_f64(file.at("stream1")));
    inner.compare("stream2", values_of(two), graft::io::to_f64(file.at("stream2")));
  });
  check.merge(result, "");
}

/// The parts of LeMo's and PYRA's stacks may be changed before the model runs.
template <class Part>
Part& part_of(graft::BasicAdapterModel<float>& adapters) {
  for (const auto& placed : adapters.at("default").parts())
    if (auto* part = dynamic_cast<Part*>(placed.part.get())) return *part;
  throw Unsupported{"adapter without its stack"};
}
void run_lemo(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto thresholds = graft::io::to_f64(file.at("thresholds"));
  const auto result = run_method_model_case(
      c,
      [&](auto& adapters) {
        auto& stack = part_of<graft::LeMoStack<float>>(adapters);
        stack.set_dense_inference(false);
        for (std::size_t l = 0; 2 * l < thresholds.size(); ++l) {
          stack.attention_thresholds().at(l) = thresholds[2 * l];
          stack.mlp_thresholds().at(l) = thresholds[2 * l + 1];
        }
      },
      [&](Checker& inner, auto& adapters) {
        const auto& stack = part_of<graft::LeMoStack<float>>(adapters);
        for (std::size_t l = 0; 2 * l < thresholds.size(); ++l)
          for (const bool attention : {true, false}) {
            const auto& seen = attention ? stack.seen_by_attention(static_cast<Index>(l))
                                         : stack.seen_by_mlp(static_cast<Index>(l));
            const std::string name = attention ? "attention" : "mlp";
            inner.compare(concat(name, "_score.", l), seen.score,
                          graft::io::to_f64(file.at(concat(name, "_score.", l))));
            const auto keep = graft::io::to_i64(file.at(concat(name, "_keep.", l)));
            inner.require(wide(seen.keep) == keep, concat("other blocks kept by ", name, " ", l));
          }
      });
  check.merge(result, "");
}
void run_pyra(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto result = run_method_model_case(c, {}, [&](Checker& inner, auto& adapters) {
    const auto& stack = part_of<graft::PYRAStack<float>>(adapters);
    for (Index l = 0; file.find(concat("sizes.", l)) != nullptr; ++l) {
      const auto& merged = stack.last_merged(l);
      inner.require(wide(merged.tokens) == graft::io::to_i64(file.at(concat("merged_tokens.", l))),
                    concat("other tokens merged in block ", l));
      inner.require(wide(merged.into) == graft::io::to_i64(file.at(concat("merged_into.", l))),
                    concat("tokens merged into others in block ", l));
      inner.compare(concat("sizes.", l), values_of(merged.sizes),
                    graft::io::to_f64(file.at(concat("sizes.", l))));
    }
  });
  check.merge(result, "");
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
  const auto steps = static_cast<Index>(file.at("gradient." + names.at(0)).shape.at(0));
  for (Index t = 0; t < steps; ++t) {
    for (std::size_t k = 0; k < names.size(); ++k)
      parameters[k].mutable_grad() = part(tensor_of<double>(file, "gradient." + names[k]), t);
    optimizer.step();
    optimizer.zero_grad();
    for (std::size_t k = 0; k < names.size(); ++k) {
      check.compare(concat("step ", t + 1, " of ", names[k]), values_of(parameters[k].value()),
                    values_of(part(tensor_of<double>(file, "after." + names[k]), t)));
      if constexpr (requires { optimizer.second_moment(parameters[k]); }) {
        const auto& moment = optimizer.second_moment(parameters[k]);
        const bool matrix = parameters[k].shape().rank() > 1;
        check.compare(concat("second moment ", t + 1), moment.row,
                      values_of(part(tensor_of<double>(file, matrix ? "row" : "vector"), t)));
        if (matrix)
          check.compare(concat("second moment ", t + 1), moment.column,
                        values_of(part(tensor_of<double>(file, "column"), t)));
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

const Handler memory_handlers[] = {
    {{.kind = "layer", .peft_type = "UNIPT"}, run_unipt},
    {{.kind = "layer", .peft_type = "SHERL"}, run_sherl},
    {{.kind = "transform", .peft_type = "S2A"}, run_coded_function},
    {{.kind = "layer", .peft_type = "S2A"}, run_side_module},
    {{.kind = "layer", .peft_type = "LEMO"}, run_predictor},
    {{.kind = "model", .peft_type = "DEFT_DENSITY"}, run_density},
    {{.kind = "model", .peft_type = "SHERL"}, run_sherl_model},
    {{.kind = "model", .peft_type = "LEMO"}, run_lemo},
    {{.kind = "model", .peft_type = "MEFT"}, run_meft},
    {{.kind = "model", .peft_type = "PYRA"}, run_pyra},
    {{.kind = "procedure", .peft_type = "LOMO"}, run_lomo},
    {{.kind = "procedure", .peft_type = "ADALOMO"}, run_adalomo},
};

}  // namespace
}  // namespace conformance
