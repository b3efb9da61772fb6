// What one core can do at most: fused multiply-adds of float32 and bytes loaded, printed as JSON. `peak.py` compiles it.
//   peak             numbers for 24 KiB, 512 KiB, 8 MiB and 256 MiB
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX2__)
#define BYTES 32
#else
#define BYTES 16
#endif

typedef float floats __attribute__((vector_size(BYTES)));
typedef int64_t words __attribute__((vector_size(BYTES)));

// The least of so many short runs: a moment without the machine's other work is enough.
enum { TRIES = 40 };
static const double SECONDS = 0.003;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Twelve independent sums, each waiting for itself alone: more than latency times units of any core we know, and they
// fit the sixteen registers of AVX2 beside the two factors. They have names, since gcc leaves an array in memory.
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
enum { SUMS = 12 };

static floats multiply_add(long rounds, floats x, floats y) {
#define START(i) floats a##i = x * (float)(i + 1);
  EACH(START)
  for (long round = 0; round < rounds; round++) {
#define STEP(i) a##i = a##i * x + y;
    EACH(STEP)
  }
  floats total = {0};
#define TOTAL(i) total += a##i;
  EACH(TOTAL)
  return total;
}

static double peak_flops(void) {
  // values that the compiler does not know, and that stay finite: a -> a / 2 + 1
  volatile float half = 0.5f, one = 1.0f;
  floats x = {0}, y = {0};
  x += half;
  y += one;
  volatile floats kept;
  long rounds = 1000;
  double best = 0;
  for (int try = 0; try < TRIES;) {
    double started = now();
    kept = multiply_add(rounds, x, y);
    double seconds = now() - started;
    if (seconds < SECONDS) {
      rounds *= 2;
      continue;
    }
    double flops = 2.0 * SUMS * (BYTES / sizeof(float)) * (double)rounds / seconds;
    if (flops > best) best = flops;
    try++;
  }
  (void)kept;
  return best;
}

// Reads everything once; exclusive or costs less than a load on every core.
static words load_all(const words *data, size_t count) {
  words a = {0}, b = {0}, c = {0}, d = {0};
  for (size_t i = 0; i < count; i += 8) {
    a ^= data[i] ^ data[i + 4];
    b ^= data[i + 1] ^ data[i + 5];
    c ^= data[i + 2] ^ data[i + 6];
    d ^= data[i + 3] ^ data[i + 7];
  }
  return a ^ b ^ c ^ d;
}

// Bytes a second, from a buffer of so many bytes, in pages of 4 KiB or huge ones where the system gives them.
static double bandwidth(size_t bytes, int huge) {
  const size_t page = (size_t)2 << 20;
  size_t reserved = (bytes + page - 1) / page * page;
  words *data = aligned_alloc(page, reserved);
  if (!data) return 0;
  madvise(data, reserved, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  // pages that were never written are all the same page of zeros, which lies in the nearest cache
  memset(data, 1, reserved);
  size_t count = bytes / sizeof(words);
  volatile words kept;
  long passes = 1;
  double best = 0;
  for (int try = 0; try < TRIES;) {
    double started = now();
    for (long pass = 0; pass < passes; pass++) {
      // the compiler must believe that the data changed, or one pass would do for all
      __asm__ volatile("" : : "r"(data) : "memory");
      kept = load_all(data, count);
    }
    double seconds = now() - started;
    if (seconds < SECONDS) {
      passes *= 2;
      continue;
    }
    double rate = (double)bytes * (double)passes / seconds;
    if (rate > best) best = rate;
    try++;
  }
  (void)kept;
  free(data);
  return best;
}

int main(void) {
  const size_t sizes[] = {(size_t)24 << 10, (size_t)512 << 10, (size_t)8 << 20, (size_t)256 << 20};
  printf("{\"vector_bytes\": %d, \"fma_gflops\": %.1f, \"loads\": [", BYTES, peak_flops() / 1e9);
  for (int i = 0; i < 4; i++) {
    printf("%s{\"bytes\": %zu, \"gb_per_second\": %.1f, \"gb_per_second_huge_pages\": %.1f}", i ? ", " : "", sizes[i],
           bandwidth(sizes[i], 0) / 1e9, bandwidth(sizes[i], 1) / 1e9);
  }
  printf("]}\n");
  return 0;
}
