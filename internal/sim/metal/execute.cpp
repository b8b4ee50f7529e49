// Threadgroups of a dispatch, spread over host threads.
#include "execute.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "group.h"
#include "options.h"

namespace metalsim {
namespace {

// Host threads that help the caller with one piece of work at a time.
class Workers {
 public:
  static Workers& get() {
    static auto* w = new Workers(options().threads);
    return *w;
  }

  // Runs f on n threads, of which the caller is one.
  void run(unsigned n, const std::function<void()>& f) {
    std::unique_lock hold(lock_);
    work_ = &f;
    left_ = busy_ = std::min<unsigned>(n, static_cast<unsigned>(threads_.size()) + 1) - 1;
    if (left_) wake_.notify_all();
    hold.unlock();
    f();
    hold.lock();
    done_.wait(hold, [&] { return busy_ == 0; });
  }

 private:
  std::mutex lock_;
  std::condition_variable wake_, done_;
  const std::function<void()>* work_ = nullptr;
  unsigned left_ = 0, busy_ = 0;
  std::vector<std::thread> threads_;

  explicit Workers(unsigned n) {
    for (unsigned i = 1; i < n; i++) threads_.emplace_back([this] { serve(); });
  }

  void serve() {
    std::unique_lock hold(lock_);
    while (true) {
      wake_.wait(hold, [&] { return left_ > 0; });
      left_--;
      const std::function<void()>& f = *work_;
      hold.unlock();
      f();
      hold.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }
};

// Ends dispatches that take too long: looks at the one that runs a few times a second.
class Watch {
 public:
  static Watch& get() {
    static auto* w = new Watch;
    return *w;
  }
  void begin() {
    std::lock_guard hold(lock_);
    threads_.clear();
    late_ = std::chrono::steady_clock::now() + std::chrono::seconds(options().timeout);
  }
  void enter() {
    std::lock_guard hold(lock_);
    threads_.push_back(pthread_self());
  }
  void leave() {
    std::lock_guard hold(lock_);
    threads_.erase(std::find(threads_.begin(), threads_.end(), pthread_self()));
  }

 private:
  std::mutex lock_;
  std::vector<pthread_t> threads_;  // that run the dispatch
  std::chrono::steady_clock::time_point late_;

  Watch() {
    std::thread([this] {
      while (true) {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        std::lock_guard hold(lock_);
        if (std::chrono::steady_clock::now() < late_) continue;
        for (auto t : threads_) pthread_kill(t, timeout_signal());
      }
    }).detach();
  }
};

Failure failed_before(const Dispatch& d) {
  for (unsigned i = 0; i < max_buffers; i++)
    if (auto& m = d.arguments[i].memory; m && m->released)
      return {9, "kernel " + d.kernel->name + ": buffer " + std::to_string(i) + (m->label.empty() ? "" : " \"" + m->label + "\"") + " was released before its use"};
  return {};
}

}  // namespace

Failure execute(const Dispatch& d) {
  if (Failure f = failed_before(d); f.code) return f;
  bool counts = !options().counts.empty();
  for (auto& a : d.arguments)
    if (a.memory) a.memory->watch(d.concurrent, counts);
  uint64_t total = uint64_t{d.groups[0]} * d.groups[1] * d.groups[2];
  std::atomic<uint64_t> next{0};
  std::atomic<bool> stopped{false};
  std::mutex lock;
  Failure failure;
  Counts all;
  uint64_t turn = options().order % 2 ? total - 1 : 0;  // threadgroups in the other direction
  Watch::get().begin();
  Workers::get().run(static_cast<unsigned>(std::min<uint64_t>(total, options().threads)), [&] {
    Group g(d);
    Watch::get().enter();
    for (uint64_t n; !stopped && (n = next++) < total;) {
      uint64_t i = turn ? turn - n : n;
      unsigned position[3] = {static_cast<unsigned>(i % d.groups[0]), static_cast<unsigned>(i / d.groups[0] % d.groups[1]), static_cast<unsigned>(i / d.groups[0] / d.groups[1])};
      if (!g.run(position)) stopped = true;
    }
    Watch::get().leave();
    std::lock_guard hold(lock);
    if (g.failure.code && !failure.code) failure = g.failure;
    all.add(g.counts);
  });
  all.dispatches = 1;
  if (counts) count(d.kernel->name, all);
  return failure;
}

}  // namespace metalsim
