#include "child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include <cerrno>
#include <cstring>

#include "graft/base/error.hpp"

namespace cli {

ChildResult run_self(const std::vector<std::string>& arguments,
                     const std::function<void(const std::string&)>& line,
                     const std::function<bool()>& stop) {
  std::vector<std::string> words{"graft"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw graft::IoError(graft::concat("cannot make a pipe: ", std::strerror(errno)));
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    throw graft::IoError(graft::concat("cannot start a process: ", std::strerror(errno)));
  }
  if (child == 0) {
#if defined(__linux__)
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
#endif
    ::setpgid(0, 0);  // Ctrl-C reaches it through `stop` only
    ::dup2(ends[1], STDOUT_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    ::execv("/proc/self/exe", argv.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  ChildResult result;
  std::string pending;
  const auto take_lines = [&] {
    for (std::size_t end = pending.find('\n'); end != pending.npos; end = pending.find('\n')) {
      if (end > 0) {
        result.last_line = pending.substr(0, end);
        line(result.last_line);
      }
      pending.erase(0, end + 1);
    }
  };
  bool asked = false;
  for (char buffer[4096];;) {
    if (!asked && stop()) {
      ::kill(child, SIGTERM);
      asked = true;
    }
    pollfd wait{ends[0], POLLIN, 0};
    const int ready = ::poll(&wait, 1, 200);
    if (ready < 0 && errno != EINTR) break;
    if (ready <= 0) continue;
    const ssize_t count = ::read(ends[0], buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    pending.append(buffer, static_cast<std::size_t>(count));
    take_lines();
  }
  pending += '\n';
  take_lines();
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace cli
