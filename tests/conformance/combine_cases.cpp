// Weighted combinations of adapters, conversions, and the arithmetic of task vectors.
#include "graft/compose/combine.hpp"

#include <limits>

#include "graft/adapters/named_activation.hpp"
#include "graft/compose/compressed_update.hpp"
#include "graft/compose/convert.hpp"
#include "graft/quant/int8.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::AdapterModel;
using graft::Tensor;

/// B A · scaling of every layer of a LoRA against the tensors "<path><suffix>" of the file.
void check_products(Checker& check, const graft::AdapterSet<float>& set,
                    const SafetensorsFile& file, const std::string& suffix,
                    const std::string& what) {
  for (const auto& [path, site] : graft::detail::lora_factors(set)) {
    const auto* view = file.find(path + suffix);
    if (view == nullptr) continue;
    auto product = graft::product_of(site.factors, site.scaling);
    // PEFT has the update of an embedding or of a GPT-2 Conv1D the other way round.
    const auto rows = static_cast<std::size_t>(product.rows()),
               cols = static_cast<std::size_t>(product.cols());
    if (view->shape.size() == 2 && rows != cols && static_cast<std::size_t>(view->shape[0]) == cols)
      product = graft::transposed(product);
    check.compare(what + path + suffix, values_of(product), graft::io::to_f64(*view));
  }
}

template <class T>
std::vector<BasicTensor<T>> rows_of(const BasicTensor<T>& stack) {
  std::vector<BasicTensor<T>> list;
  Shape shape;
  for (int axis = 1; axis < static_cast<int>(stack.rank()); ++axis) shape.append(stack.dim(axis));
  const Index size = stack.size() / stack.dim(0);
  for (Index t = 0; t < stack.dim(0); ++t)
    list.push_back(BasicTensor<T>::from(
        std::span<const T>(stack.data() + t * size, static_cast<std::size_t>(size)), shape));
  return list;
}
template <class T>
std::vector<double> joined(const std::vector<BasicTensor<T>>& list) {
  std::vector<double> all;
  for (const auto& t : list) all.insert(all.end(), t.begin(), t.end());
  return all;
}

/// The tensors of a task, one in each of the lists, pruned as one: end to end.
Tensor pruned_together(const std::vector<std::vector<Tensor>>& lists, std::size_t task,
                       double density) {
  std::vector<Tensor> own;
  for (const auto& list : lists) own.push_back(list[task]);
  const auto all = joined(own);
  return graft::keep_largest(Tensor::from(all, {static_cast<Index>(all.size())}), density);
}

/// The tensors of one transform case.
struct Transform {
  explicit Transform(const Case& c)
      : file(SafetensorsFile::open(c.folder / "case.safetensors")), config(c.json.at("config")) {}
  Tensor in(const std::string& name) const {
    auto t = tensor_of<float>(file, "in." + name);
    if (!t) throw Unsupported{"no tensor in." + name};
    return t;
  }
  bool has(const std::string& name) const { return file.find(name) != nullptr; }
  template <class A>
  void compare(Checker& check, const std::string& name, const A& found) const {
    if (const auto* view = file.find("out." + name))
      check.compare("out." + name, found, graft::io::to_f64(*view));
  }
  std::vector<double> weights(std::size_t count) const {
    if (!config.contains("weights")) return std::vector<double>(count, 1.0);
    return config.at("weights").get<std::vector<double>>();
  }
  /// in.<name>.0, in.<name>.1, …
  std::vector<Tensor> numbered(const std::string& name) const {
    std::vector<Tensor> list;
    for (int i = 0; has(concat("in.", name, ".", i)); ++i) list.push_back(in(concat(name, ".", i)));
    return list;
  }
  SafetensorsFile file;
  Json config;
};

std::vector<unsigned char> flags(const SafetensorsFile& file, const std::string& name) {
  std::vector<unsigned char> list;
  for (const auto v : graft::io::to_i64(file.at(name)))
    list.push_back(static_cast<unsigned char>(v != 0));
  return list;
}

