/* Linear attention of a head at a time, all of whose tensors fit the first caches: read once, written once.

   A Python module of functions on the addresses of contiguous tensors (B, T, H, E), E a multiple of 16, of float32 or
   bfloat16; the latter is widened where it is read and rounded where it is written, and computed in float32. They
   run on as many threads as told, by the OpenMP that torch has loaded: linked to none, it starts no pool of its own.
   Where a compiler is missing nothing is built, and fused.py does the work by torch's operations. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64
/* Let the same token's numbers of the next head come, to be read or written. */
#define NEXT(address, written) \
    for (long j = 0; j < e; j += 64 / sizeof *(address)) __builtin_prefetch((address) + j, written, 3)
#define UNROLL _Pragma("GCC unroll 8")
#define PRAGMA(x) _Pragma(#x)
#define SIMD(x) PRAGMA(omp simd x)

struct sizes {
    long windows, tokens, heads, width;
    float stabilizer;
};

/* What a thread needs: five blocks of tokens, two summaries, two sums and a weight for each token of a block. */
static size_t room_bytes(long e)
{
    size_t bytes = (5 * BLOCK * e + 2 * e * e + 2 * e + BLOCK) * sizeof(float);
    return (bytes + 63) / 64 * 64;
}

#if defined(__x86_64__)
#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,fma")))
#define LANES 16
#define VECTORS 4
#define ROWS 6
#include "linear_kernel.h"
#define NAME(x) x##_avx512_bfloat16
#define BFLOAT16
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,fma")))
#define LANES 16
#define VECTORS 4
#define ROWS 6
#include "linear_kernel.h"
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define VECTORS 2
#define ROWS 6
#include "linear_kernel.h"
#define NAME(x) x##_avx2_bfloat16
#define BFLOAT16
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define VECTORS 2
#define ROWS 6
#include "linear_kernel.h"
#else
#define NAME(x) x##_plain
#define TARGET 
#define LANES 4
#define VECTORS 4
#define ROWS 6
#include "linear_kernel.h"
#define NAME(x) x##_plain_bfloat16
#define BFLOAT16
#define TARGET 
#define LANES 4
#define VECTORS 4
#define ROWS 6
#include "linear_kernel.h"
#endif

typedef void head_function(struct sizes, long, const void *const *, void *const *, float *);

/* Each for float32 and for bfloat16. */
struct instructions {
    const char *name;
    head_function *mix[2], *back[2];
};

/* The best first, and none at the end. */
static const struct instructions sets[] = {
#if defined(__x86_64__)
    {"avx512", {mix_avx512, mix_avx512_bfloat16}, {back_avx512, back_avx512_bfloat16}},
    {"avx2", {mix_avx2, mix_avx2_bfloat16}, {back_avx2, back_avx2_bfloat16}},
#else
    {"plain", {mix_plain, mix_plain_bfloat16}, {back_plain, back_plain_bfloat16}},
#endif
    {0},
};

static struct instructions here;

static int runs(const struct instructions *set)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (set == &sets[0])
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}

/* Take the best set of this processor's, or that of the name; returns 0 where there is none. */
static int choose(const char *name)
{
    for (const struct instructions *set = sets; set->name; set++)
        if (runs(set) && (!name || !strcmp(name, set->name))) {
            here = *set;
            return 1;
        }
    return 0;
}

/* Do every head of every window. Returns 0 where memory is short. */
static int all(struct sizes n, int threads, head_function *one, const void *const *given, void *const *made)
{
    int enough = 1;
#pragma omp parallel num_threads(threads) reduction(&& : enough)
    {
        float *room = aligned_alloc(64, room_bytes(n.width));
        enough = room != 0;
#pragma omp for schedule(static)
        for (long each = 0; each < n.windows * n.heads; each++) {
            long at = (each / n.heads * n.tokens * n.heads + each % n.heads) * n.width;
            if (room)
                one(n, at, given, made, room);
        }
        free(room);
    }
    return enough;
}

/* mix(B, T, H, E, stabilizer, threads, whether of bfloat16, and the addresses of q, k, v and of what is made) */
static PyObject *mix(PyObject *module, PyObject *arguments)
{
    struct sizes n;
    int threads, bfloat16, enough;
    unsigned long long x[4];
    if (!PyArg_ParseTuple(arguments, "llllfipKKKK", &n.windows, &n.tokens, &n.heads, &n.width, &n.stabilizer,
            &threads, &bfloat16, &x[0], &x[1], &x[2], &x[3]))
        return 0;
    const void *given[3] = {(void *)x[0], (void *)x[1], (void *)x[2]};
    void *made[1] = {(void *)x[3]};
    Py_BEGIN_ALLOW_THREADS
    enough = all(n, threads, here.mix[bfloat16], given, made);
    Py_END_ALLOW_THREADS
    if (!enough)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* back(B, T, H, E, stabilizer, threads, whether of bfloat16, and the addresses of q, k, v, the gradient of what was made,
   and of theirs) */
static PyObject *back(PyObject *module, PyObject *arguments)
{
    struct sizes n;
    int threads, bfloat16, enough;
    unsigned long long x[7];
    if (!PyArg_ParseTuple(arguments, "llllfipKKKKKKK", &n.windows, &n.tokens, &n.heads, &n.width, &n.stabilizer,
            &threads, &bfloat16, &x[0], &x[1], &x[2], &x[3], &x[4], &x[5], &x[6]))
        return 0;
    const void *given[4] = {(void *)x[0], (void *)x[1], (void *)x[2], (void *)x[3]};
    void *made[3] = {(void *)x[4], (void *)x[5], (void *)x[6]};
    Py_BEGIN_ALLOW_THREADS
    enough = all(n, threads, here.back[bfloat16], given, made);
    Py_END_ALLOW_THREADS
    if (!enough)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* use(name of an instruction set): for tests, as the best one is used anyway. */
static PyObject *use(PyObject *module, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    if (!text)
        return 0;
    return PyBool_FromLong(choose(text));
}

static PyMethodDef methods[] = {
    {"mix", mix, METH_VARARGS, "Write the mixed values."},
    {"back", back, METH_VARARGS, "Write the gradients of queries, keys and values."},
    {"use", use, METH_O, "Use an instruction set, or return False where there is none of that name."},
    {0},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "linear_kernel", 0, -1, methods};

PyMODINIT_FUNC PyInit_linear_kernel(void)
{
    if (!choose(0)) {
        PyErr_SetString(PyExc_ImportError, "this processor has none of the instruction sets it is written for");
        return 0;
    }
    return PyModule_Create(&module);
}
