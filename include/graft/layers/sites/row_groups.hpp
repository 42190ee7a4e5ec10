#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/autograd/ops/shape.hpp"
#include "graft/config.hpp"
#include "graft/layers/forward_context.hpp"

namespace graft::inline v0_1 {

/// The rows of a batch by the adapter that they name, in the order of first use.
struct RowGroups {
  struct Group {
    std::string name;
    std::vector<Index> rows;
  };
  std::vector<Group> groups;
  std::vector<Index> position;  ///< of each row when the groups lie one after the other

  /// `size` rows of anything belong to the batch. @throws ShapeError if they do not fit it
  RowGroups(const ForwardContext& context, const std::string& path, Index size);
  /// The rows of one group of x, seen as [batch, rest, columns].
  template <std::floating_point T>
  BasicVar<T> part(const BasicVar<T>& x, const Group& group) const {
    const Index batch = std::ssize(position);
    const auto grouped = reshape(x, {batch, x.rows() / batch, x.cols()});
    return groups.size() == 1 ? grouped : gather_rows(grouped, group.rows);
  }
  /// Runs `run(group)` for each, with a context on the tape that holds the rows of the group alone.
  template <std::floating_point T, class Run>
  std::vector<BasicVar<T>> each(BasicTape<T>& tape, const ForwardContext& context,
                                Run&& run) const {
    struct Restore {
      BasicTape<T>& tape;
      std::shared_ptr<const void> before;
      ~Restore() { tape.set_context(before); }
    } restore{tape, tape.shared_context()};
    std::vector<BasicVar<T>> parts;
    for (const auto& group : groups) {
      tape.set_context(std::make_shared<ForwardContext>(context.of_rows(group.rows, group.name)));
      parts.push_back(run(group));
    }
    return parts;
  }
  /// The results of all groups as one, in the order of the batch and with this shape.
  template <std::floating_point T>
  BasicVar<T> joined(std::vector<BasicVar<T>> parts, const Shape& shape) const {
    auto y = parts.size() == 1 ? parts[0] : gather_rows(concat_along(0, parts), position);
    return reshape(y, shape);
  }
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/sites/impl/row_groups_impl.hpp"
#endif
