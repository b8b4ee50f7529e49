// A launch's blocks on several host threads. A block that waits for others gives
// way to them; as many blocks are under way at once as the device would hold.
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <thread>

#include "detect.h"
#include "exec.h"
#include "options.h"

namespace sim {
namespace {

using Clock = std::chrono::steady_clock;

// Blocks are kept for later launches, since the constants of a kernel lie in
// their registers. The newest are last.
class Blocks {
 public:
  std::unique_ptr<Block> take(const Launch& l) {
    std::lock_guard hold(lock_);
    for (size_t n = free_.size(); n-- > 0;)
      if (free_[n]->fits(l)) return remove(n);
    return free_.size() < kept ? std::make_unique<Block>() : remove(0);
  }
  void give(std::unique_ptr<Block> b) {
    std::lock_guard hold(lock_);
    if (free_.size() < 2 * kept) free_.push_back(std::move(b));
  }

 private:
  static constexpr size_t kept = 48;
  std::unique_ptr<Block> remove(size_t n) {
    auto b = std::move(free_[n]);
    free_.erase(free_.begin() + static_cast<long>(n));
    return b;
  }
  std::mutex lock_;
  std::vector<std::unique_ptr<Block>> free_;
};

Blocks& blocks() {
  static auto* all = new Blocks;
  return *all;
}

// A launch under way. A fault stops the blocks behind the faulty one; those
// before it end, so that the first of several faults is the one that is told.
class Grid {
 public:
  explicit Grid(Launch& l) : launch_(l), limit_(l.blocks()) {
    l.noted = options().count || options().check;
    l.deadline = Clock::now() + std::chrono::seconds(options().timeout);
  }

  // Runs blocks until none is left that another thread does not run.
  void work() {
    Counts counts;
    std::unique_lock hold(lock_);
    while (auto b = next(hold)) {
      bool done = false, lost = false;
      Fault fault{0, "", -1};
      uint64_t n = b->number;
      hold.unlock();
      try {
        done = b->run();
      } catch (Fault& f) {
        fault = f;
        lost = true;
      }
      if (done || lost) counts.add(b->tally);
      hold.lock();
      if (lost) fail(n, fault);
      if (done || lost || n >= limit_) {
        active_--;
        stalled_ = 0;
        hold.unlock();
        blocks().give(std::move(b));
        hold.lock();
      } else {
        wait(std::move(b));
      }
    }
    total_.add(counts);
  }

  int end() {
    if (fault_.code) fprintf(stderr, "software CUDA device: %s\n", fault_.what.c_str());
    total_.launches = 1;
    if (options().count) count_launch(launch_.kernel->name, total_);
    return fault_.code;
  }

  int users = 0;  // threads of the pool, guarded by the pool

 private:
  std::unique_ptr<Block> next(std::unique_lock<std::mutex>& hold) {
    if (next_ < limit_ && active_ < static_cast<uint64_t>(launch_.resident)) {
      uint64_t n = next_++;
      active_++;
      stalled_ = 0;
      hold.unlock();
      auto b = blocks().take(launch_);
      b->begin(launch_, n);
      hold.lock();
      return b;
    }
    while (!waiting_.empty()) {
      auto b = std::move(waiting_.front());
      waiting_.pop_front();
      if (b->number < limit_) return b;
      active_--;
    }
    return nullptr;
  }

  void wait(std::unique_ptr<Block> b) {
    stalled_ = b->stores ? 0 : stalled_ + 1;
    b->stores = 0;
    if (stalled_ > 1000 + 100 * active_)
      fail(b->number, {702, describe(*b, nullptr, -1, 0, "the launch does not end: its " + std::to_string(active_) + " blocks under way wait for something that none of them does"), -1});
    waiting_.push_back(std::move(b));
  }

  void fail(uint64_t block, const Fault& f) {
    if (block >= limit_) return;
    limit_ = block;
    fault_ = f;
  }

  Launch& launch_;
  std::mutex lock_;
  uint64_t next_ = 0, limit_, active_ = 0, stalled_ = 0;
  std::deque<std::unique_ptr<Block>> waiting_;
  Fault fault_{0, "", -1};
  Counts total_;
};

// Threads that help with one launch at a time.
class Pool {
 public:
  // Takes part in g with the pool's threads, if they are free.
  void run(Grid& g, uint64_t blocks) {
    std::unique_lock busy(busy_, std::defer_lock);
    if (blocks < 2 || options().threads < 2 || !busy.try_lock()) return g.work();
    {
      std::lock_guard hold(lock_);
      while (threads_ < options().threads - 1) {
        std::thread([this] { help(); }).detach();
        threads_++;
      }
      grid_ = &g;
      turn_++;
    }
    wanted_.notify_all();
    g.work();
    std::unique_lock hold(lock_);
    grid_ = nullptr;
    left_.wait(hold, [&] { return g.users == 0; });
  }

 private:
  [[noreturn]] void help() {
    std::unique_lock hold(lock_);
    for (uint64_t seen = 0;;) {
      wanted_.wait(hold, [&] { return grid_ && turn_ != seen; });
      seen = turn_;
      Grid& g = *grid_;
      g.users++;
      hold.unlock();
      g.work();
      hold.lock();
      if (--g.users == 0) left_.notify_all();
    }
  }

  std::mutex busy_, lock_;
  std::condition_variable wanted_, left_;
  Grid* grid_ = nullptr;
  uint64_t turn_ = 0;
  int threads_ = 0;
};

}  // namespace

int execute(Launch& launch) {
  static auto* pool = new Pool;
  Grid g(launch);
  pool->run(g, launch.blocks());
  return g.end();
}

}  // namespace sim
