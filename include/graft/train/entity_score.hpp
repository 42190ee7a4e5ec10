#pragma once

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1 {

/// Spans of words found by their tags, against the true ones: a span counts as found if its first
/// word, its last word and its kind are right.
struct EntityScore {
  Index truth = 0, predicted = 0, right = 0;

  double precision() const { return share(right, predicted); }
  double recall() const { return share(right, truth); }
  double f1() const { return share(2 * right, truth + predicted); }

 private:
  static double share(Index part, Index whole) {
    return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
  }
};

/// True if the tags mark spans: all are "O" or begin with "B-", "I-", "E-" or "S-", and some are
/// not "O".
inline bool marks_entities(const std::vector<std::string>& tags) {
  const auto outside = [](const std::string& tag) { return tag == "O"; };
  return !std::all_of(tags.begin(), tags.end(), outside) &&
         std::all_of(tags.begin(), tags.end(), [&](const std::string& tag) {
           return outside(tag) || (tag.size() > 2 && tag[1] == '-' &&
                                   std::string_view("BIES").find(tag[0]) != std::string_view::npos);
         });
}

namespace detail {

using EntitySpan = std::tuple<Index, Index, std::string>;

inline std::set<EntitySpan> entity_spans(const std::vector<std::string>& tags) {
  std::set<EntitySpan> spans;
  Index begin = 0;
  std::string kind;  // of the span that is open
  const auto close = [&](Index end) {
    if (!kind.empty()) spans.emplace(begin, end, kind);
    kind.clear();
  };
  for (Index i = 0; i < std::ssize(tags); ++i) {
    const std::string& tag = tags[static_cast<std::size_t>(i)];
    const char mark = tag.empty() ? 'O' : tag[0];
    const std::string own = tag.size() > 2 ? tag.substr(2) : std::string();
    if (mark == 'O' || mark == 'B' || mark == 'S' || own != kind) close(i);
    if (mark == 'O') continue;
    if (kind.empty()) {
      begin = i;
      kind = own;
    }
    if (mark == 'E' || mark == 'S') close(i + 1);
  }
  close(std::ssize(tags));
  return spans;
}

}  // namespace detail

/// Compares the tags of texts. Tags are read as the evaluation of CoNLL-2000 reads them: "I-X"
/// after another kind, or after "O", begins a span too. Errors: ValueError for different numbers of
/// texts or words.
inline EntityScore entity_score(const std::vector<std::vector<std::string>>& truth,
                                const std::vector<std::vector<std::string>>& predicted) {
  if (truth.size() != predicted.size())
    throw ValueError(concat("entity score: ", predicted.size(), " texts, expected ", truth.size()));
  EntityScore score;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    if (truth[i].size() != predicted[i].size())
      throw ValueError(concat("entity score: ", predicted[i].size(), " tags in text ", i,
                              ", expected ", truth[i].size()));
    const auto right = detail::entity_spans(truth[i]), found = detail::entity_spans(predicted[i]);
    score.truth += std::ssize(right);
    score.predicted += std::ssize(found);
    score.right += std::count_if(found.begin(), found.end(),
                                 [&](const auto& span) { return right.contains(span); });
  }
  return score;
}

}  // namespace graft::inline v0_1
