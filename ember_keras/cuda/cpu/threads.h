// A team of threads that work on one call.
#pragma once

namespace ember {

struct Barrier;

struct Team {
  int rank, size;
  Barrier* barrier;
  // Waits until every thread of the team came here.
  void wait() const;
};

// Calls work(argument, team) on up to `threads` threads at once, this one among them, and returns
// when all are done. There may be fewer, where the machine gives no more; the team says how many.
void run_team(int threads, void (*work)(void*, const Team&), void* argument);

// From now on teams are those of an OpenMP: parallel(f, data, threads, 0) calls f(data) in each thread
// of one, where number() and size() say which it is and how many there are. Null: our own threads.
using Parallel = void (*)(void (*f)(void*), void* data, unsigned threads, unsigned flags);
void use_openmp(Parallel parallel, int (*number)(), int (*size)());

}  // namespace ember
