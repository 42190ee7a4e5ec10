#include "graft/optim/clip.hpp"

#include <catch2/catch.hpp>

#include "graft/base/thread_pool.hpp"

using graft::Parameter;
using graft::Tensor;

TEST_CASE("the norm runs over all gradients there are") {
  const Parameter a(Tensor::zeros({2})), b(Tensor::zeros({3})), c(Tensor::zeros({1}));
  a.mutable_grad() = Tensor::from({3, 0}, {2});
  b.mutable_grad() = Tensor::from({0, -4, 12}, {3});
  CHECK(graft::gradient_norm<float>({a, b, c}) == Approx(13));
  CHECK(graft::gradient_norm<float>({c}) == 0);
}

TEST_CASE("the norm has the same bits on any number of threads") {
  const Parameter p(Tensor::zeros({300001}));
  auto g = Tensor::empty({300001});
  for (graft::Index i = 0; i < g.size(); ++i)
    g[i] = static_cast<float>((i * 7919) % 1000) * 1e-3F - 0.5F;
  p.mutable_grad() = g;
  auto& pool = graft::ThreadPool::global();
  const int before = pool.threads();
  pool.set_threads(1);
  const double one = graft::gradient_norm<float>({p});
  pool.set_threads(3);
  const double three = graft::gradient_norm<float>({p});
  pool.set_threads(before);
  CHECK(one == three);
}

TEST_CASE("clipping scales down to the largest norm and leaves smaller gradients alone") {
  CHECK(graft::clip_factor(10, 2) == Approx(0.2).epsilon(1e-6));
  CHECK(graft::clip_factor(1, 2) == 1);
  CHECK(graft::clip_factor(10, 0) == 1);
}
