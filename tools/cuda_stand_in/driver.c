// A stand-in for the CUDA driver, in the memory of the host: enough to load and release models without a card, and
// stricter than a driver. It runs no kernel: a launch breaks the context, as an illegal address would.
//
// Work is done later, by one worker, at STAND_IN_BYTES_PER_US (default 4000). Memory is STAND_IN_BYTES (default 4 GiB).
// With STAND_IN_ONE_THREAD it ends the process where two threads take, fill or free memory; with STAND_IN_PINNED_ONLY where
// a card's memory is filled from ordinary memory. With STAND_IN_NO_PINNED it has no pinned memory to give. What it has for
// the card lies beside the heap of the process.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int R; // CUresult
enum { OK = 0, INVALID = 1, OOM = 2, NO_CONTEXT = 201, NOT_READY = 600, ILLEGAL = 700 };
enum { COPY, SET, FREE, EVENT };
#define GRANULE (32ull << 20)
#define CONTEXT (300ull << 20)
#define PER_THREAD ((void *)2)

typedef struct Op {
  struct Op *next;
  int kind;
  void *to, *from;
  size_t bytes;
  int value, own; // `own`: `from` is a copy of the worker's
} Op;
typedef struct Block {
  struct Block *next;
  char *at;
  size_t bytes;
  int pinned, pooled;
} Block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static Op *first, **last = &first;
static Block *blocks;
static uint64_t used, reserved, plain, total = 4ull << 30, speed = 4000, launched, finished;
static int broken, context_token;
static __thread void *current;

static uint64_t up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }
static void die(const char *what) {
  fprintf(stderr, "stand-in driver: %s\n", what);
  abort();
}

static void *get(size_t bytes) {
  void *at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) die("the host has no memory for the card");
  return at;
}

static void *work(void *_) {
  (void)_;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (!first) pthread_cond_wait(&more, &lock);
    Op *op = first;
    pthread_mutex_unlock(&lock);
    if (op->kind == COPY || op->kind == SET) usleep(1 + op->bytes / speed);
    if (op->kind == COPY) memcpy(op->to, op->from, op->bytes);
    if (op->kind == SET) memset(op->to, op->value, op->bytes);
    if (op->own) munmap(op->from, op->bytes);
    if (op->kind == FREE) munmap(op->to, op->bytes);
    pthread_mutex_lock(&lock);
    if (op->kind == FREE) used -= up(op->bytes, 512);
    if (op->kind == EVENT) *(int *)op->to -= 1;
    if (!(first = op->next)) last = &first;
    finished++;
    free(op);
    pthread_cond_broadcast(&done);
  }
  return 0;
}
static void push(Op op) {
  Op *new = malloc(sizeof op);
  *new = op;
  new->next = 0;
  *last = new;
  last = &new->next;
  launched++;
  pthread_cond_signal(&more);
}
static void wait_all(void) {
  uint64_t until = launched;
  while (finished < until) pthread_cond_wait(&done, &lock);
}
static Block *find(const void *at) {
  for (Block *b = blocks; b; b = b->next)
    if ((char *)at >= b->at && (char *)at < b->at + b->bytes) return b;
  return 0;
}
static void keep(char *at, size_t bytes, int pinned, int pooled) {
  Block *b = malloc(sizeof *b);
  *b = (Block){blocks, at, bytes, pinned, pooled};
  blocks = b;
}
static size_t forget(const void *at) {
  for (Block **b = &blocks; *b; b = &(*b)->next)
    if ((*b)->at == at) {
      Block *gone = *b;
      size_t bytes = gone->bytes;
      *b = gone->next;
      free(gone);
      return bytes;
    }
  die("a block is freed that is not there");
  return 0;
}
// Every call on a stream: a broken context answers all of them, and a thread without one has no stream of its own.
static R enter(void *stream) {
  pthread_mutex_lock(&lock);
  R r = broken ? ILLEGAL : !current && (stream == PER_THREAD || !stream) ? NO_CONTEXT : OK;
  if (r) pthread_mutex_unlock(&lock);
  return r;
}
// As above, for what one thread alone should do.
static R own(void *stream) {
  static __thread char here;
  static char *owner;
  R r = enter(stream);
  if (r) return r;
  if (!owner) owner = &here;
  if (owner != &here && getenv("STAND_IN_ONE_THREAD")) die("memory is in the hands of two threads");
  return OK;
}
static R leave(R r) {
  pthread_mutex_unlock(&lock);
  return r;
}

