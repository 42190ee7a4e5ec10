#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/layers/forward_context.hpp"

namespace graft::inline v0_1 {

/// A name with an adapter, as a site holds it.
template <class Interface>
struct NamedAdapter {
  std::string name;
  std::shared_ptr<const Interface> adapter;
};

/// The adapters that a site holds, and those of them that run. Sites of every kind have this in
/// common.
template <class AdapterInterface>
class SiteAdapters {
 public:
  using Interface = AdapterInterface;
  using Chain = std::vector<std::shared_ptr<const Interface>>;

  SiteAdapters() = default;
  explicit SiteAdapters(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::vector<NamedAdapter<Interface>>& adapters() { return adapters_; }
  const std::vector<NamedAdapter<Interface>>& adapters() const { return adapters_; }
  /// Rebuilds the chain that runs from the names of the active adapters, in this order.
  void activate(const std::vector<std::string>& names) {
    chain_.clear();
    for (const auto& name : names)
      for (const auto& named : adapters_)
        if (named.name == name) chain_.push_back(named.adapter);
    if constexpr (requires(const Interface& adapter) { adapter.input_in_order(); }) {
      for (auto first = chain_.begin(); first != chain_.end();) {
        const auto last = std::find_if(
            first, chain_.end(), [](const auto& adapter) { return !adapter->input_in_order(); });
        std::reverse(first, last);
        first = last == chain_.end() ? last : last + 1;
      }
    }
  }
  const Chain& chain() const { return chain_; }
  /// The adapter of this name alone; empty if the site has none.
  Chain chain_of(const std::string& name) const {
    Chain chain;
    for (const auto& named : adapters_)
      if (named.name == name) chain.push_back(named.adapter);
    return chain;
  }

 protected:
  ~SiteAdapters() = default;
  /// True if the rows of the batch name their adapters and this site has some.
  bool runs_by_row(const ForwardContext* context) const {
    return context != nullptr && !context->row_adapters.empty() && !adapters_.empty();
  }
  /// True if all rows run one adapter that the context names.
  static bool runs_one(const ForwardContext* context) {
    return context != nullptr && context->only.has_value();
  }
  SiteAdapters(const SiteAdapters&) = default;
  SiteAdapters(SiteAdapters&&) = default;
  SiteAdapters& operator=(const SiteAdapters&) = default;
  SiteAdapters& operator=(SiteAdapters&&) = default;
  /// The last adapter that runs, where only one may; null if none does.
  const Interface* last() const { return chain_.empty() ? nullptr : chain_.back().get(); }

 private:
  std::string path_;
  std::vector<NamedAdapter<Interface>> adapters_;
  Chain chain_;
};

}  // namespace graft::inline v0_1