/// The adapter_model of the case: factors of a result.
void check_adapter(Checker& check, const Case& c, const std::string& ending, const Tensor& value) {
  const auto file = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  for (const auto& view : file.tensors())
    if (view.name.ends_with(ending))
      check.compare(view.name, values_of(value), graft::io::to_f64(view));
}

void module_arithmetic(Checker& check, const Case& c) {
  const Transform t(c);
  const auto a = rows_of(t.in("A")), b = rows_of(t.in("B")), l = rows_of(t.in("ia3"));
  const auto weights = t.weights(a.size());
  std::vector<int> signs(a.size(), 1);
  if (t.config.contains("signs")) signs = t.config.at("signs").get<std::vector<int>>();
  const auto sum_a = graft::weighted_sum(a, weights);
  const auto sum_b = graft::signed_sum(b, weights, signs);
  t.compare(check, "A", values_of(sum_a));
  t.compare(check, "B", values_of(sum_b));
  check_adapter(check, c, "lora_A.weight", sum_a);
  check_adapter(check, c, "lora_B.weight", sum_b);
  t.compare(check, "ia3", values_of(graft::signed_sum(l, weights, signs, 1.0)));
  t.compare(check, "negated_A", values_of(a[0]));
  t.compare(check, "negated_B", values_of(graft::signed_sum<float>({b[0]}, {1.0}, {-1})));
  t.compare(check, "negated_ia3", values_of(graft::signed_sum<float>({l[0]}, {1.0}, {-1}, 1.0)));
}

void task_arithmetic(Checker& check, const Case& c) {
  const Transform t(c);
  const auto a = t.numbered("A"), b = t.numbered("B");
  const auto scaling = t.config.at("scaling").get<std::vector<double>>();
  auto weights = t.weights(a.size());
  std::vector<graft::UpdateFactors<float>> list;
  for (std::size_t k = 0; k < a.size(); ++k) {
    list.push_back({a[k], b[k]});
    weights[k] *= scaling.at(k);
  }
  const auto cat = graft::concatenated_factors(list, weights);
  t.compare(check, "cat_A", values_of(cat.a));
  t.compare(check, "cat_B", values_of(cat.b));
  check_adapter(check, c, "lora_A.weight", cat.a);
  check_adapter(check, c, "lora_B.weight", cat.b);
  const auto delta = graft::product_of(cat);
  t.compare(check, "delta", values_of(delta));
  if (t.has("in.weight")) {
    auto merged = t.in("weight");
    for (Index i = 0; i < merged.size(); ++i) merged[i] += delta[i];
    t.compare(check, "merged_weight", values_of(merged));
  }
  std::vector<double> wa, wb;
  for (const double w : weights) {
    wb.push_back(std::sqrt(std::abs(w)));
    wa.push_back(w < 0 ? -wb.back() : wb.back());
  }
  const auto la = t.numbered("linear_A"), lb = t.numbered("linear_B");
  if (la.empty()) return;
  t.compare(check, "linear_A", values_of(graft::weighted_sum(la, wa)));
  t.compare(check, "linear_B", values_of(graft::weighted_sum(lb, wb)));
}

void ties(Checker& check, const Case& c) {
  const Transform t(c);
  const double density = t.config.value("density", 0.2), lambda = t.config.value("lambda", 1.0);
  const auto method = t.config.value("majority_sign_method", std::string("total"));
  const bool global = t.config.value("scope", std::string("tensor")) != "tensor";
  const auto stacks = t.numbered("tau");
  // The tasks' tensors, trimmed each alone or a task's all together.
  std::vector<std::vector<Tensor>> tasks;
  for (const auto& stack : stacks) tasks.push_back(rows_of(stack));
  if (global) {
    for (std::size_t task = 0; task < tasks.at(0).size(); ++task) {
      const auto kept = pruned_together(tasks, task, density);
      Index start = 0;
      for (auto& list : tasks) {
        const Index size = list[task].size();
        list[task] = Tensor::from(
            std::span<const float>(kept.data() + start, static_cast<std::size_t>(size)),
            list[task].shape());
        start += size;
      }
    }
  } else {
    for (auto& list : tasks)
      for (auto& task : list) task = graft::keep_largest(task, density);
  }
  for (std::size_t k = 0; k < tasks.size(); ++k) {
    t.compare(check, concat("trimmed.", k), joined(tasks[k]));
    const auto signs = graft::elect_signs(tasks[k], method);
    t.compare(check, concat("sign.", k), values_of(signs));
    const auto merged = graft::disjoint_mean(tasks[k], t.weights(tasks[k].size()), signs);
    t.compare(check, concat("merged.", k), values_of(merged));
    if (!t.has(concat("in.theta.", k))) continue;
    auto theta = t.in(concat("theta.", k));
    for (Index i = 0; i < theta.size(); ++i) theta[i] += static_cast<float>(lambda) * merged[i];
    t.compare(check, concat("theta.", k), values_of(theta));
  }
}

