#include "graft/adapters/low_rank/hipa.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("the high-pass filter leaves out constants and keeps what it has passed") {
  const auto image = checks::random_tensor<double>({2, 7, 10}, 1);
  auto brighter = image.clone();
  for (double& v : brighter) v += 3;
  graft::BasicTape<double> tape;
  const auto one = graft::high_pass(tape.constant(image), 0.3);
  CHECK(checks::relative_error(graft::high_pass(tape.constant(brighter), 0.3).value(),
                               one.value()) < 1e-12);
  CHECK(checks::relative_error(graft::high_pass(one, 0.3).value(), one.value()) < 1e-12);
  CHECK(checks::relative_error(one.value(), image) > 0.05);
}

TEST_CASE("the loss of high frequencies has the gradient of its function") {
  graft::HiPAConfig config;
  config.loss_weight = 1.7;
  const auto teacher = checks::random_tensor<double>({2, 5, 6}, 2);
  const std::vector<graft::BasicParameter<double>> student{
      graft::BasicParameter<double>(checks::random_tensor<double>({2, 5, 6}, 3))};
  const auto loss = [&](graft::BasicTape<double>& tape) {
    return graft::high_frequency_loss(tape.parameter(student[0]), tape.constant(teacher), config);
  };
  CHECK(graft::gradient_check(loss, student).relative_error < 1e-6);
  student[0].assign(teacher.clone());
  graft::BasicTape<double> tape;
  CHECK(loss(tape).item() == Approx(0).margin(1e-12));
  CHECK_THROWS_AS(graft::sobel_edges(tape.constant(graft::BasicTensor<double>::zeros({2, 5}))),
                  graft::ShapeError);
}
