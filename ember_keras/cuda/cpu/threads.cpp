#include "threads.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace ember {

// Waits a few microseconds in a loop, then sleeps.
struct Barrier {
  explicit Barrier(int size) : size_(size) {}
  // Each thread may say how many there are before it waits for the first time; all say the same.
  void set_size(int size) { size_.store(size, std::memory_order_relaxed); }
  void wait() {
    const unsigned round = round_.load(std::memory_order_acquire);
    const int size = size_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived_.store(0, std::memory_order_relaxed);
      {
        const std::lock_guard<std::mutex> guard(lock_);
        round_.store(round + 1, std::memory_order_release);
      }
      next_.notify_all();
      return;
    }
    for (int i = 0; i < 2000; ++i) {
      if (round_.load(std::memory_order_acquire) != round) return;
    }
    std::unique_lock<std::mutex> guard(lock_);
    next_.wait(guard, [&] { return round_.load(std::memory_order_acquire) != round; });
  }

 private:
  std::atomic<int> size_;
  std::atomic<int> arrived_{0};
  std::atomic<unsigned> round_{0};
  std::mutex lock_;
  std::condition_variable next_;
};

void Team::wait() const {
  if (size > 1) barrier->wait();
}

namespace {

struct Worker {
  std::mutex lock;
  std::condition_variable changed;
  void (*work)(void*, const Team&) = nullptr;
  void* argument = nullptr;
  Team team = {0, 1, nullptr};
  bool busy = false;

  void loop() {
    std::unique_lock<std::mutex> guard(lock);
    for (;;) {
      changed.wait(guard, [&] { return busy; });
      guard.unlock();
      work(argument, team);
      guard.lock();
      busy = false;
      changed.notify_all();
    }
  }
};

// Workers that no call uses. They are never ended; a forked child starts with none.
std::mutex* idle_lock = new std::mutex();
std::vector<Worker*>* idle = new std::vector<Worker*>();

void before_fork() { idle_lock->lock(); }
void in_parent() { idle_lock->unlock(); }
void in_child() {
  idle_lock = new std::mutex();
  idle = new std::vector<Worker*>();
}
const int registered = pthread_atfork(before_fork, in_parent, in_child);

Worker* take_worker() {
  {
    const std::lock_guard<std::mutex> guard(*idle_lock);
    if (!idle->empty()) {
      Worker* worker = idle->back();
      idle->pop_back();
      return worker;
    }
  }
  Worker* worker = nullptr;
  try {
    worker = new Worker();
    std::thread(&Worker::loop, worker).detach();
    return worker;
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {
  }
  delete worker;
  return nullptr;
}

// A framework's OpenMP, whose threads look for work for a while before they sleep: they would take
// turns with ours for the same cores.
struct OpenMp {
  Parallel parallel;
  int (*number)();
  int (*size)();
};
std::atomic<const OpenMp*> openmp{nullptr};

struct Job {
  const OpenMp* openmp;
  void (*work)(void*, const Team&);
  void* argument;
  Barrier barrier;
};

void do_job(void* data) {
  Job& job = *static_cast<Job*>(data);
  const Team team = {job.openmp->number(), job.openmp->size(), &job.barrier};
  job.barrier.set_size(team.size);
  job.work(job.argument, team);
}

}  // namespace

void use_openmp(Parallel parallel, int (*number)(), int (*size)()) {
  // Those that stood before may be in use: they are left.
  openmp.store(parallel ? new OpenMp{parallel, number, size} : nullptr);
}

void run_team(int threads, void (*work)(void*, const Team&), void* argument) {
  (void)registered;
  const OpenMp* given = openmp.load();
  if (given && threads > 1) {
    Job job = {given, work, argument, Barrier(1)};
    given->parallel(do_job, &job, unsigned(threads), 0);
    return;
  }
  std::vector<Worker*> workers;
  try {
    workers.reserve(threads);
    const std::lock_guard<std::mutex> guard(*idle_lock);
    idle->reserve(idle->size() + threads);
  } catch (const std::bad_alloc&) {
    threads = 1;
  }
  while (int(workers.size()) + 1 < threads) {
    Worker* worker = take_worker();
    if (!worker) break;
    workers.push_back(worker);
  }
  const int size = int(workers.size()) + 1;
  Barrier barrier(size);
  for (int i = 0; i + 1 < size; ++i) {
    Worker& worker = *workers[i];
    {
      const std::lock_guard<std::mutex> guard(worker.lock);
      worker.work = work;
      worker.argument = argument;
      worker.team = {i + 1, size, &barrier};
      worker.busy = true;
    }
    worker.changed.notify_all();
  }
  work(argument, {0, size, &barrier});
  for (Worker* worker : workers) {
    std::unique_lock<std::mutex> guard(worker->lock);
    worker->changed.wait(guard, [&] { return !worker->busy; });
  }
  const std::lock_guard<std::mutex> guard(*idle_lock);
  for (Worker* worker : workers) {
    try {
      idle->push_back(worker);
    } catch (const std::bad_alloc&) {
      // It is lost: it sleeps to the end of the process.
    }
  }
}

}  // namespace ember