void dare(Checker& check, const Case& c) {
  const Transform t(c);
  auto tasks = rows_of(t.in("tau"));
  const auto mask = flags(t.file, "in.mask");
  const double density = t.config.value("density", 0.1);
  std::size_t start = 0;
  for (auto& task : tasks) {
    const auto size = static_cast<std::size_t>(task.size());
    task = graft::drop_and_rescale(task, std::span<const unsigned char>(mask).subspan(start, size),
                                   density);
    start += size;
  }
  const auto weights = t.weights(tasks.size());
  t.compare(check, "rescaled", joined(tasks));
  t.compare(check, "dare_linear", values_of(graft::weighted_sum(tasks, weights)));
  const auto method = t.config.value("majority_sign_method", std::string("total"));
  t.compare(check, "dare_ties",
            values_of(graft::disjoint_mean(tasks, weights, graft::elect_signs(tasks, method))));
}

void run_breadcrumbs(Checker& check, const Case& c) {
  const Transform t(c);
  const auto tasks = rows_of(t.in("tau"));
  graft::Breadcrumbs options;
  options.keep = t.config.value("keep", options.keep);
  options.remove = t.config.value("remove", options.remove);
  for (const bool first : {true, false})
    for (const bool row : {true, false}) {
      options.remove_first = first;
      options.by_row = row;
      const std::string name =
          concat(first ? "remove_first." : "keep_first.", row ? "row" : "tensor");
      std::vector<double> masks;
      for (const auto& task : tasks) {
        const auto mask = graft::breadcrumbs_mask(task, options);
        masks.insert(masks.end(), mask.begin(), mask.end());
      }
      t.compare(check, name + ".mask", masks);
      const auto sum = graft::breadcrumbs(tasks, options, t.config.value("alpha", 0.3));
      auto theta = t.in("theta");
      for (Index i = 0; i < theta.size(); ++i) theta[i] += sum[i];
      t.compare(check, name + ".theta", values_of(theta));
    }
}

void run_copa(Checker& check, const Case& c) {
  const Transform t(c);
  graft::Copa options;
  options.density = t.config.value("density", options.density);
  options.attention_ratio = t.config.value("attention_ratio", options.attention_ratio);
  options.scale = t.config.value("scale", options.scale);
  const auto result = graft::copa(rows_of(t.in("A")), rows_of(t.in("B")), options);
  std::vector<double> scales;
  for (const auto& s : result.scales) scales.insert(scales.end(), s.begin(), s.end());
  t.compare(check, "scale", scales);
  t.compare(check, "A", values_of(result.a));
  t.compare(check, "B", values_of(result.b));
  check_adapter(check, c, "lora_A.weight", result.a);
  check_adapter(check, c, "lora_B.weight", result.b);
  if (!t.has("in.other")) return;
  const auto other = rows_of(t.in("other"));
  const double share = 1.0 / static_cast<double>(other.size());
  t.compare(check, "other",
            values_of(graft::weighted_sum(other, std::vector<double>(other.size(), share))));
}

