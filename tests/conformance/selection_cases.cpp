// Cases of the selection family: scores, choices, and what happens to sparse values in training.
#include <cmath>

#include "graft/adapters/selection/methods.hpp"
#include "graft/optim/adamw.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::Shape;
using graft::selection::Places;
using Matrix = BasicTensor<double>;

Matrix matrix(const SafetensorsFile& file, const std::string& name) {
  auto m = tensor_of<double>(file, name);
  if (!m) throw graft::IoError(concat("no tensor ", name));
  return m;
}
/// Part i along the first axis.
Matrix part(const Matrix& m, Index i) {
  Shape shape;
  for (int a = 1; a < m.rank(); ++a) shape.append(m.dim(a));
  auto result = Matrix::empty(shape);
  std::copy_n(m.data() + i * result.size(), result.size(), result.data());
  return result;
}
Places places(const SafetensorsFile& file, const std::string& name) {
  return graft::io::to_i64(file.at(name));
}
void equal(Checker& check, const std::string& name, const Places& found, const Places& expected) {
  check.require(found == expected, concat(name, ": other places"));
}
/// "<prefix><tensor><suffix>": the tensors, in the order of their names.
std::vector<std::string> named(const SafetensorsFile& file, const std::string& prefix,
                               const std::string& suffix) {
  std::vector<std::string> list;
  for (const auto& view : file.tensors())
    if (view.name.starts_with(prefix) && view.name.ends_with(suffix) &&
        view.name.size() > prefix.size() + suffix.size())
      list.push_back(
          view.name.substr(prefix.size(), view.name.size() - prefix.size() - suffix.size()));
  std::sort(list.begin(), list.end());
  return list;
}
std::vector<double> at(const Matrix& m, const Places& where) {
  std::vector<double> values;
  for (const auto i : where) values.push_back(m[i]);
  return values;
}

void run_selection(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const double density = config_of(c).at("density");
  const auto names = named(file, "in.", ".weight");
  for (const char* criterion : {"random", "magnitude", "smallest_magnitude", "snip", "fisher"}) {
    std::vector<Matrix> scores;
    for (const auto& name : names) {
      const auto w = matrix(file, concat("in.", name, ".weight"));
      const std::string word = criterion;
      if (word == "random") {
        scores.push_back(matrix(file, concat("in.", name, ".uniform")));
      } else if (word == "snip" || word == "fisher") {
        const auto gradients = matrix(file, concat("in.", name, ".example_grads"));
        auto sum = Matrix::zeros(w.shape());
        for (Index e = 0; e < gradients.dim(0); ++e)
          for (Index i = 0; i < sum.size(); ++i) sum[i] += gradients[e * sum.size() + i];
        scores.push_back(word == "snip" ? graft::selection::snip(w, sum)
                                        : graft::selection::fisher(gradients, w.shape()));
        if (const auto* view = file.find(concat("out.", word, ".score.", name)))
          check.compare(view->name, values_of(scores.back()), graft::io::to_f64(*view));
      } else {
        scores.push_back(graft::selection::magnitude(w, word == "magnitude"));
      }
    }
    for (const bool together : {true, false}) {
      const auto chosen = graft::selection::select(scores, density, together);
      for (std::size_t i = 0; i < names.size(); ++i) {
        const std::string key =
            concat("out.", criterion, together ? ".global." : ".tensor.", names[i]);
        if (file.find(key) != nullptr) equal(check, key, chosen[i], places(file, key));
      }
    }
  }
  check.add("choices", 0, 0, check.tolerance());
}

