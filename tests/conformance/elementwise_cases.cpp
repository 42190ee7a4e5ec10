// Cases of the elementwise family with a module of their own.
#include <cmath>

#include "graft/autograd/ops/attention.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::LinearSite;
using graft::Tape;
using graft::Tensor;
using graft::Var;

/// A block of a diffusion transformer: c = t + y_embedder[labels]; shift, scale
/// and gate of both branches from silu(c); x += gate ⊙ attention(modulated
/// LN(x)); x += gate ⊙ mlp(modulated LN(x)).
struct DiffusionBlock {
  graft::EmbeddingSite classes;
  LinearSite modulation, qkv, projection, up, down;
  Index heads;
  graft::SiteTable table;

  DiffusionBlock(const SafetensorsFile& file, Index head_count)
      : classes("y_embedder", graft::EmbeddingTable(tensor_of<float>(file, "y_embedder.weight"))),
        modulation(site(file, "block.adaLN_modulation")),
        qkv(site(file, "block.attn.qkv")),
        projection(site(file, "block.attn.proj")),
        up(site(file, "block.mlp.fc1")),
        down(site(file, "block.mlp.fc2")),
        heads(head_count) {
    table.info.architecture = "dit";
    table.embedding = {&classes};
    table.linear = {&modulation, &qkv, &projection, &up, &down};
  }
  static LinearSite site(const SafetensorsFile& file, const std::string& path) {
    return {path, graft::DenseLinear(tensor_of<float>(file, path + ".weight"),
                                     tensor_of<float>(file, path + ".bias"))};
  }

  Var operator()(Var x, const Tensor& time, const std::vector<std::int32_t>& labels) const {
    auto& tape = x.tape();
    const Index batch = x.dim(0), tokens = x.dim(1), d = x.cols(), width = d / heads;
    const auto c = add(classes(tape, labels), tape.constant(time));
    const auto all = reshape(modulation(silu(c)), {batch, 1, 6 * d});
    const auto chunk = [&](Index i) { return slice(all, 2, i * d, d); };
    const auto modulated = [&](const Var& h, Index first) {
      const auto normed = layer_norm(h, {}, {}, 1e-6F);
      return add(mul(normed, add_scalar(chunk(first + 1), 1)), chunk(first));
    };
    const auto joint = reshape(qkv(modulated(x, 0)), {batch, tokens, 3, heads * width});
    const auto head = [&](Index i) {
      return permute(reshape(slice(joint, 2, i, 1), {batch, tokens, heads, width}), {0, 2, 1, 3});
    };
    const auto scores = scale(matmul(head(0), head(1), graft::Transpose::no, graft::Transpose::yes),
                              1 / std::sqrt(static_cast<float>(width)));
    const auto mixed = permute(matmul(softmax(scores), head(2)), {0, 2, 1, 3});
    x = add(x, mul(chunk(2), projection(reshape(mixed, {batch, tokens, d}))));
    const auto inner = activation(graft::kernels::Activation::gelu_tanh, up(modulated(x, 3)));
    return add(x, mul(chunk(5), down(inner)));
  }
};

void run_diffusion_block(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const std::string text = c.json.value("module", "");
  const auto at = text.find(" heads");
  const auto space = at == std::string::npos ? at : text.rfind(' ', at - 1);
  if (space == std::string::npos) throw Unsupported{concat("module '", text, "'")};
  DiffusionBlock block(file, std::stol(text.substr(space + 1, at - space - 1)));
  const auto x = tensor_of<float>(file, "x"), time = tensor_of<float>(file, "t_embedding");
  const auto labels = ids_of(file, "labels");
  const auto forward = [&] {
    Tape tape({.gradients = false, .training = false});
    return values_of(block(tape.constant(x), time, labels).value());
  };
  const auto expected = [&](const char* name) { return graft::io::to_f64(file.at(name)); };
  check.compare("y_base", forward(), expected("y_base"));
  graft::AdapterModel model(block.table, methods<float>());
  model.load("default", c.folder);
  Tape tape;
  const auto leaf = tape.leaf(x);
  const auto y = block(leaf, time, labels);
  check.compare("y", values_of(y.value()), expected("y"));
  tape.backward(y, tensor_of<float>(file, "dy"));
  check.compare("dx", values_of(leaf.grad()), expected("dx"));
  compare_gradients(check, gradients_of(model, {"default"}), file, "grad.",
                    vanishing_gradients(c.json));
  model.merge();
  check.compare("merged y", forward(), expected("y"));
  const auto merged = [&](const std::string& name, const Tensor& found) {
    if (const auto* view = file.find(name))
      check.compare(name, values_of(found), graft::io::to_f64(*view));
  };
  for (const auto* site : block.table.linear) {
    merged(site->path() + ".merged_weight", site->base().dense_weight());
    merged(site->path() + ".merged_bias", site->base().bias());
  }
  merged("y_embedder.merged_weight", block.classes.table().dense());
  model.unmerge();
}

const Handler elementwise_handlers[] = {
    {{.kind = "layer", .peft_type = "DIFFFIT"}, run_diffusion_block},
};

}  // namespace
}  // namespace conformance
