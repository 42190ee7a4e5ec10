#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "graft/autograd/parameter.hpp"
#include "graft/base/error.hpp"
#include "graft/base/splitmix.hpp"
#include "graft/kernels/elementwise.hpp"
#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
class BasicTape;

namespace detail {

/// Where the gradient of one recorded value gathers.
template <class T>
struct GradSlot {
  BasicTensor<T> own;             // of an intermediate value
  BasicTensor<T>* target = &own;  // or that of a parameter
  Shape shape;

  GradSlot(const Shape& s, BasicTensor<T>* parameter_grad) : shape(s) {
    if (parameter_grad != nullptr) target = parameter_grad;
  }
  GradSlot(const GradSlot&) = delete;
  GradSlot& operator=(const GradSlot&) = delete;
};

/// How to compute a value once more from what other operations keep anyway. Counted by hand, in a
/// block of the pool.
template <class T>
struct Recipe {
  virtual ~Recipe() = default;
  virtual BasicTensor<T> compute() = 0;
  BasicTensor<T> value;                   // while somebody in the backward pass needs it
  const std::uint16_t* halves = nullptr;  // the value in bf16, where that is what is kept
  Index references = 0;
  MemoryPool::Block* block = nullptr;
};

template <class T>
class RecipeRef {
 public:
  RecipeRef() = default;
  explicit RecipeRef(Recipe<T>* recipe) : recipe_(recipe) { retain(); }
  RecipeRef(const RecipeRef& other) : recipe_(other.recipe_) { retain(); }
  RecipeRef(RecipeRef&& other) noexcept : recipe_(std::exchange(other.recipe_, nullptr)) {}
  RecipeRef& operator=(RecipeRef other) noexcept {
    std::swap(recipe_, other.recipe_);
    return *this;
  }
  ~RecipeRef();
  explicit operator bool() const { return recipe_ != nullptr; }
  Recipe<T>* operator->() const { return recipe_; }

 private:
  void retain() {
    if (recipe_ != nullptr) ++recipe_->references;
  }
  Recipe<T>* recipe_ = nullptr;
};

/// A recipe that calls `compute`.
template <class T, class Compute>
RecipeRef<T> make_recipe(Compute&& compute) {
  using Function = std::decay_t<Compute>;
  struct Again final : Recipe<T> {
    explicit Again(Function&& f) : function(std::move(f)) {}
    BasicTensor<T> compute() override { return function(); }
    Function function;
  };
  Function function(std::forward<Compute>(compute));
  static_assert(alignof(Again) <= kAlignment);
  MemoryPool::Block* block = MemoryPool::global().acquire(sizeof(Again));
  auto* recipe = ::new (static_cast<void*>(reinterpret_cast<std::byte*>(block) + kAlignment))
      Again(std::move(function));
  recipe->block = block;
  return RecipeRef<T>(recipe);
}

/// Values of fewer elements are not worth rounding.
inline constexpr Index kSmallSaved = 1024;

}  // namespace detail

/// A value that an operation keeps for its backward pass: the tensor itself or, where that is
/// cheap, the way to compute it again. Several operations that keep the same value compute it once.
template <std::floating_point T>
class BasicSaved {
 public:
  BasicSaved() = default;
  explicit BasicSaved(BasicTensor<T> value) : value_(std::move(value)) {}
  explicit BasicSaved(detail::RecipeRef<T> recipe) : recipe_(std::move(recipe)) {}
  const detail::RecipeRef<T>& recipe() const { return recipe_; }
  const BasicTensor<T>& get() const {
    if (!recipe_) return value_;
    if (!recipe_->value) recipe_->value = recipe_->compute();
    return recipe_->value;
  }
  /// The value in bf16, where it is kept so and nobody asked for it in full yet; else null.
  const std::uint16_t* halves() const {
    return recipe_ && !recipe_->value ? recipe_->halves : nullptr;
  }

 private:
  BasicTensor<T> value_;
  detail::RecipeRef<T> recipe_;
};

/// The right to add to the gradient of one input of an operation; false where no gradient is
/// wanted.
template <std::floating_point T>
class BasicGradRef {
 public:
  BasicGradRef() = default;
  explicit BasicGradRef(detail::GradSlot<T>* slot) : slot_(slot) {}

  explicit operator bool() const { return slot_ != nullptr; }
  const Shape& shape() const { return slot_->shape; }

  /// grad += g. Shares `g` if it is the first contribution. No-op without a gradient.
  void add(const BasicTensor<T>& g) const;

