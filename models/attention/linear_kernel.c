/* Linear attention of a head at a time, all of whose tensors fit the first caches: read once, written once.

   A Python module of functions on the addresses of contiguous float32 tensors (B, T, H, E), E a multiple of 16. They
   run on as many threads as told, by the OpenMP that torch has loaded: linked to none, it starts no pool of its own.
   Where a compiler is missing nothing is built, and fused.py does the work by torch's operations. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64
/* Let the same token's numbers of the next head come, to be read or written. */
#define NEXT(address, written) \
    for (long j = 0; j < e; j += 16) __builtin_prefetch((address) + j, written, 3)
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
#define NAME(x) x##_avx2
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
#endif

typedef void mix_function(struct sizes, const float *, const float *, const float *, float *, float *);
typedef void back_function(
    struct sizes, const float *, const float *, const float *, const float *, float *, float *, float *, float *);

struct instructions {
    const char *name;
    mix_function *mix;
    back_function *back;
};

/* The best first, and none at the end. */
static const struct instructions sets[] = {
#if defined(__x86_64__)
    {"avx512", mix_avx512, back_avx512},
    {"avx2", mix_avx2, back_avx2},
#else
    {"plain", mix_plain, back_plain},
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

/* Run mix, or back where there are gradients, for every head of every window. Returns 0 where memory is short. */
static int all(struct sizes n, int threads, const float *const given[4], float *const made[3], int backward)
{
    int enough = 1;
#pragma omp parallel num_threads(threads) reduction(&& : enough)
    {
        float *room = aligned_alloc(64, room_bytes(n.width));
        enough = room != 0;
#pragma omp for schedule(static)
        for (long each = 0; each < n.windows * n.heads; each++) {
            long at = (each / n.heads * n.tokens * n.heads + each % n.heads) * n.width;
            if (!room)
                continue;
            if (backward)
                here.back(n, given[0] + at, given[1] + at, given[2] + at, given[3] + at, made[0] + at, made[1] + at,
                    made[2] + at, room);
            else
                here.mix(n, given[0] + at, given[1] + at, given[2] + at, made[0] + at, room);
        }
        free(room);
    }
    return enough;
}

/* mix(B, T, H, E, stabilizer, threads, and the addresses of q, k, v and of what is made) */
static PyObject *mix(PyObject *module, PyObject *arguments)
{
    struct sizes n;
    int threads, enough;
    unsigned long long x[4];
    if (!PyArg_ParseTuple(arguments, "llllfiKKKK", &n.windows, &n.tokens, &n.heads, &n.width, &n.stabilizer, &threads,
            &x[0], &x[1], &x[2], &x[3]))
        return 0;
    const float *given[4] = {(float *)x[0], (float *)x[1], (float *)x[2]};
    float *made[3] = {(float *)x[3]};
    Py_BEGIN_ALLOW_THREADS
    enough = all(n, threads, given, made, 0);
    Py_END_ALLOW_THREADS
    if (!enough)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* back(B, T, H, E, stabilizer, threads, and the addresses of q, k, v, the gradient of what was made, and of theirs) */
static PyObject *back(PyObject *module, PyObject *arguments)
{
    struct sizes n;
    int threads, enough;
    unsigned long long x[7];
    if (!PyArg_ParseTuple(arguments, "llllfiKKKKKKK", &n.windows, &n.tokens, &n.heads, &n.width, &n.stabilizer,
            &threads, &x[0], &x[1], &x[2], &x[3], &x[4], &x[5], &x[6]))
        return 0;
    const float *given[4] = {(float *)x[0], (float *)x[1], (float *)x[2], (float *)x[3]};
    float *made[3] = {(float *)x[4], (float *)x[5], (float *)x[6]};
    Py_BEGIN_ALLOW_THREADS
    enough = all(n, threads, given, made, 1);
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
