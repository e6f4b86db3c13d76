// cuBLAS and cuRAND beside the stand-in driver: what it takes to open a device, and nothing that computes.
#include <stdlib.h>

int cublasCreate_v2(void **h) { return *h = malloc(1), 0; }
int cublasDestroy_v2(void *h) { return free(h), 0; }
int cublasSetStream_v2(void *h, void *s) { return (void)h, (void)s, 0; }
int curandCreateGenerator(void **g, int kind) { return (void)kind, *g = malloc(1), 0; }
int curandDestroyGenerator(void *g) { return free(g), 0; }
int curandSetStream(void *g, void *s) { return (void)g, (void)s, 0; }
int curandSetPseudoRandomGeneratorSeed(void *g, unsigned long long seed) { return (void)g, (void)seed, 0; }