  /// The gradient as a buffer that a kernel writes: `accumulate` says whether it holds earlier
  /// contributions (add to it) or is uninitialised (overwrite it whole).
  struct Buffer {
    T* data;
    bool accumulate;
  };
  Buffer buffer() const;
  /// The gradient as a buffer that may be added to: zero where nothing was added yet.
  T* accumulator() const;

 private:
  detail::GradSlot<T>* slot_ = nullptr;
};

/// A value in a computation: a tensor and, if a gradient is wanted for it, its place on the tape.
template <std::floating_point T>
class BasicVar {
 public:
  using Scalar = T;

  BasicVar() = default;
  BasicVar(BasicTape<T>* tape, BasicTensor<T> value, detail::GradSlot<T>* slot)
      : value_(std::move(value)), tape_(tape), slot_(slot) {}
  BasicVar(const BasicVar&);
  BasicVar(BasicVar&&) noexcept;
  BasicVar& operator=(const BasicVar&);
  BasicVar& operator=(BasicVar&&) noexcept;
  ~BasicVar();

  explicit operator bool() const { return tape_ != nullptr; }
  const BasicTensor<T>& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  Index size() const { return value_.size(); }
  Index rows() const { return value_.rows(); }
  Index cols() const { return value_.cols(); }
  Index dim(int axis) const { return value_.dim(axis); }
  T item() const { return value_.item(); }
  BasicTape<T>& tape() const { return *tape_; }
  bool requires_grad() const { return slot_ != nullptr; }
  BasicGradRef<T> grad_ref() const { return BasicGradRef<T>(slot_); }
  /// The gradient after a backward pass; kept only for leaves (`BasicTape::leaf`). Empty if none
  /// arrived.
  BasicTensor<T> grad() const { return slot_ == nullptr ? BasicTensor<T>{} : *slot_->target; }
  /// The same value without a gradient.
  BasicVar detach() const { return {tape_, value_, nullptr}; }
  /// True if the backward pass can compute the value again instead of keeping it.
  bool is_recomputable() const { return static_cast<bool>(recipe_); }
  /// The value as a backward pass should keep it: computed again, or rounded to bf16 if the tape
  /// says so and nobody else keeps it, or itself.
  BasicSaved<T> saved() const;

 private:
  friend class BasicTape<T>;
  BasicTensor<T> value_;
  BasicTape<T>* tape_ = nullptr;
  detail::GradSlot<T>* slot_ = nullptr;
  mutable detail::RecipeRef<T> recipe_;  // saved() may give it one
  bool computed_ = false;                // by an operation on the tape
};

/// Reverse-mode record of one computation.
///
/// An operation is recorded only if one of its inputs wants a gradient; its node keeps what the
/// operation captured and nothing else. `backward` walks the nodes from the last to the first and
/// frees each one, with its gradient, as soon as it is done. Nodes live in a bump arena whose
/// chunks come from the memory pool, so a tape per step costs no system allocation in steady state.
/// Not thread safe: one tape per thread.
template <std::floating_point T>
class BasicTape {
 public:
  using Scalar = T;
  using Tensor = BasicTensor<T>;
  using Var = BasicVar<T>;
  using GradRef = BasicGradRef<T>;

  struct Options {
    bool gradients = true;   ///< false: nothing is recorded (inference)
    bool training = true;    ///< false: dropout is off
    std::uint64_t seed = 0;  ///< of dropout and other random operations
    bool merging = false;    ///< the result is read as a merged weight, where that differs
    /// What operations keep for their backward pass is rounded to bf16, in half the memory: inputs
    /// of adapters, norms, gated activations and attention, and of checkpoints. The forward pass is
    /// not changed; gradients are, by about 2⁻⁹ of their size. Tapes of double ignore it.
    bool bf16_saved = false;
    /// The value of what the computation ends in is not read, only its gradients (`checkpoint`).
    bool result_unread = false;
  };

  /// While one lives, nobody reads the values of results, so that an operation may leave them zero
  /// if that is cheaper; it still records what its gradients need.
  class Unread {
   public:
    Unread(BasicTape& tape, bool unread)
        : tape_(&tape), before_(std::exchange(tape.unread_, unread)) {}
    Unread(const Unread&) = delete;
    Unread& operator=(const Unread&) = delete;
    ~Unread() { tape_->unread_ = before_; }

   private:
    BasicTape* tape_;
    bool before_;
  };

  BasicTape() = default;
  explicit BasicTape(const Options& options) : options_(options) {}
  BasicTape(const BasicTape&) = delete;
  BasicTape& operator=(const BasicTape&) = delete;
  ~BasicTape();

  /// A value without a gradient.
  Var constant(Tensor value);
  /// A value whose gradient is kept: read it with `grad()` after the backward pass.
  Var leaf(Tensor value);
  /// A parameter; its gradient gathers in the parameter itself, over several backward passes.
  Var parameter(const BasicParameter<T>& parameter);

