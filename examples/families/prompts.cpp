// Family prompts: prompt tuning. Virtual tokens in front of the input of a frozen layer; the mean
// over all tokens is wanted to be another one, and only the virtual tokens can change it.
#include "graft/adapters/prompts/prompt_tuning.hpp"
#include "tiny_layer.hpp"

int main() {
  constexpr graft::Index kTokens = 4;
  const auto frozen = tiny::frozen_layer();
  const auto offset = tiny::normal({tiny::kOut}, 3, 0.5);

  graft::PromptTuningConfig config;
  config.prompt.num_virtual_tokens = kTokens;
  graft::PromptSite site("", tiny::kIn);
  graft::PromptSiteInfo<float> info;
  info.dim = info.model.hidden_size = tiny::kIn;
  info.model.heads = info.model.layers = 1;
  graft::StandaloneInit<float> init(7);
  const auto prompt = graft::PromptTuningMethod<float>::prompt(config, info, init.context());
  std::vector<graft::Parameter> parameters;
  for (const auto& t : prompt->tensors()) parameters.push_back(t.parameter);
  site.adapters().push_back({"style", prompt});
  site.activate({"style"});

  const auto mean_of = [&](const graft::Var& tokens) {
    return mean_axis(graft::linear(frozen, tokens), 1);
  };
  const bool learned = tiny::learns(
      "Prompt tuning", parameters,
      [&](const graft::Var& x) {
        return mean_of(site(reshape(x, {1, x.rows(), x.cols()}), graft::ForwardContext{}));
      },
      [&](const graft::Var& x) {
        // The text alone, weighed as among the virtual tokens, and the offset.
        const float share = static_cast<float>(tiny::kRows) / (tiny::kRows + kTokens);
        return add(scale(mean_of(reshape(x, {1, x.rows(), x.cols()})), share),
                   x.tape().constant(offset));
      },
      0.2, 1e-1);
  return learned ? 0 : 1;
}