void compeft(Checker& check, const Case& c) {
  const Transform t(c);
  const auto all = joined(t.numbered("tau"));
  const double density = t.config.value("density", 0.2);
  const auto update =
      graft::compress_update(std::span<const double>(all), density, t.config.value("alpha", 1.0));
  t.compare(check, "scale", std::vector<double>{update.scale});
  t.compare(check, "sign", update.sign);
  t.compare(check, "values", update.values());
  t.compare(check, "positive_mask", graft::sign_mask(update, 1));
  t.compare(check, "negative_mask", graft::sign_mask(update, -1));
  const int parameter = graft::rice_parameter(density);
  const auto stream = graft::rice_encode(update, parameter);
  t.compare(check, "rice_parameter", std::vector<int>{parameter});
  t.compare(check, "rice_bits", std::vector<Index>{stream.bits});
  t.compare(check, "rice_bytes", stream.bytes);
  check.require(graft::rice_decode(stream.bytes, parameter, std::ssize(update.sign),
                                   update.count()) == update.sign,
                "decoding gives other signs");
  if (t.has("in.second")) {
    const auto second = t.in("second");
    // Signs and scale of the second vector: given compressed, or compressed here.
    const auto given = values_of(second);
    const auto other = graft::compress_update(std::span<const double>(given), density,
                                              t.config.value("alpha", 1.0));
    t.compare(check, "dot_with_second", std::vector<double>{graft::dot(update, other)});
  }
  const auto file = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  for (const auto& view : file.tensors())
    if (view.name.ends_with("compeft_sign"))
      check.compare(view.name, update.sign, graft::io::to_f64(view));
    else if (view.name.ends_with("compeft_scale"))
      check.compare(view.name, std::vector<double>{update.scale}, graft::io::to_f64(view));
}

void magnitude_prune(Checker& check, const Case& c) {
  const Transform t(c);
  const double density = t.config.value("density", 0.2);
  std::vector<std::vector<Tensor>> tasks;
  for (const auto& stack : t.numbered("tau")) tasks.push_back(rows_of(stack));
  for (std::size_t k = 0; k < tasks.size(); ++k) {
    std::vector<Tensor> pruned;
    for (const auto& task : tasks[k]) pruned.push_back(graft::keep_largest(task, density));
    t.compare(check, concat("tensor.pruned.", k), joined(pruned));
    t.compare(check, concat("tensor.merged.", k),
              values_of(graft::weighted_sum(pruned, t.weights(pruned.size()))));
  }
  std::vector<double> global;
  for (std::size_t task = 0; task < tasks.at(0).size(); ++task) {
    const auto kept = pruned_together(tasks, task, density);
    global.insert(global.end(), kept.begin(), kept.end());
  }
  t.compare(check, "global.pruned", global);
}

void svd_recombination(Checker& check, const Case& c) {
  const Transform t(c);
  const auto a = t.numbered("A"), b = t.numbered("B");
  const auto scaling = t.config.at("scaling").get<std::vector<double>>();
  std::vector<Tensor> deltas;
  for (std::size_t k = 0; k < a.size(); ++k)
    deltas.push_back(graft::product_of(graft::UpdateFactors<float>{a[k], b[k]}, scaling.at(k)));
  auto kind = t.config.value("combination_type", std::string("svd"));
  graft::CombineRule rule;
  rule.kind = kind == "svd" ? "linear" : kind.substr(0, kind.size() - 4);
  rule.density = t.config.value("density", 1.0);
  rule.majority_sign_method = t.config.value("majority_sign_method", std::string("total"));
  graft::TorchGenerator generator(0);
  const auto delta = graft::combine_tasks(rule, deltas, t.weights(deltas.size()), generator);
  t.compare(check, "delta", values_of(delta));
  graft::BasicTensor<double> spectrum;
  const auto rank = t.config.at("svd_rank").get<Index>();
  const auto factors = graft::truncated_factors(delta, graft::RankChoice{rank, 0}, 0, &spectrum);
  t.compare(check, "singular_values", values_of(spectrum));
  t.compare(check, "product", values_of(graft::product_of(factors)));
  double dropped = 0, total = 0;
  for (Index k = 0; k < spectrum.size(); ++k) {
    total += spectrum[k] * spectrum[k];
    if (k >= rank) dropped += spectrum[k] * spectrum[k];
  }
  // Zero where the rank suffices: relative to all of the update.
  if (const auto* view = t.file.find("out.squared_error"))
    check.compare("out.squared_error", std::vector<double>{total + dropped},
                  std::vector<double>{total + graft::io::to_f64(*view).at(0)});
}

