// Quantisers, layers on quantised weights, and methods that train through a quantiser.
#include "graft/adapters/quantized/efficient_qat.hpp"
#include "graft/adapters/quantized/l4q.hpp"
#include "graft/adapters/quantized/lr_qat.hpp"
#include "graft/adapters/quantized/metis.hpp"
#include "graft/adapters/quantized/sketch_tune.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/layers/code4_linear.hpp"
#include "graft/layers/int8_linear.hpp"
#include "graft/quant/uniform.hpp"
#include "handlers.hpp"
#include "method_layer.hpp"

namespace conformance {
namespace {

using graft::Tensor;
namespace quant = graft::quant;

using Matrix = BasicTensor<double>;

template <class T>
std::span<const T> span_of(const BasicTensor<T>& t) {
  return {t.data(), static_cast<std::size_t>(t.size())};
}
template <class Integer>
std::vector<Integer> integers(const SafetensorsFile& file, const std::string& name) {
  const auto values = graft::io::to_i64(file.at(name));
  return std::vector<Integer>(values.begin(), values.end());
}
template <class Found>
void compare_integers(Checker& check, const SafetensorsFile& file, const std::string& name,
                      const Found& found) {
  const std::vector<std::int64_t> list(found.begin(), found.end());
  check.require(list == graft::io::to_i64(file.at(name)), "other integers in " + name);
}
void compare_values(Checker& check, const SafetensorsFile& file, const std::string& name,
                    const auto& found) {
  check.compare(name, found, graft::io::to_f64(file.at(name)));
}
double relative_error(std::span<const double> a, std::span<const double> b) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(error / size);
}

/// Every "out.<scheme><bits>.…" of a file, and the float and packed formats.
void run_primitives(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto w = tensor_of<double>(file, "in.weight");
  const std::string granularity = config_of(c).value("granularity", "row");
  const Json config = config_of(c);
  const Index group = granularity == "tensor"  ? w.size()
                      : granularity == "group" ? config.at("group_size").get<Index>()
                      : granularity == "row"
                          ? w.cols()
                          : throw Unsupported{concat("granularity ", granularity)};
  const auto has = [&](const std::string& name) { return file.find(name) != nullptr; };
  for (Index bits = 2; bits <= 8; ++bits) {
    if (const std::string name = concat("out.symmetric", bits); has(name + ".codes")) {
      const auto q = quant::quantise_symmetric(span_of(w), bits, group);
      compare_integers(check, file, name + ".codes", q.codes);
      compare_values(check, file, name + ".scale", q.scales);
      compare_values(check, file, name + ".weight", q.values());
    }
    if (const std::string name = concat("out.affine", bits); has(name + ".codes")) {
      const auto q = quant::quantise_affine(span_of(w), bits, group);
      compare_integers(check, file, name + ".codes", q.codes);
      compare_integers(check, file, name + ".zero", q.zeros);
      compare_values(check, file, name + ".scale", q.scales);
      compare_values(check, file, name + ".weight", q.values());
    }
    if (const std::string name = concat("out.packed", bits); has(name)) {
      const auto q = quant::quantise_affine(span_of(w), bits, group);
      const std::vector<std::uint8_t> codes(q.codes.begin(), q.codes.end());
      const auto packed = quant::pack_codes(codes, bits);
      compare_integers(check, file, name, packed);
      check.require(quant::unpack_codes(packed, bits, std::ssize(codes)) == codes,
                    "unpacked, the codes are others");
    }
  }
  const auto largest = [&](Index first) {
    double most = 0;
    for (Index i = first; i < std::min(first + group, w.size()); ++i)
      most = std::max(most, std::abs(w[i]));
    return most;
  };
  const auto floats = [&](const std::string& name, double top, const char* integers_name,
                          auto&& encode, auto&& decode) {
    if (!has(name + ".weight")) return;
    std::vector<double> scales, values;
    std::vector<std::uint8_t> codes;
    for (Index i = 0; i < w.size(); ++i) {
      if (i % group == 0) scales.push_back(largest(i) > 0 ? largest(i) / top : 1.0);
      codes.push_back(encode(w[i] / scales.back()));
      values.push_back(decode(codes.back()) * scales.back());
    }
    compare_integers(check, file, name + integers_name, codes);
    compare_values(check, file, name + ".weight", values);
    if (has(name + ".scale")) compare_values(check, file, name + ".scale", scales);
  };
  floats(
      "out.fp4", 6, ".codes", [](double v) { return quant::e2m1_code(v); },
      [](std::uint8_t code) { return quant::e2m1_value(code); });
  for (const auto format : {quant::Float8::e4m3, quant::Float8::e5m2})
    floats(
        format == quant::Float8::e4m3 ? "out.fp8_e4m3" : "out.fp8_e5m2",
        quant::largest_value(format), ".bytes",
        [&](double v) { return quant::float8_byte(format, v); },
        [&](std::uint8_t byte) { return quant::float8_value(format, byte); });
}

void run_code4(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto w = tensor_of<float>(file, "in.weight");
  quant::Code4Options options{.book = config.value("quant_type", "nf4") == "fp4"
                                          ? quant::CodeBook::fp4
                                          : quant::CodeBook::nf4,
                              .block = config.value("blocksize", Index{64}),
                              .scale_group = config.value("nested_blocksize", Index{256})};
  const auto plain = quant::encode_4bit(span_of(w), options);
  compare_integers(check, file, "out.packed", plain.codes);
  compare_integers(check, file, "out.codes", quant::unpack_codes(plain.codes, 4, plain.size));
  compare_values(check, file, "out.absmax", plain.scales);
  const auto values = quant::decode_4bit(plain);
  compare_values(check, file, "out.weight", values);
  const std::vector<double> exact(w.begin(), w.end());
  const auto error = [&](const std::string& name, const std::vector<float>& found) {
    const std::vector<double> wide(found.begin(), found.end());
    compare_values(check, file, name, std::vector<double>{relative_error(wide, exact)});
  };
  error("out.relative_error", values);
  if (file.find("out.nested_weight") == nullptr) return;
  options.double_quantised = true;
  const auto nested = quant::encode_4bit(span_of(w), options);
  compare_integers(check, file, "out.absmax_codes", nested.scale_codes);
  compare_values(check, file, "out.nested_absmax", nested.scale_scales);
  compare_values(check, file, "out.offset", std::vector<float>{nested.scale_offset});
  compare_values(check, file, "out.nested_code", quant::dynamic_code_values());
  compare_values(check, file, "out.nested_weight", quant::decode_4bit(nested));
  error("out.nested_relative_error", quant::decode_4bit(nested));
}

void run_llm_int8(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const float threshold = config_of(c).value("threshold", 6.0F);
  const auto w = tensor_of<float>(file, "in.weight"), x = tensor_of<float>(file, "in.x"),
             bias = tensor_of<float>(file, "in.bias"), dy = tensor_of<float>(file, "in.dy");
  const auto codes = quant::encode_int8(span_of(w), w.rows(), w.cols());
  compare_integers(check, file, "out.codes", codes.codes);
  auto absmax = codes.scales;
  for (Index o = 0; o < w.rows(); ++o) absmax[static_cast<std::size_t>(o)] *= 127;
  compare_values(check, file, "out.row_absmax", absmax);
  compare_values(check, file, "out.dequantised", quant::decode_int8(codes));
  const auto forward = [&](const graft::Int8Linear& layer) {
    auto y = Tensor::empty({x.rows(), w.rows()});
    layer.forward(x.matrix(), y.matrix());
    return y;
  };
  compare_values(check, file, "out.weight_only_y",
                 forward(graft::Int8Linear(codes, bias, {.threshold = 0, .weight_only = true})));
  for (const auto& [name, limit] :
       {std::pair<std::string, float>{"vectorwise", 0.0F}, {"decomposed", threshold}}) {
    const graft::Int8Linear layer(codes, bias, {.threshold = limit});
    compare_values(check, file, "out." + name + ".y", forward(layer));
    const auto rows = graft::encode_int8_rows(x.matrix(), limit);
    compare_integers(check, file, "out." + name + ".x_codes", rows.codes);
    std::vector<int> outliers(static_cast<std::size_t>(w.cols()), 0);
    for (const Index j : rows.outliers) outliers[static_cast<std::size_t>(j)] = 1;
    compare_integers(check, file, "out." + name + ".outliers", outliers);
    auto dx = Tensor::empty(x.shape());
    layer.backward_input(dy.matrix(), dx.matrix(), nullptr, false);
    compare_values(check, file, "out.dx", dx);
  }
}

/// LoRA on a layer in 4 bits.
void run_qlora(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json format = config_of(c).value("base_quantisation", Json::object());
  const auto& shape = file.at("codes").shape;
  quant::Code4Array codes;
  codes.book =
      format.value("quant_type", "nf4") == "fp4" ? quant::CodeBook::fp4 : quant::CodeBook::nf4;
  codes.block = format.value("blocksize", Index{64});
  codes.scale_group = format.value("nested_blocksize", Index{256});
  codes.size = static_cast<Index>(shape.at(0) * shape.at(1));
  codes.codes = quant::pack_codes(integers<std::uint8_t>(file, "codes"), 4);
  if (file.find("absmax_codes") != nullptr) {
    codes.scale_codes = integers<std::uint8_t>(file, "absmax_codes");
    codes.scale_scales = graft::io::to_f32(file.at("nested_absmax"));
    codes.scale_offset = graft::io::to_f32(file.at("offset")).at(0);
  } else {
    codes.scales = graft::io::to_f32(file.at("absmax"));
  }
  const graft::Code4Linear layer(codes, static_cast<Index>(shape.at(0)),
                                 static_cast<Index>(shape.at(1)), tensor_of<float>(file, "bias"));
  graft::LinearSite site(single_target(c.folder), layer);
  graft::BasicSiteTable<float> table;
  table.linear = {&site};
  table.info.architecture = "toy";
  graft::AdapterModel model(table, methods<float>());
  model.load("default", c.folder);
  const auto x = tensor_of<float>(file, "x");
  {
    graft::Tape tape;
    const auto leaf = tape.leaf(x);
    const auto y = site(leaf);
    compare_values(check, file, "y", y.value());
    tape.backward(y, tensor_of<float>(file, "dy"));
    compare_values(check, file, "dx", leaf.grad());
    compare_gradients(check, gradients_of(model, {"default"}), file, "grad.");
  }
  model.merge({.dequantize = true});
  compare_values(check, file, "merged_weight", site.base().dense_weight());
  graft::Tape tape({.gradients = false});
  compare_values(check, file, "y", site(tape.constant(x)).value());
}

void run_lsq(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const double top = std::exp2(config_of(c).at("bits").get<double>() - 1);
  LoadedTensors<double> tensors;
  for (const auto& view : saved.tensors())
    tensors[view.name] = graft::BasicParameter<double>(tensor_of<double>(saved, view.name));
  graft::BasicTape<double> tape;
  const auto x = tape.leaf(tensor_of<double>(file, "x"));
  const auto w =
      graft::lsq_quantise(tape.parameter(tensors.at("base_model.model.weight")),
                          tape.parameter(tensors.at("base_model.model.scale")), {}, -top, top - 1);
  const auto y = affine(x, w, tensor_of<double>(file, "bias"));
  compare_values(check, file, "y", y.value());
  tape.backward(y, tensor_of<double>(file, "dy"));
  compare_values(check, file, "dx", x.grad());
  compare_tensor_gradients(check, file, tensors);
}

/// A layer whose frozen weight a case tells in another way: zeros of its shape.
graft::DenseLinear placeholder(const SafetensorsFile& file) {
  return graft::DenseLinear(Tensor::zeros({static_cast<Index>(file.at("y").shape.back()),
                                           static_cast<Index>(file.at("x").shape.back())}),
                            tensor_of<float>(file, "bias"));
}
template <class Method>
Method make_method(const Case& c, const graft::DenseLinear& layer) {
  graft::StandaloneInit<float> init(0);
  init.context().loading = true;
  return Method(read_config_of<typename Method::Config>(c), site_of(layer), init.context());
}

void run_l4q(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  const graft::DenseLinear layer(tensor_of<float>(file, "weight"), tensor_of<float>(file, "bias"));
  auto method = make_method<graft::L4Q>(c, layer);
  const auto tensors = load_tensors(c, method);
  compare_method(check, file, layer, method, tensors);
  if (file.find("merged_codes") != nullptr)
    compare_integers(check, file, "merged_codes", method.codes(layer.dense_weight()));
}

void run_lr_qat(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  const auto layer = placeholder(file);
  auto method = make_method<graft::LRQAT>(c, layer);
  const auto config = read_config_of<graft::LRQATConfig>(c);
  method.set_fixed_point(integers<std::int8_t>(file, "fixed_point"),
                         config.downcast == "int" ? 0 : config.fraction_bits());
  compare_method(check, file, layer, method, load_tensors(c, method));
  if (file.find("merged_codes") != nullptr)
    compare_integers(check, file, "merged_codes", method.codes());
}

void run_lr_qat_init(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::LRQATConfig>(c);
  const graft::BasicDenseLinear<double> layer(tensor_of<double>(file, "in.weight"));
  const Index in = layer.in_features();
  const Index group = config.group_size == 0 ? in : config.group_size;
  Matrix errors;
  const auto scale = graft::lr_qat_scale(layer.dense_weight(), config.bits, group, config.p,
                                         config.ratios, &errors);
  compare_values(check, file, "out.scale", values_of(scale));
  compare_values(check, file, "out.error", values_of(errors));
  const graft::BasicLRQAT<double> method(config, layer);
  compare_integers(check, file, "out.fixed_point", method.fixed_point());
}

void run_efficient_qat(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  const auto layer = placeholder(file);
  auto method = make_method<graft::EfficientQAT>(c, layer);
  if (file.find("codes") != nullptr)
    method.set_codes(integers<std::uint8_t>(file, "codes"), integers<std::uint8_t>(file, "zeros"),
                     layer.in_features());
  const auto tensors = load_tensors(c, method);
  compare_method(check, file, layer, method, tensors);
  if (file.find("in.target") == nullptr) return;
  // Mean squared error of the layer against its float outputs.
  for (const auto& [key, p] : tensors) p.zero_grad();
  graft::Tape tape;
  const auto x = tape.leaf(tensor_of<float>(file, "x"));
  const auto loss =
      graft::mse(method.apply(layer, x), tape.constant(tensor_of<float>(file, "in.target")));
  compare_values(check, file, "aux.reconstruction", loss.value());
  tape.backward(loss);
  compare_values(check, file, "dx_aux", x.grad());
  compare_tensor_gradients(check, file, tensors, "grad_aux.");
}

void run_sketch(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  const auto layer = placeholder(file);
  auto method = make_method<graft::SketchTune>(c, layer);
  method.set_codes(integers<std::uint8_t>(file, "codes"));
  compare_method(check, file, layer, method, load_tensors(c, method));
}

void run_sketch_learning(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::SketchTuneConfig>(c);
  const auto w = tensor_of<double>(file, "in.weight"),
             x = tensor_of<double>(file, "in.calibration");
  std::vector<double> importance;
  if (x) {
    auto gram = Matrix::empty({x.cols(), x.cols()});
    graft::kernels::gemm(true, false, x.cols(), x.cols(), x.rows(), 1.0, x.data(), x.cols(),
                         x.data(), x.cols(), 0.0, gram.data(), x.cols());
    importance = graft::sketch_importance(graft::sketch_inverse_hessian(gram, config.damping),
                                          config.importance_power);
    compare_values(check, file, "out.importance", importance);
  }
  const auto sketch =
      graft::learn_sketch(w, config, importance, tensor_of<double>(file, "in.initial_table"));
  compare_values(check, file, "out.table", values_of(sketch.table));
  compare_integers(check, file, "out.codes", sketch.codes);
  compare_values(check, file, "out.loss", std::vector<double>{sketch.loss});
}

void run_metis_quantiser(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::MetisConfig>(c);
  const auto w = tensor_of<double>(file, "in.weight");
  const auto direct = quant::fp4_blocks(w, config.block_size);
  compare_values(check, file, "out.fp4", values_of(direct));
  if (const auto uniform = tensor_of<double>(file, "in.uniform"))
    compare_values(check, file, "out.fp4_stochastic",
                   values_of(quant::fp4_blocks(w, config.block_size, uniform)));
  const auto part = quant::spectral_split(w, config.rank);
  compare_values(check, file, "out.left", values_of(part.u));
  compare_values(check, file, "out.right", values_of(part.v));
  compare_values(check, file, "out.singular_values", values_of(part.s));
  compare_values(check, file, "out.residual", values_of(part.residual));
  compare_values(check, file, "out.left_quantised",
                 values_of(transposed(quant::fp4_blocks(transposed(part.u), config.block_size))));
  compare_values(check, file, "out.right_quantised",
                 values_of(quant::fp4_blocks(part.v, config.block_size)));
  quant::SpectralOptions options{.rank = config.rank, .block = config.block_size};
  const auto spectral = quant::spectral_quantise(w, options);
  compare_values(check, file, "out.spectral_quantised", values_of(spectral));
  options.schedule_from = config.schedule_from;
  compare_values(check, file, "out.adaptive", values_of(quant::spectral_quantise(w, options)));
  compare_values(check, file, "out.direct_error",
                 std::vector<double>{relative_error(span_of(direct), span_of(w))});
  compare_values(check, file, "out.spectral_error",
                 std::vector<double>{relative_error(span_of(spectral), span_of(w))});
}

/// Transforms of the quantisers, by what the case asks for.
void run_quantiser(Checker& check, const Case& c) {
  const Json config = config_of(c);
  if (config.contains("quant_type"))
    run_code4(check, c);
  else if (config.contains("threshold"))
    run_llm_int8(check, c);
  else
    run_primitives(check, c);
}

const Handler quantized_handlers[] = {
    {{.kind = "transform", .peft_type = "QUANTISER"}, run_quantiser},
    {{.kind = "layer", .peft_type = "QUANTISER"}, run_lsq},
    {{.kind = "layer", .peft_type = "LORA", .has = "absmax"}, run_qlora},
    {{.kind = "layer", .peft_type = "LORA", .has = "absmax_codes"}, run_qlora},
    {{.kind = "layer", .peft_type = "L4Q"}, run_l4q},
    {{.kind = "layer", .peft_type = "LR_QAT"}, run_lr_qat},
    {{.kind = "transform", .peft_type = "LR_QAT"}, run_lr_qat_init},
    {{.kind = "layer", .peft_type = "EFFICIENT_QAT"}, run_efficient_qat},
    {{.kind = "layer", .peft_type = "SKETCHTUNE"}, run_sketch},
    {{.kind = "transform", .peft_type = "SKETCHTUNE"}, run_sketch_learning},
    {{.kind = "transform", .peft_type = "METIS"}, run_metis_quantiser},
};

}  // namespace
}  // namespace conformance
