#include "graft/train/image_dataset.hpp"

#include <catch2/catch.hpp>

#include "graft/io/atomic_file.hpp"
#include "io/temporary_folder.hpp"

namespace {

using Catch::Contains;

graft::LabelledImages load(const std::string& text, graft::PixelTableOptions options) {
  const graft_test::TemporaryFolder folder;
  graft::io::write_file_atomically(folder.path() / "a.csv", text);
  return graft::load_labelled_images(folder.path() / "a.csv", options);
}

}  // namespace

TEST_CASE("Images are read by channel, row and column, and scaled") {
  const std::string text =
      "a,b,c,d,label,e,f,g,h\n0,1,2,3,cat,4,5,6,7\n10,11,12,13,ant,14,15,16,17\n";
  graft::PixelTableOptions options;
  options.channels = options.size = 2;
  options.scale = {0.5, {1, 2}, {2}};
  const auto images = load(text, options);
  CHECK(images.rows == 2);
  CHECK(images.label_names == std::vector<std::string>{"ant", "cat"});
  CHECK(images.labels == std::vector<std::int64_t>{1, 0});
  REQUIRE(images.pixels.size() == 16);
  CHECK(images.pixels[3] == Approx((3 * 0.5 - 1) / 2));
  CHECK(images.pixels[4] == Approx((4 * 0.5 - 2) / 2));
  CHECK(images.pixels[15] == Approx((17 * 0.5 - 2) / 2));

  const auto data = graft::image_dataset(images, 2, 2);
  const std::vector<graft::Index> picked{1};
  const auto batch = data.batch(picked);
  CHECK(batch.pixels.shape() == graft::Shape{1, 2, 2, 2});
  CHECK(batch.pixels[7] == images.pixels[15]);
  CHECK(batch.labels == std::vector<std::int64_t>{0});
}

TEST_CASE("Errors in tables of images name what is wrong") {
  graft::PixelTableOptions one;
  one.size = 1;
  CHECK_THROWS_WITH(load("label,a,b\nx,1,2\n", one),
                    Contains("2 pixel columns") && Contains("1 x 1 x 1"));
  CHECK_THROWS_WITH(load("label,a\nx,1\ny,nan\n", one), Contains("a.csv:3") && Contains("'nan'"));
  CHECK_THROWS_WITH(load("label,a\nx,1\ny,1e300\n", one), Contains("'1e300' is not a finite"));
  CHECK_THROWS_WITH(load("label,a\nx,1\nx,2\n", one), Contains("all 2 rows have the label 'x'"));
  CHECK_THROWS_WITH(load("class,a\nx,1\n", one), Contains("no column 'label'; columns: class, a"));
  auto named = one;
  named.label_names = {"x", "y"};
  CHECK_THROWS_WITH(load("label,a\nz,1\n", named), Contains("a.csv:2") && Contains("'z'"));
  auto scale = one;
  scale.scale.mean = {1, 2};
  CHECK_THROWS_AS(load("label,a\nx,1\ny,2\n", scale), graft::ValueError);
}

TEST_CASE("The scale of pixels comes from the model's folder") {
  const graft_test::TemporaryFolder folder;
  CHECK(graft::pixel_scale_of(folder.path()).rescale == 1.0 / 255);
  graft::io::write_file_atomically(
      folder.path() / "preprocessor_config.json",
      R"({"rescale_factor": 0.0625, "image_mean": [0.25], "image_std": [0.75]})");
  const auto scale = graft::pixel_scale_of(folder.path());
  CHECK(scale.rescale == 0.0625);
  CHECK(scale.mean == std::vector<double>{0.25});
  CHECK(scale.deviation == std::vector<double>{0.75});
}