void adapter_stack(Checker& check, const Case& c) {
  const Transform t(c);
  std::vector<graft::BottleneckTensors<float>> list;
  for (int i = 0; t.has(concat("in.down.", i)); ++i)
    list.push_back({t.in(concat("down.", i)), t.in(concat("down_bias.", i)), t.in(concat("up.", i)),
                    t.in(concat("up_bias.", i))});
  const auto wide = graft::stack_bottlenecks(list, t.weights(list.size()));
  t.compare(check, "down", values_of(wide.down));
  t.compare(check, "down_bias", values_of(wide.down_bias));
  t.compare(check, "up", values_of(wide.up));
  t.compare(check, "up_bias", values_of(wide.up_bias));
  graft::Tape tape({.gradients = false});
  const auto h = graft::detail::apply_activation(
      t.config.value("act_fn", std::string("relu")),
      graft::linear(graft::DenseLinear(wide.down, wide.down_bias), tape.constant(t.in("x"))));
  t.compare(check, "y",
            values_of(graft::linear(graft::DenseLinear(wide.up, wide.up_bias), h).value()));
}

void quantised_merge(Checker& check, const Case& c) {
  const Transform t(c);
  const auto weight = t.in("weight");
  if (t.config.value("base_quantisation", std::string("int8_rowwise")) != "int8_rowwise")
    throw Unsupported{"base_quantisation"};
  const auto base = graft::quant::encode_int8(weight.span(), weight.rows(), weight.cols());
  t.compare(check, "base_weight", graft::quant::decode_int8(base));
  const double scaling = t.config.at("lora_alpha").get<double>() / t.config.at("r").get<double>();
  const auto delta = graft::product_of(graft::UpdateFactors<float>{t.in("A"), t.in("B")}, scaling);
  const auto merged = graft::quant::merge_int8(base, delta.span());
  t.compare(check, "merged_float", merged.merged);
  t.compare(check, "codes", merged.matrix.codes);
  std::vector<double> absmax;
  for (const float s : merged.matrix.scales) absmax.push_back(static_cast<double>(s) * 127);
  t.compare(check, "row_absmax", absmax);
  t.compare(check, "relative_error", std::vector<double>{merged.relative_error});
}

const Handler module_arithmetic_cases({.kind = "transform", .method = "arithmetic of modules"},
                                      module_arithmetic);
const Handler task_arithmetic_cases({.kind = "transform",
                                     .method = "task arithmetic: rank concatenation and linear"},
                                    task_arithmetic);
const Handler ties_cases({.kind = "transform", .method = "TIES"}, ties);
const Handler dare_cases({.kind = "transform", .method = "DARE"}, dare);
const Handler breadcrumbs_cases({.kind = "transform", .method = "Model Breadcrumbs"},
                                run_breadcrumbs);
const Handler copa_cases({.kind = "transform", .method = "CoPA-Merging (RobustMerge)"}, run_copa);
const Handler compeft_cases({.kind = "transform", .method = "ComPEFT"}, compeft);
const Handler prune_cases({.kind = "transform", .method = "magnitude pruning of modules"},
                          magnitude_prune);
const Handler svd_cases({.kind = "transform", .method = "SVD recombination"}, svd_recombination);
const Handler stack_cases({.kind = "transform", .method = "stacking of parallel adapters"},
                          adapter_stack);
const Handler quantised_cases({.kind = "transform", .method = "merge into a quantised base"},
                              quantised_merge);

}  // namespace

