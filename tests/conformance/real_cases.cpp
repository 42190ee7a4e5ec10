// Cases of published models.
#include <cmath>

#include "graft/models/load.hpp"
#include "graft/text/load_tokenizer.hpp"
#include "model_cache.hpp"
#include "registry.hpp"
#include "support.hpp"

namespace conformance {
namespace {

using graft::Tape;
using graft::models::Batch;

Batch one_row(const std::vector<std::int32_t>& ids) {
  Batch batch;
  batch.batch = 1;
  batch.seq_len = static_cast<Index>(ids.size());
  batch.ids = ids;
  batch.labels.assign(ids.begin(), ids.end());
  return batch;
}

/// The twenty likeliest tokens of the last position, by their ids.
void check_text(Checker& check, const graft::models::Model& model, const Json& expected,
                const std::vector<std::int32_t>& ids, const std::string& name) {
  const Batch batch = one_row(ids);
  Tape tape({.gradients = false, .training = false});
  const auto logits = model.logits(tape, batch).value();
  const Index width = logits.cols(), last = logits.rows() - 1;
  std::vector<double> found, want;
  const auto& top = expected.at("top20_ids");
  for (std::size_t i = 0; i < top.size(); ++i) {
    found.push_back(logits[last * width + top.at(i).get<Index>()]);
    want.push_back(expected.at("top20_logits").at(i));
  }
  check.compare(name + " logits", found, want);
  if (expected.contains("mean_cross_entropy")) {
    const double loss = model.loss(tape, batch).item(), w = expected.at("mean_cross_entropy");
    check.add(name + " cross-entropy", std::abs(loss - w), std::abs(loss - w) / w,
              check.tolerance());
  }
}

/// Ids of sentences, their vectors and how alike these are.
void check_sentences(Checker& check, const Case& c, const std::filesystem::path& folder,
                     const SafetensorsFile& file) {
  const auto model = graft::models::load<float>(folder);
  const auto* encoder = dynamic_cast<const graft::models::Bert*>(model.get());
  if (encoder == nullptr) throw Unsupported{"sentence vectors of this architecture"};
  const auto& view = file.at("input_ids");
  Batch batch;
  batch.batch = view.shape.at(0);
  batch.seq_len = view.shape.at(1);
  batch.ids = ids_of(file, "input_ids");
  for (std::int32_t m : ids_of(file, "attention_mask")) batch.mask.push_back(m != 0);
  const auto tokenizer = graft::text::load_tokenizer(folder);
  graft::text::EncodeOptions options;
  options.add_special = true;
  for (Index b = 0; b < batch.batch; ++b) {
    const auto ids = tokenizer.encode(
        c.json.at("sentences").at(static_cast<std::size_t>(b)).get<std::string>(), options);
    const auto row = batch.ids.begin() + b * batch.seq_len;
    check.require(std::equal(ids.begin(), ids.end(), row), concat("ids of sentence ", b));
  }
  const auto vectors = encoder->embed(batch);
  check.compare("embeddings", values_of(vectors), graft::io::to_f64(file.at("embeddings")));
  std::vector<double> cosine;
  for (Index i = 0; i < batch.batch; ++i)
    for (Index j = 0; j < batch.batch; ++j) {
      double dot = 0;
      for (Index k = 0; k < vectors.cols(); ++k)
        dot += static_cast<double>(vectors(i, k)) * static_cast<double>(vectors(j, k));
      cosine.push_back(dot);
    }
  check.compare("cosine", cosine, graft::io::to_f64(file.at("cosine")));
}

}  // namespace

Result run_real_case(const Case& c) {
  const auto path = find_model(c.json.at("model"));
  if (path.empty())
    throw Unsupported{
        concat("skipped: ", model_name(c.json.at("model")), " is not in the model cache")};
  Checker check(c.json.value("tolerance", 1e-4));
  const auto file = tensors_of(c);
  if (c.json.contains("sentences")) {
    check_sentences(check, c, path, file);
    return check.result();
  }
  const auto model = graft::models::load<float>(path);
  int number = 0;
  for (const auto& text : c.json.at("base"))
    check_text(check, *model, text, text.at("ids").get<std::vector<std::int32_t>>(),
               concat("text ", number++));
  graft::AdapterModel adapters(model->sites(), methods<float>());
  if (!std::filesystem::exists(c.folder / "adapter")) return check.result();
  auto& set = adapters.load("default", c.folder / "adapter");
  number = 0;
  for (const auto& text : c.json.at("with_adapter")) {
    const auto& ids_of_text =
        text.contains("ids") ? text : c.json.at("base").at(static_cast<std::size_t>(number));
    const auto ids = ids_of_text.at("ids").get<std::vector<std::int32_t>>();
    check_text(check, *model, text, ids, concat("adapted text ", number));
    if (text.contains("gradient_norms")) {
      for (const auto& p : set.parameters()) p.zero_grad();
      Tape tape;
      tape.backward(model->loss(tape, one_row(ids)));
      std::vector<double> found, want;
      const Json& norms = text.at("gradient_norms");
      for (const auto& [key, tensor] : set.tensors()) {
        if (!norms.contains(key)) continue;
        double square = 0;
        for (float g : tensor.parameter.grad())
          square += static_cast<double>(g) * static_cast<double>(g);
        found.push_back(std::sqrt(square));
        want.push_back(norms.at(key));
      }
      check.require(want.size() == norms.size(), "gradient norms of other tensors");
      check.compare(concat("adapted text ", number, " gradient norms"), found, want);
      if (number == 0)
        for (const auto& [key, tensor] : set.tensors())
          if (const auto* view = file.find("grad." + key))
            check.compare(view->name, values_of(tensor.parameter.grad()), graft::io::to_f64(*view));
    }
    ++number;
  }
  return check.result();
}

}  // namespace conformance
