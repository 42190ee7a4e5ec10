// Edits of hidden states: what they need beside a layer or a model, and their parts alone.
#include "graft/adapters/representation/consreft.hpp"
#include "graft/adapters/representation/direft.hpp"
#include "graft/adapters/representation/lobireft.hpp"
#include "graft/adapters/representation/loreft.hpp"
#include "graft/adapters/representation/noreft.hpp"
#include "graft/autograd/ops/householder_rows.hpp"
#include "graft/models/load.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/train/generate.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::AdapterModel;
using graft::Tape;
using graft::Tensor;

/// A layer in training whose edited states are multiplied with a given mask.
template <class Method>
void run_dropout(Checker& check, const Case& c) {
  const auto mask = tensor_of<float>(tensors_of(c), "dropout_mask");
  LayerSteps<float> steps;
  steps.training = static_cast<bool>(mask);
  if (mask)
    steps.prepare = [&](AdapterModel& model) {
      for (const auto& placed : model.at("default").parts())
        if (auto* reft = graft::method_of<Method>(placed.part.get())) reft->set_dropout_mask(mask);
    };
  run_layer<float>(check, c, steps);
}

/// Which tokens are the first and the last ones of prompts, marked in [rows, tokens].
void run_positions(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto positions =
      graft::EditPositions::from(read_config_of<graft::LoReftConfig>(c).positions);
  const auto lengths = ids_of(file, "prompt_lengths"), pads = ids_of(file, "left_pads");
  const Index batch = std::ssize(lengths), tokens = file.at("out.prefix").shape.at(1);
  graft::ForwardContext context;
  context.batch = batch;
  for (Index b = 0; b < batch; ++b) {
    const auto at = static_cast<std::size_t>(b);
    context.prompt_lengths.push_back(lengths[at]);
    for (Index t = 0; t < tokens; ++t) context.token_mask.push_back(t >= pads[at] ? 1 : 0);
  }
  const auto rows = edited_rows(positions, &context, batch, tokens);
  const auto compare = [&](const char* name, const std::vector<Index>& found) {
    std::vector<double> marks(static_cast<std::size_t>(batch * tokens), 0.0);
    for (const Index row : found) marks[static_cast<std::size_t>(row)] = 1;
    check.compare(name, marks, graft::io::to_f64(file.at(name)), 0);
  };
  compare("out.prefix", rows.prefix);
  compare("out.suffix", rows.suffix);
}

/// Steps of AdamW with given gradients, each followed by the retraction.
void run_retraction(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto start = tensor_of<float>(file, "R0"), gradients = tensor_of<float>(file, "gradients");
  const auto gradient = [&](Index step) {
    auto g = Tensor::empty(start.shape());
    std::copy_n(gradients.data() + step * g.size(), g.size(), g.data());
    return g;
  };
  check.compare("out.tangent_gradient", values_of(graft::tangent_gradient(gradient(0), start)),
                graft::io::to_f64(file.at("out.tangent_gradient")));
  graft::Parameter rows(start.clone());
  graft::AdamW optimizer({rows}, {.learning_rate = config_of(c).value("lr", 0.01F),
                                  .beta1 = 0.9F,
                                  .beta2 = 0.999F,
                                  .eps = 1e-8F,
                                  .weight_decay = 0});
  std::vector<double> found;
  for (Index step = 0; step < gradients.dim(0); ++step) {
    optimizer.zero_grad();
    Tape tape;
    tape.backward(tape.parameter(rows), gradient(step));
    optimizer.step();
    rows.assign(graft::retracted_rows(rows.value()));
    const auto now = values_of(rows.value());
    found.insert(found.end(), now.begin(), now.end());
  }
  check.compare("out.R", found, graft::io::to_f64(file.at("out.R")));
}

void run_householder(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  Tape tape;
  const auto v = tape.leaf(tensor_of<float>(file, "V"));
  const auto rows = householder_rows(v);
  check.compare("out.R", values_of(rows.value()), graft::io::to_f64(file.at("out.R")));
  tape.backward(rows, tensor_of<float>(file, "dR"));
  check.compare("out.dV", values_of(v.grad()), graft::io::to_f64(file.at("out.dV")));
}