void run_masked_training(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto gradients = matrix(file, "in.grad"), weight = matrix(file, "in.weight"),
             expected = matrix(file, "out.values");
  const auto where = places(file, "in.indices");
  const Index k = static_cast<Index>(where.size());
  const graft::BasicParameter<double> values(Matrix::zeros({k}));
  const double decay = config.at("weight_decay"), rate = config.at("learning_rate");
  const bool of_delta = config.value("weight_decay_on", "delta") == "delta";
  graft::BasicAdamW<double> optimizer(std::vector<graft::BasicParameter<double>>{values},
                                      {.learning_rate = rate,
                                       .beta1 = config.at("betas").at(0),
                                       .beta2 = config.at("betas").at(1),
                                       .eps = config.at("eps"),
                                       .weight_decay = of_delta ? decay : 0});
  for (Index t = 0; t < gradients.dim(0); ++t) {
    const auto g = at(part(gradients, t), where);
    values.mutable_grad() = Matrix::from(g, {k});
    if (!of_delta)
      graft::StaticMaskProcedure<double>::decay_weight(weight, where, values.value(), rate * decay);
    optimizer.step();
    optimizer.zero_grad();
    check.compare(concat("values of step ", t + 1), values_of(values.value()),
                  values_of(part(expected, t)));
  }
  auto whole = weight.clone();
  for (Index j = 0; j < k; ++j) whole[where[static_cast<std::size_t>(j)]] += values.value()[j];
  check.compare("out.weight", values_of(whole), values_of(matrix(file, "out.weight")));
}

void run_neuroada_selection(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::NeuroAdaConfig>(c);
  const auto w = matrix(file, "in.weight"), g = matrix(file, "in.grad");
  using graft::selection::best_of_rows;
  using graft::selection::magnitude;
  equal(check, "magnitude", best_of_rows(magnitude(w), config.k), places(file, "out.magnitude"));
  equal(check, "reverse", best_of_rows(magnitude(w, false), config.k), places(file, "out.reverse"));
  equal(check, "gradient", best_of_rows(magnitude(g), config.k), places(file, "out.gradient"));
  check.add("choices", 0, 0, check.tolerance());
}

template <class State>
void compare_state(Checker& check, const SafetensorsFile& file, Index t, const State& state,
                   const Places& where) {
  const auto row = [&](const char* name, const auto& found) {
    if (file.find(concat("out.", name)) == nullptr) return;
    check.compare(concat(name, " after step ", t + 1), found,
                  values_of(part(matrix(file, concat("out.", name)), t)));
  };
  const auto all = places(file, "out.indices");
  const auto k = static_cast<std::ptrdiff_t>(where.size());
  equal(check, concat("places after step ", t + 1), where,
        Places(all.begin() + t * k, all.begin() + (t + 1) * k));
  row("values", state.values);
  if constexpr (requires { state.age; }) {
    row("exp_avg", state.m1);
    row("exp_avg_sq", state.m2);
    row("age", state.age);
  } else {
    row("momentum", state.momenta);
    row("row_accumulator", state.rows);
    row("col_accumulator", state.columns);
  }
}

void run_spiel(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::SpIELConfig>(c);
  const double rate = config_of(c).at("learning_rate");
  const auto gradients = matrix(file, "in.grad");
  const Index batches = std::max<Index>(1, config.gradient_accumulation_steps),
              steps = gradients.dim(0) / batches,
              total = config.total_update_steps > 0 ? config.total_update_steps : steps;
  const auto start = places(file, "in.indices");
  graft::selection::SpIELAdam<double> adam(start);
  graft::selection::SpIELMomentum<double> momentum(gradients.dim(1), gradients.dim(2), start);
  for (Index t = 0; t < steps; ++t) {
    const Index step = t + 1;
    if (t % config.reselection_steps == 0) adam.begin();
    auto mean = Matrix::zeros({gradients.dim(1), gradients.dim(2)});
    for (Index b = 0; b < batches; ++b) {
      const auto g = part(gradients, t * batches + b);
      for (Index i = 0; i < g.size(); ++i) mean[i] += g[i] / static_cast<double>(batches);
      if (!config.accumulates(step) || config.sm3()) continue;
      if (adam.begun())
        adam.accumulate([&](std::int64_t place) { return g[place]; });
      else
        adam.choose(g);
    }
    const auto m = static_cast<Index>(
        std::floor(config.rate(step, total) * static_cast<double>(start.size())));
    if (config.sm3()) {
      momentum.step(at(mean, momentum.places).data(), rate, config);
      if (config.reselects(step)) momentum.reselect(m);
      compare_state(check, file, t, momentum, momentum.places);
    } else {
      adam.step(at(mean, adam.places).data(), rate, config);
      if (config.reselects(step)) adam.reselect(m, config);
      compare_state(check, file, t, adam, adam.places);
    }
  }
}

