/* Several callers at a time, changing numbers of threads, a child process, and a library that comes and goes.
     threads <calls> <forks> [library [loads]]
   Without a library the program is linked; see test_package.py. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "model.h"

typedef int run_fn(const void *, const float *, float *, void *, int);

static run_fn *run;
static void *weights;
static float *x, *expected;
static size_t output_bytes, arena_bytes;
static int calls;

static int caller_calls(int caller, int calls) {
  float *y = malloc(output_bytes);
  char *arena = aligned_alloc(64, arena_bytes);
  int wrong = !y || !arena;
  for (int call = 0; call < calls && !wrong; ++call) {
    memset(y, 0, output_bytes);
    wrong = run(weights, x, y, arena, (call * 5 + caller) % 8 + 1) || memcmp(y, expected, output_bytes);
  }
  free(y), free(arena);
  return wrong;
}

static void *caller(void *number) { return (void *)(size_t)caller_calls((int)(size_t)number, calls); }

static int callers(void) {
  pthread_t threads[2];
  int wrong = 0;
  for (size_t i = 0; i < 2; ++i)
    if (pthread_create(threads + i, NULL, caller, (void *)i)) return 1;
  for (int i = 0; i < 2; ++i) {
    void *result;
    pthread_join(threads[i], &result);
    wrong |= result != NULL;
  }
  return wrong;
}

/* A child made while another thread is in the middle of a run. */
static int children(int forks) {
  pthread_t busy;
  int wrong = pthread_create(&busy, NULL, caller, (void *)1);
  for (int i = 0; i < forks && !wrong; ++i) {
    const pid_t child = fork();
    if (!child) _exit(caller_calls(i, 5));
    int status = 1;
    waitpid(child, &status, 0);
    wrong |= status;
  }
  void *result = NULL;
  pthread_join(busy, &result);
  return wrong || result != NULL;
}

int main(int count, char **names) {
  if (count < 3) return 2;
  const char *library = count > 3 ? names[3] : NULL;
  const int forks = atoi(names[2]), loads = count > 4 ? atoi(names[4]) : 1;
  calls = atoi(names[1]);
  output_bytes = model_output_floats() * 4, arena_bytes = model_arena_bytes();
  weights = aligned_alloc(64, model_weight_bytes());
  x = malloc(model_input_floats() * 4), expected = malloc(output_bytes);
  void *arena = aligned_alloc(64, arena_bytes);
  FILE *file = fopen("weights.bin", "rb");
  if (!file || fread(weights, 1, model_weight_bytes(), file) != model_weight_bytes()) return 3;
  fclose(file);
  for (size_t i = 0; i < model_input_floats(); ++i) x[i] = (float)(i % 17) - 8;
  model_run(weights, x, expected, arena);
  run = model_run_threads;
  int wrong = 0;
  for (int load = 0; load < loads; ++load) {
    void *loaded = library ? dlopen(library, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library) {
      run = loaded ? (run_fn *)dlsym(loaded, "model_run_threads") : NULL;
      if (!run) return fprintf(stderr, "%s\n", dlerror()), 3;
    }
    wrong |= callers();
    if (forks) wrong |= children(forks);
    /* workers wait now, in code that is about to go */
    if (loaded) dlclose(loaded);
  }
  free(weights), free(x), free(expected), free(arena);
  return wrong;
}
