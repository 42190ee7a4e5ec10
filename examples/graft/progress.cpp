#include "progress.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>

#include "command.hpp"
#include "graft/train/metrics.hpp"

#if defined(GRAFT_HAVE_BARKEEP)
#include <barkeep/barkeep.h>
#endif

namespace cli {

using graft::Index;

#if defined(GRAFT_HAVE_BARKEEP)
struct Progress::Bar {
  std::atomic<Index> done;  // barkeep reads it from a thread of its own
  std::shared_ptr<barkeep::StatusDisplay> words;
  std::shared_ptr<barkeep::CompositeDisplay> display;

  Bar(Index steps, Index first) : done(first) { show(steps); }
  void show(Index steps) {
    barkeep::ProgressBarConfig<Index> bar;
    bar.total = steps;
    bar.show = false;
    barkeep::AnimationConfig text;  // changing words beside the bar: a status without animation
    text.style = barkeep::Strings{""};
    text.show = false;
    if (words) text.message = words->message();
    words = barkeep::Status(text);
    display = barkeep::Composite({barkeep::ProgressBar(&done, bar), words});
    display->show();
  }
};
#else
struct Progress::Bar {};
#endif

Progress::Progress(Index steps, Index done) : steps_(steps), first_(done) {
#if defined(GRAFT_HAVE_BARKEEP)
  if (on_terminal()) bar_ = std::make_unique<Bar>(steps, done);
#endif
}

Progress::~Progress() { finish(); }

void Progress::step(const graft::StepReport& r) {
  const auto left = static_cast<long>(r.seconds_left + 0.5);
  char text[200];
  std::snprintf(text, sizeof text,
                "step %td/%td  loss %.4f  lr %.2e  %.0f tokens/s  %ld:%02ld left", r.step, steps_,
                r.loss, r.learning_rate, r.tokens_per_second, left / 60, left % 60);
#if defined(GRAFT_HAVE_BARKEEP)
  if (bar_) {
    bar_->done = r.step;
    bar_->words->message(text);
    return;
  }
#endif
  const Index every = std::max<Index>(1, steps_ / 20);
  if (r.step == steps_ || r.step == first_ + 1 || r.step % every == 0) say(text);
}

void Progress::line(const std::string& text) {
#if defined(GRAFT_HAVE_BARKEEP)
  if (bar_) {
    bar_->display->done();
    say(text);
    if (bar_->done < steps_) bar_->show(steps_);
    return;
  }
#endif
  say(text);
}

void Progress::finish() {
#if defined(GRAFT_HAVE_BARKEEP)
  if (bar_) bar_->display->done();
#endif
  bar_.reset();
}

}  // namespace cli