/// Greedy decoding of a padded batch without a cache, and of each row alone with one.
void run_generation(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  const auto base =
      graft::models::load<float>(c.folder.parent_path() / c.json.at("base").get<std::string>());
  const auto* model = dynamic_cast<const graft::models::CausalModel*>(base.get());
  if (model == nullptr) throw Unsupported{"a model that does not generate"};
  const Index rows = file.at("input_ids").shape.at(0), width = file.at("input_ids").shape.at(1),
              count = file.at("out.tokens").shape.at(1);
  const auto ids = ids_of(file, "input_ids"), mask = ids_of(file, "attention_mask");
  std::vector<std::vector<std::int32_t>> prompts(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (mask[i] != 0) prompts[i / static_cast<std::size_t>(width)].push_back(ids[i]);
  const auto alone = [&] {
    std::vector<double> tokens;
    for (const auto& prompt : prompts) {
      const auto text = graft::generate(*model, prompt, {.max_tokens = count, .temperature = 0});
      tokens.insert(tokens.end(), text.begin(), text.end());
    }
    return tokens;
  };
  check.compare("out.tokens_without_adapter", alone(),
                graft::io::to_f64(file.at("out.tokens_without_adapter")), 0);
  AdapterModel adapters(base->sites(), methods<float>());
  adapters.load("default", c.folder);
  check.compare("out.tokens", alone(), graft::io::to_f64(file.at("out.tokens")), 0);

  const auto expected = graft::io::to_i64(file.at("out.tokens"));
  std::vector<double> found(static_cast<std::size_t>(file.at("out.logits").elements()));
  const Index vocabulary = file.at("out.logits").shape.at(2);
  for (Index step = 0; step < count; ++step) {
    graft::models::Batch batch;
    batch.batch = rows;
    batch.seq_len = width + step;
    for (Index b = 0; b < rows; ++b) {
      batch.prompt_lengths.push_back(std::ssize(prompts[static_cast<std::size_t>(b)]));
      for (Index t = 0; t < batch.seq_len; ++t) {
        const auto at = static_cast<std::size_t>(b * width + t);
        const auto later = static_cast<std::size_t>(b * count + t - width);
        batch.ids.push_back(t < width ? ids[at] : static_cast<std::int32_t>(expected[later]));
        batch.mask.push_back(t < width ? static_cast<unsigned char>(mask[at]) : 1);
      }
    }
    Tape tape({.gradients = false, .training = false});
    const auto logits = model->logits(tape, batch).value();
    for (Index b = 0; b < rows; ++b)
      std::copy_n(logits.data() + ((b + 1) * batch.seq_len - 1) * vocabulary, vocabulary,
                  found.begin() + (b * count + step) * vocabulary);
  }
  check.compare("out.logits", found, graft::io::to_f64(file.at("out.logits")));
}

const Handler representation_handlers[] = {
    {{.kind = "layer", .peft_type = "LOREFT"}, run_dropout<graft::LoReft>},
    {{.kind = "layer", .peft_type = "DIREFT"}, run_dropout<graft::DiReft>},
    {{.kind = "layer", .peft_type = "NOREFT"}, run_dropout<graft::NoReft>},
    {{.kind = "layer", .peft_type = "CONSREFT"}, run_dropout<graft::ConsReft>},
    {{.kind = "layer", .peft_type = "LOBIREFT"}, run_dropout<graft::LobiReft>},
    {{.kind = "procedure", .method = "ReFT positions"}, run_positions},
    {{.kind = "procedure", .method = "orthonormal rows, retraction"}, run_retraction},
    {{.kind = "transform", .method = "orthonormal rows, Householder form"}, run_householder},
    {{.kind = "generation", .peft_type = "LOREFT"}, run_generation},
    {{.kind = "generation", .peft_type = "DIREFT"}, run_generation},
    {{.kind = "generation", .peft_type = "NOREFT"}, run_generation},
    {{.kind = "generation", .peft_type = "CONSREFT"}, run_generation},
    {{.kind = "generation", .peft_type = "LOBIREFT"}, run_generation},
};

}  // namespace
}  // namespace conformance