R cuInit(unsigned f) {
  (void)f;
  static int begun;
  pthread_mutex_lock(&lock);
  if (!begun) {
    pthread_t worker;
    char *bytes = getenv("STAND_IN_BYTES"), *rate = getenv("STAND_IN_BYTES_PER_US");
    if (bytes) total = strtoull(bytes, 0, 10);
    if (rate) speed = strtoull(rate, 0, 10);
    begun = !pthread_create(&worker, 0, work, 0);
  }
  return leave(OK);
}
R cuDeviceGetCount(int *n) { return *n = 1, OK; }
R cuDeviceGet(int *d, int n) { return *d = n, n ? 101 : OK; }
R cuDeviceGetAttribute(int *v, int a, int d) { return (void)d, *v = a == 115, OK; }
R cuDevicePrimaryCtxRetain(void **c, int d) { return (void)d, *c = &context_token, OK; }
R cuDevicePrimaryCtxRelease_v2(int d) { return (void)d, OK; }
R cuCtxGetCurrent(void **c) { return *c = current, OK; }
R cuCtxSetCurrent(void *c) { return current = c, OK; }
R cuGetErrorString(R e, const char **s) { return *s = e == ILLEGAL ? "an illegal memory access (stand-in)" : "stand-in", OK; }
R cuCtxSynchronize(void) {
  R r = enter((void *)1);
  if (r) return r;
  return wait_all(), leave(OK);
}
R cuStreamSynchronize(void *s) {
  R r = enter(s);
  if (r) return r;
  return wait_all(), leave(OK);
}
R cuStreamCreate(void **s, unsigned f) { return (void)f, *s = malloc(1), OK; }
R cuStreamDestroy_v2(void *s) { return free(s), OK; }
R cuStreamIsCapturing(void *s, int *c) { return (void)s, *c = 0, OK; }
R cuStreamWaitEvent(void *s, void *e, unsigned f) { return (void)s, (void)e, (void)f, broken ? ILLEGAL : OK; }
R cuEventCreate(void **e, unsigned f) { return (void)f, *e = calloc(1, sizeof(int)), OK; }
R cuEventDestroy_v2(void *e) { // The worker may still have to write to it; it is small.
  return (void)e, OK;
}
R cuEventRecord(void *e, void *s) {
  R r = enter(s);
  if (r) return r;
  *(int *)e += 1;
  push((Op){.kind = EVENT, .to = e});
  return leave(OK);
}
R cuEventQuery(void *e) {
  R r = enter((void *)1);
  if (r) return r;
  return leave(*(int *)e ? NOT_READY : OK);
}
R cuEventSynchronize(void *e) {
  R r = enter((void *)1);
  if (r) return r;
  while (*(int *)e) pthread_cond_wait(&done, &lock);
  return leave(OK);
}
static R take(void **p, size_t bytes, int pooled) {
  if (!bytes) return leave(INVALID);
  uint64_t pool = pooled ? up(used + up(bytes, 512), GRANULE) : reserved;
  if (pool < reserved) pool = reserved;
  if (CONTEXT + pool + plain + (pooled ? 0 : bytes) > total) return leave(OOM);
  if (pooled) used += up(bytes, 512), reserved = pool;
  else plain += bytes;
  *p = get(bytes);
  if (pooled) memset(*p, 0xA5, bytes); // what was there before
  keep(*p, bytes, 0, pooled);
  return leave(OK);
}
R cuMemAllocAsync(void **p, size_t bytes, void *s) {
  R r = own(s);
  return r ? r : take(p, bytes, 1);
}
R cuMemAlloc_v2(void **p, size_t bytes) {
  R r = enter(0);
  return r ? r : take(p, bytes, 0);
}
R cuMemFree_v2(void *p) {
  R r = enter(0);
  if (r) return r;
  wait_all();
  size_t bytes = forget(p);
  plain -= bytes;
  munmap(p, bytes);
  return leave(OK);
}
R cuMemFreeAsync(void *p, void *s) {
  R r = own(s);
  if (r) return r;
  push((Op){.kind = FREE, .to = p, .bytes = forget(p)});
  return leave(OK);
}
R cuMemHostAlloc(void **p, size_t bytes, unsigned f) {
  (void)f;
  if (getenv("STAND_IN_NO_PINNED")) return OOM;
  R r = own(0);
  if (r) return r;
  *p = aligned_alloc(4096, up(bytes, 4096));
  keep(*p, bytes, 1, 0);
  return leave(OK);
}
R cuMemFreeHost(void *p) {
  R r = own((void *)1);
  if (r) return r;
  size_t bytes = forget(p);
  for (Op *op = first; op; op = op->next)
    if (op->kind == COPY && (char *)op->from >= (char *)p && (char *)op->from < (char *)p + bytes)
      die("pinned memory is freed while it is copied from");
  free(p);
  return leave(OK);
}
static void check(const void *at, size_t bytes) {
  Block *b = find(at);
  if (!b || b->pinned || (char *)at + bytes > b->at + b->bytes) die("a copy goes beyond its block");
}
R cuMemcpyHtoDAsync_v2(void *to, void *from, size_t bytes, void *s) {
  R r = own(s);
  if (r) return r;
  check(to, bytes);
  Block *b = find(from);
  int pinned = b && b->pinned;
  if (!pinned && getenv("STAND_IN_PINNED_ONLY")) die("a copy from ordinary memory");
  if (pinned && (char *)from + bytes > b->at + b->bytes) die("a copy from beyond pinned memory");
  void *own = pinned ? from : memcpy(get(bytes), from, bytes);
  push((Op){.kind = COPY, .to = to, .from = own, .bytes = bytes, .own = !pinned});
  return leave(OK);
}
R cuMemcpyDtoHAsync_v2(void *to, void *from, size_t bytes, void *s) {
  R r = own(s);
  if (r) return r;
  check(from, bytes);
  wait_all(); // Into pageable memory a driver copies before it returns.
  memcpy(to, from, bytes);
  return leave(OK);
}
R cuMemcpyDtoDAsync_v2(void *to, void *from, size_t bytes, void *s) {
  R r = own(s);
  if (r) return r;
  check(to, bytes), check(from, bytes);
  push((Op){.kind = COPY, .to = to, .from = from, .bytes = bytes});
  return leave(OK);
}
R cuMemsetD8Async(void *to, unsigned char value, size_t bytes, void *s) {
  R r = own(s);
  if (r) return r;
  check(to, bytes);
  push((Op){.kind = SET, .to = to, .bytes = bytes, .value = value});
  return leave(OK);
}
R cuMemGetInfo_v2(size_t *free, size_t *all) {
  R r = enter(0);
  if (r) return r;
  *all = total, *free = total - CONTEXT - reserved - plain;
  return leave(OK);
}
R cuDeviceGetMemPool(void **p, int d) { return (void)d, *p = &used, OK; }
R cuMemPoolGetAttribute(void *p, int a, void *v) {
  (void)p;
  pthread_mutex_lock(&lock);
  *(uint64_t *)v = a == 5 ? reserved : a == 7 ? used : 0;
  return leave(a == 5 || a == 7 ? OK : INVALID);
}
R cuMemPoolTrimTo(void *p, size_t keep_bytes) {
  (void)p;
  pthread_mutex_lock(&lock);
  uint64_t least = up(used > keep_bytes ? used : keep_bytes, GRANULE);
  if (least < reserved) reserved = least;
  return leave(OK);
}
R cuModuleLoadData(void **m, const void *image) { return (void)image, *m = malloc(1), broken ? ILLEGAL : OK; }
R cuModuleLoad(void **m, const char *file) { return (void)file, *m = malloc(1), OK; }
R cuModuleUnload(void *m) { return free(m), OK; }
R cuModuleGetFunction(void **f, void *m, const char *name) { return (void)name, *f = m, OK; }
R cuLaunchKernel(void *f, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned g, unsigned h, void *s,
                 void **k, void **x) {
  (void)f, (void)a, (void)b, (void)c, (void)d, (void)e, (void)g, (void)h, (void)k, (void)x;
  R r = enter(s);
  if (r) return r;
  broken = 1;
  return leave(OK);
}
R cuCtxDestroy_v2(void *c) { return (void)c, OK; }
R cuMemcpyPeerAsync(void) { return INVALID; }
