"""C text around the kernels: the steps in turn, threads, the header, and the handler for XLA."""

ENTRY = """
typedef void step_fn(const char *w, const float *x, float *y, char *arena, int part, int parts);

size_t {name}_input_floats(void) {{ return {input}; }}
size_t {name}_output_floats(void) {{ return {output}; }}
size_t {name}_arena_bytes(void) {{ return {arena}; }}
size_t {name}_weight_bytes(void) {{ return {weights}; }}

void {name}_run(const void *weights, const float *x, float *y, void *arena) {{
  for (size_t i = 0; i < sizeof steps / sizeof *steps; ++i) steps[i](weights, x, y, arena, 0, 1);
}}

/* One layer alone, some times over, for profiles; those before it must have run. */
void {name}_step(size_t step, const void *weights, const float *x, float *y, void *arena, int repeats) {{
  for (int i = 0; i < repeats; ++i) steps[step](weights, x, y, arena, 0, 1);
}}
"""

HEADER = """/* {name}: {input} floats in, {output} floats out for one image. Needs libc and threads alone. */
#ifndef {guard}
#define {guard}
#include <stddef.h>
#ifdef __cplusplus
extern "C" {{
#endif
/* Floats of one image, and of what comes out for it. */
size_t {name}_input_floats(void);
size_t {name}_output_floats(void);
/* Bytes of the scratch memory that a run needs; what it holds before does not matter. */
size_t {name}_arena_bytes(void);
/* Bytes of the weights file. */
size_t {name}_weight_bytes(void);
/* One image. Weights and arena begin at multiples of 64 bytes; no memory is allocated, nothing is kept. */
void {name}_run(const void *weights, const float *x, float *y, void *arena);
/* The same, bit for bit, on several threads, this one among them. The others are started at the first call, wait for
   the next ones, and end with the program or when the library is unloaded. Calls from several threads take turns and
   need an arena each. Returns 0, or -1 where threads cannot be started. Compiled with -DMODICUM_NO_THREADS: one
   thread. */
int {name}_run_threads(const void *weights, const float *x, float *y, void *arena, int threads);
#ifdef __cplusplus
}}
#endif
#endif
"""