void run_losia(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::LoSiAConfig>(c);
  const auto names = named(file, "in.", ".weight");
  const auto rates = matrix(file, "in.learning_rate");
  struct Layer {
    Matrix weight, gradients;
    graft::selection::Subnet subnet;
    graft::selection::BlockAdam<double> adam;
  };
  std::vector<Layer> layers;
  for (const auto& name : names)
    layers.push_back(
        {matrix(file, concat("in.", name, ".weight")).clone(),
         matrix(file, concat("in.", name, ".grad")),
         {places(file, concat("in.", name, ".rows")), places(file, concat("in.", name, ".cols"))},
         {}});
  const Index groups = static_cast<Index>(layers.size());
  graft::selection::Importance<double> importance;
  for (Index t = 0; t < rates.dim(0); ++t) {
    const Index group = t / config.period % groups;
    auto& recording = layers[static_cast<std::size_t>(group)];
    if (t % config.period == 0)
      importance = graft::selection::Importance<double>(recording.weight.shape());
    importance.see(recording.weight, part(recording.gradients, t), config.importance_beta1,
                   config.importance_beta2);
    for (std::size_t l = 0; l < layers.size(); ++l) {
      auto& layer = layers[l];
      const Index in = layer.weight.cols();
      Places where;
      for (const auto r : layer.subnet.rows)
        for (const auto col : layer.subnet.columns) where.push_back(r * in + col);
      auto block = at(layer.weight, where);
      const auto g = at(part(layer.gradients, t), where);
      layer.adam.step(block.data(), g.data(), static_cast<Index>(block.size()),
                      rates[t * groups + static_cast<Index>(l)], config);
      for (std::size_t i = 0; i < where.size(); ++i) layer.weight[where[i]] = block[i];
    }
    if ((t + 1) % config.period == 0) {
      const auto score = importance.score();
      std::vector<double> totals;
      recording.subnet =
          graft::selection::localise(score, static_cast<Index>(recording.subnet.rows.size()),
                                     static_cast<Index>(recording.subnet.columns.size()), &totals);
      recording.adam.restart();
      check.compare(concat("score of step ", t), values_of(score),
                    values_of(matrix(file, concat("out.step", t, ".score"))));
      check.compare(concat("candidates of step ", t), totals,
                    values_of(matrix(file, concat("out.step", t, ".candidates"))));
    }
    for (std::size_t l = 0; l < layers.size(); ++l)
      for (const bool rows : {true, false}) {
        const std::string key = concat("out.", names[l], rows ? ".rows" : ".cols");
        const auto all = places(file, key);
        const auto& found = rows ? layers[l].subnet.rows : layers[l].subnet.columns;
        const auto k = static_cast<std::ptrdiff_t>(found.size());
        equal(check, key, found, Places(all.begin() + t * k, all.begin() + (t + 1) * k));
      }
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const std::string key = concat("out.", names[l], ".weight");
    check.compare(key, values_of(layers[l].weight), values_of(matrix(file, key)));
  }
}

