/* Runs every program of suite.h on its files, on one thread and on three; see test_package.py.
   Memory between two arrays is poisoned, where the compiler can do that: no kernel may touch it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct program {
  const char *folder;
  size_t (*weights)(void), (*arena)(void), (*input)(void), (*output)(void);
  void (*run)(const void *, const float *, float *, void *);
  int (*run_threads)(const void *, const float *, float *, void *, int);
  const size_t (*weight_holes)[2], (*arena_holes)[2];
  int weight_hole_count, arena_hole_count;
};

#include "suite.h"

#if defined(__SANITIZE_ADDRESS__)
void __asan_poison_memory_region(void const volatile *address, size_t size);
void __asan_unpoison_memory_region(void const volatile *address, size_t size);
#define POISON(p, size) __asan_poison_memory_region(p, size)
#define UNPOISON(p, size) __asan_unpoison_memory_region(p, size)
#else
#define POISON(p, size) (void)(p)
#define UNPOISON(p, size) (void)(p)
#endif

static void *take(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!memory) exit(3);
  return memory;
}

static void *contents(const struct program *p, const char *name, size_t bytes) {
  char path[64];
  snprintf(path, sizeof path, "%s.%s", p->folder, name);
  FILE *file = fopen(path, "rb");
  /* not rounded up: a byte past the end is one too many */
  void *memory = bytes % 64 ? malloc(bytes) : take(bytes);
  if (!file || !memory || fread(memory, 1, bytes, file) != bytes) exit(3);
  fclose(file);
  return memory;
}

int main(int count, char **names) {
  /* bytes by which the weights are moved off their place */
  const size_t shift = count > 1 ? (size_t)atoi(names[1]) : 0;
  for (size_t i = 0; i < sizeof programs / sizeof *programs; ++i) {
    const struct program *p = programs + i;
    char *weights = contents(p, "weights", p->weights());
    float *x = contents(p, "input", p->input() * 4);
    float *y = malloc(p->output() * 4), *again = malloc(p->output() * 4);
    char *arena = take(p->arena());
    memset(arena, 255, p->arena());
    for (int hole = 0; hole < p->weight_hole_count; ++hole)
      POISON(weights + p->weight_holes[hole][0], p->weight_holes[hole][1]);
    for (int hole = 0; hole < p->arena_hole_count; ++hole)
      POISON(arena + p->arena_holes[hole][0], p->arena_holes[hole][1]);
    p->run(weights + shift, x, y, arena);
    if (p->run_threads(weights + shift, x, again, arena, 3) || memcmp(y, again, p->output() * 4)) return 4;
    char path[64];
    snprintf(path, sizeof path, "%s.output", p->folder);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(y, 4, p->output(), file) != p->output() || fclose(file)) return 3;
    UNPOISON(weights, p->weights());
    UNPOISON(arena, p->arena());
    free(weights), free(x), free(y), free(again), free(arena);
  }
  return 0;
}
