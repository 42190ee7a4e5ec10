#pragma once

#include <utility>

#include "graft/autograd/ops/attention.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> attention(const BasicVar<T>& q, const BasicVar<T>& k, const BasicVar<T>& v,
                      const AttentionOptions<T>& options) {
  auto& tape = detail::common_tape("attention", q, k, v);
  kernels::AttentionArgs<T> args{};
  args.batch = options.batch;
  args.heads = options.heads;
  args.kv_heads = options.kv_heads;
  if (options.heads <= 0 || options.kv_heads <= 0 || options.heads % options.kv_heads != 0 ||
      options.batch <= 0 || q.rows() % options.batch != 0 || k.rows() % options.batch != 0 ||
      v.rows() != k.rows() || q.cols() % options.heads != 0 ||
      k.cols() != q.cols() / options.heads * options.kv_heads || v.cols() % options.kv_heads != 0)
    throw ShapeError(concat("attention: q ", q.shape().text(), ", k ", k.shape().text(), ", v ",
                            v.shape().text(), " for batch ", options.batch, ", ", options.heads,
                            " heads and ", options.kv_heads, " key/value heads"));
  args.q_len = q.rows() / options.batch;
  args.kv_len = k.rows() / options.batch;
  args.head_dim = q.cols() / options.heads;
  args.v_head_dim = v.cols() / options.kv_heads;
  if (options.bias && options.bias.value().size() != options.heads * args.q_len * args.kv_len)
    throw ShapeError(concat("attention: bias ", options.bias.shape().text(), ", expected [",
                            options.heads, ", ", args.q_len, ", ", args.kv_len, "]"));
  if (options.key_mask && static_cast<Index>(options.key_mask->size()) != k.rows())
    throw ShapeError(
        concat("attention: key mask of ", options.key_mask->size(), " for ", k.rows(), " keys"));
  args.q = q.value().data();
  args.ldq = q.cols();
  args.k = k.value().data();
  args.ldk = k.cols();
  args.v = v.value().data();
  args.ldv = v.cols();
  args.scale = options.scale;
  args.causal = options.causal;
  args.window = options.window;
  args.key_mask = options.key_mask ? options.key_mask->data() : nullptr;
  args.bias = options.bias ? options.bias.value().data() : nullptr;
  args.softcap = options.softcap;
  args.compute = options.compute;
  const Index width = args.v_head_dim * options.heads;
  auto y = BasicTensor<T>::empty(q.shape().with_last(width));
  auto lse = BasicTensor<T>::empty({options.batch * options.heads * args.q_len});
  kernels::attention_forward(args, y.data(), width, lse.data());
  const bool wants_bias = options.bias && options.bias.requires_grad();
  const bool wanted = q.requires_grad() || k.requires_grad() || v.requires_grad() || wants_bias;
  const auto kept_y = wanted ? tape.keep(y) : BasicSaved<T>{};
  auto result = tape.record(
      y, wanted,
      [args, kept_y, lse, width, mask = options.key_mask,
       kept_bias = options.bias ? options.bias.value() : BasicTensor<T>{},
       gbias = options.bias ? options.bias.grad_ref() : BasicGradRef<T>{}, kept_q = q.saved(),
       kept_k = k.saved(), kept_v = v.saved(), gq = q.grad_ref(), gk = k.grad_ref(),
       gv = v.grad_ref()](const BasicTensor<T>& dy) {
        auto again = args;
        again.q = kept_q.get().data();
        again.k = kept_k.get().data();
        again.v = kept_v.get().data();
        if (again.bias != nullptr) again.bias = kept_bias.data();
        kernels::attention_backward(
            again, kept_y.get().data(), width, lse.data(), dy.data(), width,
            gq ? gq.accumulator() : nullptr, args.ldq, gk ? gk.accumulator() : nullptr, args.ldk,
            gv ? gv.accumulator() : nullptr, args.ldv, gbias ? gbias.accumulator() : nullptr);
      });
  return tape.share(std::move(result), kept_y);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                 \
  template BasicVar<T> attention(const BasicVar<T>&, const BasicVar<T>&, const BasicVar<T>&, \
                                 const AttentionOptions<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