THREADS = """
#ifdef MODICUM_NO_THREADS
__attribute__((unused)) static void meet(int parts) {{ (void)parts; }}

int {name}_run_threads(const void *weights, const float *x, float *y, void *arena, int threads) {{
  (void)threads;
  {name}_run(weights, x, y, arena);
  return 0;
}}
#else
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() (void)0
#endif
enum {{ MOST_THREADS = 64, SPINS = 20000 }};
/* `caller` is held for a whole run; `lock` guards all that a run tells its workers, up to `run`, its number. */
static struct {{
  pthread_mutex_t caller, lock;
  pthread_cond_t wake;
  pthread_t threads[MOST_THREADS];
  int workers, watched, cores;
  const void *weights; const float *x; float *y; void *arena;
  int parts, spins, stop;
  unsigned run, seen, arrived, phase;
}} pool = {{.caller = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER}};

/* All threads of a run meet after each step: the next one reads what this one wrote. */
static void meet(int parts) {{
  /* one thread alone may run beside those of the pool, whose counts it must not touch */
  if (parts == 1) return;
  /* read before this thread has arrived: the run may end, and the next one begin, right after */
  int spin = pool.spins;
  const unsigned phase = __atomic_load_n(&pool.phase, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&pool.arrived, 1, __ATOMIC_ACQ_REL) == (unsigned)parts) {{
    __atomic_store_n(&pool.arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&pool.phase, phase + 1, __ATOMIC_RELEASE);
    return;
  }}
  while (__atomic_load_n(&pool.phase, __ATOMIC_ACQUIRE) == phase)
    if (spin > 0) {{ --spin; RELAX(); }} else sched_yield();
}}

static void run_part(int part, int parts) {{
  for (size_t i = 0; i < sizeof steps / sizeof *steps; ++i) {{
    steps[i](pool.weights, pool.x, pool.y, pool.arena, part, parts);
    meet(parts);
  }}
}}

static void *work(void *number) {{
  const int part = (int)(size_t)number;
  pthread_mutex_lock(&pool.lock);
  /* the number of the run before the first one that needs this thread, which may have begun already */
  unsigned last = pool.seen;
  int spins = 0;
  for (;;) {{
    pthread_mutex_unlock(&pool.lock);
    for (; spins > 0 && __atomic_load_n(&pool.run, __ATOMIC_RELAXED) == last; --spins) RELAX();
    pthread_mutex_lock(&pool.lock);
    while (pool.run == last) pthread_cond_wait(&pool.wake, &pool.lock);
    if (pool.stop) break;
    last = pool.run;
    const int parts = pool.parts;
    spins = pool.spins;
    /* a run that needs this thread cannot end without it, so none of those is missed */
    if (part >= parts) {{ spins = 0; continue; }}
    pthread_mutex_unlock(&pool.lock);
    run_part(part, parts);
    pthread_mutex_lock(&pool.lock);
  }}
  pthread_mutex_unlock(&pool.lock);
  return NULL;
}}

/* A child process has this thread alone, whatever the others held when it was made. */
static void forked(void) {{
  pthread_mutex_init(&pool.caller, NULL);
  pthread_mutex_init(&pool.lock, NULL);
  pthread_cond_init(&pool.wake, NULL);
  pool.workers = 0;
  pool.arrived = 0;
}}

/* Workers must be gone before the code they wait in is. */
__attribute__((destructor)) static void stop(void) {{
  /* the program ends in the middle of a run: nothing is unloaded, and waiting might never end */
  if (pthread_mutex_trylock(&pool.caller)) return;
  pthread_mutex_lock(&pool.lock);
  pool.stop = 1;
  __atomic_store_n(&pool.run, pool.run + 1, __ATOMIC_RELAXED);
  pthread_cond_broadcast(&pool.wake);
  pthread_mutex_unlock(&pool.lock);
  for (; pool.workers > 0; --pool.workers) pthread_join(pool.threads[pool.workers - 1], NULL);
  pool.stop = 0;
  pthread_mutex_unlock(&pool.caller);
}}

static int cores(void) {{
#ifdef CPU_COUNT
  cpu_set_t allowed;
  if (!sched_getaffinity(0, sizeof allowed, &allowed)) return CPU_COUNT(&allowed);
#endif
  return (int)sysconf(_SC_NPROCESSORS_ONLN);
}}

static int start(int workers) {{
  sigset_t every, before;
  if (pool.workers >= workers) return 0;
  if (!pool.watched && pthread_atfork(NULL, NULL, forked)) return -1;
  pool.watched = 1;
  pool.cores = cores();
  pthread_mutex_lock(&pool.lock);
  pool.seen = pool.run;
  pthread_mutex_unlock(&pool.lock);
  /* signals are for the threads of the program that waits for them */
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  int failed = 0;
  while (!failed && pool.workers < workers) {{
    failed = pthread_create(&pool.threads[pool.workers], NULL, work, (void *)(size_t)(pool.workers + 1));
    pool.workers += !failed;
  }}
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return failed ? -1 : 0;
}}

int {name}_run_threads(const void *weights, const float *x, float *y, void *arena, int threads) {{
  if (threads <= 1) {{ {name}_run(weights, x, y, arena); return 0; }}
  if (threads > MOST_THREADS) threads = MOST_THREADS;
  pthread_mutex_lock(&pool.caller);
  const int failed = start(threads - 1);
  if (!failed) {{
    pthread_mutex_lock(&pool.lock);
    pool.weights = weights; pool.x = x; pool.y = y; pool.arena = arena; pool.parts = threads;
    /* with more threads than cores, who spins keeps a core from whom it waits for */
    pool.spins = threads > pool.cores ? 0 : SPINS;
    __atomic_store_n(&pool.run, pool.run + 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    run_part(0, threads);
  }}
  pthread_mutex_unlock(&pool.caller);
  return failed;
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
  for (int64_t image = 0; image < x->dims[0]; ++image) {{
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