  /// Appends an operation with result `value`. `backward(dy)` receives the gradient of the result
  /// and adds to the inputs' gradients through the `GradRef`s that it captured. It is called at
  /// most once and only if a gradient arrived. If no input wants a gradient, nothing is recorded.
  template <class Backward>
  Var record(Tensor value, bool wants_gradient, Backward&& backward) {
    if (!wants_gradient || !options_.gradients) return constant(std::move(value));
    using Function = std::decay_t<Backward>;
    struct Operation final : Node {
      Operation(detail::GradSlot<T>* slot, Function&& f) : Node(slot), function(std::move(f)) {}
      void run(const Tensor& dy) override { function(dy); }
      Function function;
    };
    auto* slot = make_slot(value.shape(), nullptr);
    Function function(std::forward<Backward>(backward));
    auto* node = ::new (allocate(sizeof(Operation), alignof(Operation)))
        Operation(slot, std::move(function));
    return append(node, std::move(value));
  }

  /// The same value, which operations after this one need not keep: `compute()` gives it again in
  /// the backward pass, with the same bits, from tensors that it owns and that are kept anyway.
  template <class Compute>
  Var recomputable(Var var, Compute&& compute) {
    if (!options_.gradients) return var;
    var.recipe_ = detail::make_recipe<T>(std::forward<Compute>(compute));
    return var;
  }

  /// A result that its own operation keeps for its backward pass, as saved() would keep it; share()
  /// makes operations that take the result keep the same.
  BasicSaved<T> keep(const Tensor& value) const;
  Var share(Var var, const BasicSaved<T>& saved) const {
    if (saved.recipe()) var.recipe_ = saved.recipe();
    return var;
  }

  /// Gradients of `loss` (one element) with respect to every leaf and parameter that it depends on.
  /// The tape is empty afterwards, also if an operation throws. @throws ShapeError, ValueError
  void backward(const Var& loss) {
    if (loss.size() != 1)
      throw ShapeError(concat("Tape::backward: the loss has shape ", loss.shape().text(),
                              ", expected one element"));
    backward(loss, Tensor::full(loss.shape(), T{1}));
  }
  /// The same from a given gradient of `output`.
  void backward(const Var& output, const Tensor& gradient);

  /// Forgets all that was recorded. Values that were taken from the tape lose their gradients.
  void clear();

  const Options& options() const { return options_; }
  bool training() const { return options_.training; }
  bool gradients() const { return options_.gradients; }
  /// True inside the life of an `Unread`.
  bool unread() const { return unread_; }
  /// A number that is different for each call and a function of the seed and the number of calls
  /// before it.
  std::uint64_t next_random_key() {
    return splitmix64(options_.seed + kSplitMixStep * (++random_calls_));
  }
  std::uint64_t random_calls() const { return random_calls_; }
  void set_random_calls(std::uint64_t calls) { random_calls_ = calls; }

  /// What the forward pass of this tape is about (rows, tokens, tasks); read by adapters that
  /// depend on it.
  template <class Context>
  const Context* context() const {
    return static_cast<const Context*>(context_.get());
  }
  void set_context(std::shared_ptr<const void> context) { context_ = std::move(context); }
  const std::shared_ptr<const void>& shared_context() const { return context_; }

 private:
  struct Node {
    explicit Node(detail::GradSlot<T>* o) : out(o) {}
    virtual ~Node() = default;
    virtual void run(const Tensor& dy) = 0;
    Node* previous = nullptr;
    detail::GradSlot<T>* out;
  };
  struct SlotLink {
    SlotLink(const Shape& shape, Tensor* target, SlotLink* n) : slot(shape, target), next(n) {}
    detail::GradSlot<T> slot;
    SlotLink* next;
  };

  detail::GradSlot<T>* make_slot(const Shape& shape, Tensor* target);
  void* allocate(std::size_t bytes, std::size_t alignment);
  /// The result of an operation that is last from now on.
  Var append(Node* node, Tensor value);
  void drop_nodes() noexcept;

  Options options_;
  bool unread_ = false;
  Node* last_ = nullptr;
  SlotLink* slots_ = nullptr;
  MemoryPool::Block* chunks_ = nullptr;
  std::byte* cursor_ = nullptr;
  std::byte* limit_ = nullptr;
  std::uint64_t random_calls_ = 0;
  std::shared_ptr<const void> context_;
};

using Tape = BasicTape<float>;
using Var = BasicVar<float>;
using GradRef = BasicGradRef<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/impl/tape_impl.hpp"
#endif
