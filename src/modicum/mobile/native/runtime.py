"""C text around the kernels: the steps in turn, threads, the header, and the handler for XLA."""

ENTRY = """
typedef void step_fn(const char *w, const float *x, float *y, char *arena, int part, int parts);

size_t {name}_arena_bytes(void) {{ return {arena}; }}
size_t {name}_weight_bytes(void) {{ return {weights}; }}

void {name}_run(const void *weights, const float *x, float *y, void *arena) {{
  for (size_t i = 0; i < sizeof steps / sizeof *steps; ++i) steps[i](weights, x, y, arena, 0, 1);
}}

/* One layer alone, for profiles; those before it must have run. */
void {name}_step(size_t step, const void *weights, const float *x, float *y, void *arena) {{
  steps[step](weights, x, y, arena, 0, 1);
}}
"""

HEADER = """/* {name}: {input} floats in, {output} floats out for one image. Needs libc and threads alone. */
#ifndef {guard}
#define {guard}
#include <stddef.h>
#ifdef __cplusplus
extern "C" {{
#endif
/* Bytes of the scratch memory that a run needs; what it holds before does not matter. */
size_t {name}_arena_bytes(void);
/* Bytes of the weights file. */
size_t {name}_weight_bytes(void);
/* One image. Weights and arena begin at multiples of 64 bytes; no memory is allocated, nothing is kept. */
void {name}_run(const void *weights, const float *x, float *y, void *arena);
/* The same on several threads, this one among them, which must not run anything else at a time. Threads are started
   at the first call and wait for the next ones. Returns 0, or -1 where threads cannot be started. */
int {name}_run_threads(const void *weights, const float *x, float *y, void *arena, int threads);
#ifdef __cplusplus
}}
#endif
#endif
"""

THREADS = """
#ifndef MODICUM_NO_THREADS
#include <pthread.h>
#include <sched.h>
#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() (void)0
#endif
enum {{ MOST_THREADS = 64, SPINS = 20000 }};
static struct {{
  pthread_mutex_t caller, lock;
  pthread_cond_t wake;
  int workers, parts;
  unsigned run, seen, arrived, phase;
  const void *weights; const float *x; float *y; void *arena;
}} pool = {{PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER,
         0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL}};

/* All threads of a run meet after each step: the next one reads what this one wrote. */
static void meet(int parts) {{
  const unsigned phase = __atomic_load_n(&pool.phase, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&pool.arrived, 1, __ATOMIC_ACQ_REL) == (unsigned)parts) {{
    __atomic_store_n(&pool.arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&pool.phase, phase + 1, __ATOMIC_RELEASE);
    return;
  }}
  for (int spin = 0; __atomic_load_n(&pool.phase, __ATOMIC_ACQUIRE) == phase; ++spin)
    if (spin < SPINS) RELAX(); else sched_yield();
}}

static void run_part(int part, int parts) {{
  for (size_t i = 0; i < sizeof steps / sizeof *steps; ++i) {{
    steps[i](pool.weights, pool.x, pool.y, pool.arena, part, parts);
    meet(parts);
  }}
}}

static void *work(void *number) {{
  const int part = (int)(size_t)number;
  unsigned last = 0;
  pthread_mutex_lock(&pool.lock);
  last = pool.seen;
  pthread_mutex_unlock(&pool.lock);
  for (;;) {{
    for (int spin = 0; spin < SPINS && __atomic_load_n(&pool.run, __ATOMIC_ACQUIRE) == last; ++spin) RELAX();
    pthread_mutex_lock(&pool.lock);
    while (__atomic_load_n(&pool.run, __ATOMIC_ACQUIRE) == last) pthread_cond_wait(&pool.wake, &pool.lock);
    last = pool.run;
    const int parts = pool.parts;
    pthread_mutex_unlock(&pool.lock);
    if (part < parts) run_part(part, parts);
  }}
  return NULL;
}}

int {name}_run_threads(const void *weights, const float *x, float *y, void *arena, int threads) {{
  if (threads <= 1) {{ {name}_run(weights, x, y, arena); return 0; }}
  if (threads > MOST_THREADS) threads = MOST_THREADS;
  pthread_mutex_lock(&pool.caller);
  while (pool.workers < threads - 1) {{
    pthread_t thread;
    pthread_mutex_lock(&pool.lock);
    pool.seen = pool.run;
    pthread_mutex_unlock(&pool.lock);
    if (pthread_create(&thread, NULL, work, (void *)(size_t)(pool.workers + 1))) {{
      pthread_mutex_unlock(&pool.caller);
      return -1;
    }}
    pthread_detach(thread);
    ++pool.workers;
  }}
  pthread_mutex_lock(&pool.lock);
  pool.weights = weights; pool.x = x; pool.y = y; pool.arena = arena; pool.parts = threads;
  __atomic_store_n(&pool.run, pool.run + 1, __ATOMIC_RELEASE);
  pthread_cond_broadcast(&pool.wake);
  pthread_mutex_unlock(&pool.lock);
  run_part(0, threads);
  pthread_mutex_unlock(&pool.caller);
  return 0;
}}
#endif
"""

HANDLER = """
#ifdef MODICUM_XLA
#include "xla/ffi/api/c_api.h"
XLA_FFI_Error *{name}_xla(XLA_FFI_CallFrame *frame) {{
  if (frame->extension_start && frame->extension_start->type == XLA_FFI_Extension_Metadata) {{
    XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)frame->extension_start)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    metadata->traits = 0;
    return NULL;
  }}
  const XLA_FFI_Buffer *weights = frame->args.args[0], *x = frame->args.args[1];
  XLA_FFI_Buffer *y = frame->rets.rets[0], *arena = frame->rets.rets[1];
  for (int image = 0; image < {batch}; ++image) {{
    const float *in = (const float *)x->data + (size_t)image * {input};
    float *out = (float *)y->data + (size_t)image * {output};
    if ({name}_run_threads(weights->data, in, out, arena->data, {threads})) {{
      XLA_FFI_Error_Create_Args args = {{XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, "threads cannot be started",
                                        XLA_FFI_Error_Code_INTERNAL}};
      return frame->api->XLA_FFI_Error_Create(&args);
    }}
  }}
  return NULL;
}}
#endif
"""