void run_spt_allocation(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::SPTConfig>(c);
  std::vector<std::string> names;  // the order of out.modes is that of the notes
  const std::string notes = c.json.value("notes", ""), mark = "Tensor order of out.modes: ";
  const auto first = notes.find(mark);
  for (std::string rest =
           first == std::string::npos
               ? std::string()
               : notes.substr(first + mark.size(), notes.find(". ", first) - first - mark.size());
       !rest.empty();) {
    const auto comma = rest.find(", ");
    names.push_back(rest.substr(0, comma));
    rest = comma == std::string::npos ? std::string() : rest.substr(comma + 2);
  }
  std::vector<Matrix> scores;
  for (const auto& name : names) {
    const auto gradients = matrix(file, concat("in.", name));
    auto score = part(gradients, 0);
    for (double& v : score) v = 0;
    for (Index b = 0; b < gradients.dim(0); ++b) {
      const auto g = part(gradients, b);
      for (Index i = 0; i < g.size(); ++i) score[i] += g[i] * g[i];
    }
    scores.push_back(score);
  }
  const auto choices = graft::spt_allocation(scores, config.tau, config.rank, config.alpha,
                                             config.beta, config.structured_type);
  Places modes;
  std::int64_t trained = 0;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    modes.push_back(static_cast<std::int64_t>(choices[i].mode));
    trained += choices[i].trained;
    equal(check, concat("selected ", names[i]),
          {static_cast<std::int64_t>(choices[i].places.size())},
          places(file, concat("out.selected.", names[i])));
    Places mask(static_cast<std::size_t>(scores[i].size()), 0);
    if (choices[i].mode == graft::SPTMode::sparse)
      for (const auto place : choices[i].places) mask[static_cast<std::size_t>(place)] = 1;
    const auto expected = places(file, concat("out.mask.", names[i]));
    Places all(mask.size(), 0);
    for (const auto place : choices[i].places) all[static_cast<std::size_t>(place)] = 1;
    check.require(expected == mask || expected == all, concat("mask of ", names[i]));
  }
  equal(check, "modes", modes, places(file, "out.modes"));
  equal(check, "trained", {trained}, places(file, "out.trainable"));
  check.add("choices", 0, 0, check.tolerance());
}

void run_gradient_dropout(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  Matrix probability;
  const auto g = graft::ramt_gradient(
      matrix(file, "in.grad_task"), matrix(file, "in.grad_kl"), matrix(file, "in.uniform"),
      config_of(c).value("gradient_dropout_lambda", 1.0), &probability);
  check.compare("probability", values_of(probability), values_of(matrix(file, "out.probability")));
  check.compare("grad", values_of(g), values_of(matrix(file, "out.grad")));
}

void run_pst_schedule(Checker& check, const Case& c) {
  const auto config = read_config_of<graft::PSTConfig>(c);
  const auto expected = matrix(tensors_of(c), "out.sparsity");
  const double total = config_of(c).at("total_steps");
  std::vector<double> found;
  for (Index t = 0; t < expected.size(); ++t)
    found.push_back(config.sparsity_at(static_cast<double>(t), total));
  check.compare("sparsity", found, values_of(expected));
}

void run_lt_sft(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto names = named(file, "in.", ".pretrained");
  std::vector<Matrix> before, tuned;
  for (const auto& name : names) {
    before.push_back(matrix(file, concat("in.", name, ".pretrained")));
    tuned.push_back(matrix(file, concat("in.", name, ".tuned")));
  }
  const auto chosen =
      graft::selection::most_moved(before, tuned, config.at("num_tunable_weights").get<Index>());
  const double l1 = config.value("l1_regularisation", 0.1);
  for (std::size_t i = 0; i < names.size(); ++i) {
    equal(check, names[i], chosen[i], places(file, concat("out.", names[i], ".indices")));
    const auto k = static_cast<Index>(chosen[i].size());
    const graft::BasicParameter<double> values(Matrix::zeros({k}));
    graft::BasicAdamW<double> optimizer(std::vector<graft::BasicParameter<double>>{values},
                                        {.learning_rate = config.at("learning_rate"),
                                         .beta1 = config.at("betas").at(0),
                                         .beta2 = config.at("betas").at(1),
                                         .eps = config.at("eps"),
                                         .weight_decay = 0});
    const auto gradients = matrix(file, concat("in.", names[i], ".grad"));
    for (Index t = 0; t < gradients.dim(0); ++t) {
      auto g = at(part(gradients, t), chosen[i]);
      for (Index j = 0; j < k; ++j) {
        const double v = values.value()[j];
        g[static_cast<std::size_t>(j)] += l1 * (v > 0 ? 1 : v < 0 ? -1 : 0);
      }
      values.mutable_grad() = Matrix::from(g, {k});
      optimizer.step();
      optimizer.zero_grad();
    }
    check.compare(names[i], values_of(values.value()),
                  values_of(matrix(file, concat("out.", names[i], ".values"))));
  }
}