/// PEFT's combination and ours of the same adapters; the exact one too.
Result run_combination_case(const Case& c) {
  const auto file = tensors_of(c);
  Checker check(tolerance_of(c.json));
  Toy<float> toy(c.json.value("module", Json()), file, single_target(c.folder));
  const auto in = toy.inputs(file);
  AdapterModel model(toy.sites(), methods<float>());
  auto names = c.json.at("adapters").get<std::vector<std::string>>();
  const std::string result = names.back();
  names.pop_back();
  for (const auto& name : names) model.load(name, c.folder / name);
  const auto weights = c.json.at("weights").get<std::vector<double>>();
  const auto options = c.json.value("options", Json::object());
  graft::CombineOptions combine;
  combine.combination_type = c.json.at("combination_type").get<std::string>();
  combine.density = options.value("density", combine.density);
  combine.majority_sign_method =
      options.value("majority_sign_method", combine.majority_sign_method);
  combine.svd_rank = options.value("svd_rank", combine.svd_rank);
  combine.svd_clamp = options.value("svd_clamp", combine.svd_clamp);
  auto& own = graft::add_weighted_adapter(model, names, weights, "own", combine);
  check_products(check, own, file, ".result_delta", "");
  auto& exact = graft::add_weighted_adapter(model, names, weights, "exact");
  check_products(check, exact, file, ".delta", "exact ");
  const auto& peft = model.load(result, c.folder / result);
  if (!combine.combination_type.ends_with("svd")) {
    const auto mine = graft::detail::parameters_by_key(own);
    for (const auto& [key, parameter] : graft::detail::parameters_by_key(peft))
      if (const auto it = mine.find(key); it != mine.end())
        check.compare(key, values_of(it->second.value()), values_of(parameter.value()));
      else
        check.fail(key, concat("no tensor ", key));
  }
  model.activate({"own"});
  check_outputs(check, toy, in, file, "y");
  const auto before = forward(toy, in);
  const ScratchFolder scratch;
  model.save("own", scratch.path);
  model.load("again", scratch.path);
  check.require(forward(toy, in) == before, "saved and loaded again, the result differs");
  model.activate({result});
  check_gradients(check, toy, model, file, in, false, {result}, c.json);
  return check.result();
}

/// source/ → lora/ by singular values; initial/ and trained/ → converted/ on the original weights.
Result run_conversion_case(const Case& c) {
  const auto file = tensors_of(c);
  Checker check(tolerance_of(c.json));
  Toy<float> toy(c.json.value("module", Json()), file, single_target(c.folder));
  const auto in = toy.inputs(file);
  AdapterModel model(toy.sites(), methods<float>());
  if (fs::exists(c.folder / "converted")) {
    const ScratchFolder scratch;
    graft::convert_to_original_weights(c.folder / "trained", c.folder / "initial", scratch.path);
    const auto own = SafetensorsFile::open(scratch.path / "adapter_model.safetensors");
    const auto expected =
        SafetensorsFile::open(c.folder / "converted" / "adapter_model.safetensors");
    for (const auto& view : expected.tensors()) {
      const auto* found = own.find(view.name);
      if (found == nullptr)
        check.fail(view.name, concat("no tensor ", view.name));
      else
        check.compare(view.name, graft::io::to_f64(*found), graft::io::to_f64(view));
    }
    model.load("converted", scratch.path);
    check_outputs(check, toy, in, file, "y");
    return check.result();
  }
  model.load("source", c.folder / "source");
  check_outputs(check, toy, in, file, "y_source");
  const auto text = c.json.at("peft_api").get<std::string>();
  const auto at = text.find("rank=");
  if (at == text.npos) throw Unsupported{"no rank in peft_api"};
  const std::string number = text.substr(at + 5, text.find_first_of(",)", at) - at - 5);
  graft::RankChoice choice;
  if (number.find('.') == number.npos)
    choice.rank = std::stol(number);
  else
    choice.energy = std::stod(number);
  auto& lora = graft::convert_to_lora(model, "source", "lora", choice);
  check_products(check, lora, file, ".lora_delta", "");
  const auto& peft = model.load("peft", c.folder / "lora");
  for (const auto& [path, site] : graft::detail::lora_factors(peft))
    check.require(graft::detail::lora_factors(lora).at(path).factors.rank() == site.factors.rank(),
                  concat("another rank at ", path));
  model.activate({"lora"});
  check_outputs(check, toy, in, file, "y");
  return check.result();
}

}  // namespace conformance