void run_diff_pruning(Checker& check, const Case& c) {
  using Method = graft::BasicDiffPruning<float>;
  const auto each = [](graft::AdapterModel& model, const auto& f) {
    for (const auto& placed : model.at("default").parts())
      if (auto* method = graft::method_of<Method>(placed.part.get())) f(*method, placed.path);
  };
  LayerSteps<float> steps;
  steps.before = [&](graft::AdapterModel& model, const SafetensorsFile& file) {
    each(model, [&](Method& method, const std::string& path) {
      const auto draws = [&](const std::string& name) {
        auto u = tensor_of<float>(file, concat("in.", path, ".", name));
        return u ? u : tensor_of<float>(file, "in." + name);
      };
      graft::Tensor group;
      for (const char* name : {"uniform_group", "group_uniform", "uniform.group"})
        if (!group) group = draws(name);
      method.set_draws(draws("uniform"), group);
    });
  };
  steps.after = [&](graft::AdapterModel& model, const SafetensorsFile& file) {
    check_auxiliary<float>(check, model, file,
                           [&](graft::Tape& tape) { return model.auxiliary_loss(tape); });
    each(model, [](Method& method, const std::string&) { method.set_draws({}); });
  };
  run_layer<float>(check, c, steps);
}

void run_perp(Checker& check, const Case& c) {
  LayerSteps<float> steps;
  steps.after = [&](graft::AdapterModel& model, const SafetensorsFile& file) {
    auto* method = graft::method_of<graft::PERP>(model.at("default").parts().front().part.get());
    if (method == nullptr) return check.fail("adapter", "no PERP");
    check_auxiliary<float>(check, model, file, [&](graft::Tape& tape) {
      return method->reconstruction_loss(tape, tensor_of<float>(file, "in.calibration"),
                                         tensor_of<float>(file, "in.dense_weight"),
                                         tensor_of<float>(file, "weight"));
    });
  };
  run_layer<float>(check, c, steps);
}

const Handler handlers[] = {
    {{.kind = "procedure", .peft_type = "STATIC_MASK", .name = "static_mask_selection"},
     run_selection},
    {{.kind = "procedure", .peft_type = "STATIC_MASK", .name = "static_mask_training"},
     run_masked_training},
    {{.kind = "procedure", .peft_type = "NEUROADA"}, run_neuroada_selection},
    {{.kind = "procedure", .peft_type = "SPIEL"}, run_spiel},
    {{.kind = "procedure", .peft_type = "LOSIA"}, run_losia},
    {{.kind = "procedure", .peft_type = "SPT"}, run_spt_allocation},
    {{.kind = "procedure", .peft_type = "RAMT"}, run_gradient_dropout},
    {{.kind = "procedure", .peft_type = "PST"}, run_pst_schedule},
    {{.kind = "procedure", .peft_type = "LT_SFT"}, run_lt_sft},
    {{.kind = "layer", .peft_type = "DIFF_PRUNING"}, run_diff_pruning},
    {{.kind = "layer", .peft_type = "PERP"}, run_perp},
};

}  // namespace
}  // namespace conformance
