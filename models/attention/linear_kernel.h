/* The kernel for one instruction set and number type; linear_kernel.c includes this once for each, with

   NAME(x)  the function's name there
   BFLOAT16 defined where tensors are of that; what is computed is float32 in any case
   TARGET   the attribute that lets the compiler use the instructions
   LANES    how many numbers a register holds; VECTORS, ROWS: a tile has so many registers in a row, and so many rows
*/

#define vec NAME(vec)
#define loose NAME(loose)
#define ints NAME(ints)
#define uints NAME(uints)
#define shorts NAME(shorts)
#ifdef BFLOAT16
#define element unsigned short
#else
#define element float
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int ints __attribute__((vector_size(4 * LANES)));
typedef unsigned uints __attribute__((vector_size(4 * LANES)));
typedef unsigned short shorts __attribute__((vector_size(2 * LANES), aligned(2)));

TARGET static inline __attribute__((always_inline)) vec NAME(load)(const element *from)
{
#ifdef BFLOAT16
    return (vec)(__builtin_convertvector(*(const shorts *)from, uints) << 16);
#else
    return *(const loose *)from;
#endif
}

/* Write numbers, rounded to the nearest; what is no number stays none. */
TARGET static inline __attribute__((always_inline)) void NAME(store)(element *to, vec x)
{
#ifdef BFLOAT16
    uints bits = (uints)x, none = (uints)(x != x);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    *(shorts *)to = __builtin_convertvector((bits & ~none) | (0x7fc0 & none), shorts);
#else
    *(loose *)to = x;
#endif
}

/* Fill a tile: c = a b or, with `add`, c += a b. Element (i, k) of a is a[i * row + k * column]; b has e columns. */
TARGET static inline __attribute__((always_inline)) void NAME(tile)(
    const int rows, const int vectors, long depth, const float *a, long row, long column, const float *b, float *c,
    long e, int add)
{
    vec sum[ROWS][VECTORS];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++)
            sum[i][j] = add ? *(const vec *)(c + i * e + LANES * j) : (vec){0};
    for (long k = 0; k < depth; k++)
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++)
                sum[i][j] += a[i * row + k * column] * *(const vec *)(b + k * e + LANES * j);
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++)
            *(vec *)(c + i * e + LANES * j) = sum[i][j];
}

/* Do what is left of a column of tiles, fewer rows than a tile has. */
TARGET static inline __attribute__((always_inline)) void NAME(rest)(
    const int vectors, long rows, long depth, const float *a, long row, long column, const float *b, float *c, long e,
    int add)
{
    switch (rows) {
    case 1: NAME(tile)(1, vectors, depth, a, row, column, b, c, e, add); break;
    case 2: NAME(tile)(2, vectors, depth, a, row, column, b, c, e, add); break;
    case 3: NAME(tile)(3, vectors, depth, a, row, column, b, c, e, add); break;
    case 4: NAME(tile)(4, vectors, depth, a, row, column, b, c, e, add); break;
    case 5: NAME(tile)(5, vectors, depth, a, row, column, b, c, e, add); break;
    }
}

/* Do some columns of a product. */
TARGET static inline __attribute__((always_inline)) void NAME(columns)(
    const int vectors, long rows, long depth, const float *a, long row, long column, const float *b, float *c, long e,
    int add)
{
    long i = 0;
    for (; i + ROWS <= rows; i += ROWS)
        NAME(tile)(ROWS, vectors, depth, a + i * row, row, column, b, c + i * e, e, add);
    NAME(rest)(vectors, rows - i, depth, a + i * row, row, column, b, c + i * e, e, add);
}

/* c = a b, or c += a b; c has `rows` rows and e columns, b `depth` rows. */
TARGET static void NAME(product)(
    long rows, long depth, const float *a, long row, long column, const float *b, float *c, long e, int add)
{
    long j = 0;
    for (; j + LANES * VECTORS <= e; j += LANES * VECTORS)
        NAME(columns)(VECTORS, rows, depth, a, row, column, b + j, c + j, e, add);
    for (; j < e; j += LANES)
        NAME(columns)(1, rows, depth, a, row, column, b + j, c + j, e, add);
}

TARGET static inline __attribute__((always_inline)) void NAME(select)(ints when, const vec *a, vec *b)
{
    *b = (vec)(((ints)*a & when) | ((ints)*b & ~when));
}

/* elu(x) + 1: x + 1 above zero, else the power of e by 2^n e^r, |r| <= ln 2 / 2, and Taylor's polynomial of e^r. */
TARGET static inline __attribute__((always_inline)) void NAME(phi)(vec x, vec *to)
{
    vec zero = {0}, least = zero - 87.0f, low = x;
    NAME(select)(x < least, &least, &low);
    NAME(select)(x > zero, &zero, &low);
    ints n = __builtin_convertvector(low * 1.44269504f - 0.5f, ints);
    vec whole = __builtin_convertvector(n, vec), above = x + 1.0f;
    vec r = low - whole * 0.693359375f + whole * 2.12194440e-4f;
    vec power = ((((((1.0f / 720) * r + 1.0f / 120) * r + 1.0f / 24) * r + 1.0f / 6) * r + 0.5f) * r + 1.0f) * r + 1.0f;
    *to = power * (vec)((n + 127) << 23);
    NAME(select)(x > zero, &above, to);
}

TARGET static inline __attribute__((always_inline)) float NAME(dot)(const float *a, const float *b, long e)
{
    float sum = 0;
    SIMD(reduction(+ : sum))
    for (long j = 0; j < e; j++)
        sum += a[j] * b[j];
    return sum;
}

/* Bring rows that lie `stride` apart together. */
TARGET static void NAME(take)(long rows, const element *restrict from, long stride, float *restrict to, long e)
{
    for (long t = 0; t < rows; t++) {
        NEXT(from + t * stride + e, 0);
        for (long j = 0; j < e; j += LANES)
            *(vec *)(to + t * e + j) = NAME(load)(from + t * stride + j);
    }
}

/* The same, of phi. */
TARGET static void NAME(take_phi)(long rows, const element *from, long stride, float *to, long e)
{
    for (long t = 0; t < rows; t++) {
        NEXT(from + t * stride + e, 0);
        for (long j = 0; j < e; j += LANES)
            NAME(phi)(NAME(load)(from + t * stride + j), (vec *)(to + t * e + j));
    }
}

TARGET static void NAME(add_rows)(long rows, const float *x, const float *weights, float *sum, long e)
{
    for (long t = 0; t < rows; t++)
        for (long j = 0; j < e; j += LANES)
            *(vec *)(sum + j) += (weights ? weights[t] : 1.0f) * *(const vec *)(x + t * e + j);
}

/* One head of one window; `at` is where its first token begins in each tensor: q, k and v, and what is made. */
TARGET static void NAME(mix)(struct sizes n, long at, const void *const *given, void *const *made, float *room)
{
    const element *q = (const element *)given[0] + at, *k = (const element *)given[1] + at;
    const element *v = (const element *)given[2] + at;
    element *out = (element *)made[0] + at;
    long e = n.width, stride = n.heads * e;
    float *x = room, *y = x + BLOCK * e, *s = y + BLOCK * e, *k_sum = s + e * e;
    memset(k_sum, 0, e * sizeof(float));
    for (long t = 0; t < n.tokens; t += BLOCK) {
        long rows = n.tokens - t < BLOCK ? n.tokens - t : BLOCK;
        NAME(take_phi)(rows, k + t * stride, stride, x, e);
        NAME(take)(rows, v + t * stride, stride, y, e);
        NAME(add_rows)(rows, x, 0, k_sum, e);
        NAME(product)(e, rows, x, 1, e, y, s, e, t > 0);
    }
    for (long t = 0; t < n.tokens; t += BLOCK) {
        long rows = n.tokens - t < BLOCK ? n.tokens - t : BLOCK;
        NAME(take_phi)(rows, q + t * stride, stride, x, e);
        NAME(product)(rows, e, x, e, 1, s, y, e, 0);
        for (long i = 0; i < rows; i++) {
            NEXT(out + (t + i) * stride + e, 1);
            float inverse = 1.0f / (NAME(dot)(x + i * e, k_sum, e) + n.stabilizer);
            for (long j = 0; j < e; j += LANES)
                NAME(store)(out + (t + i) * stride + j, *(const vec *)(y + i * e + j) * inverse);
        }
    }
}

/* Write (gradient - weight * row) phi'(x), where phi' = min(phi, 1); without weights, gradient - row. */
TARGET static void NAME(through_phi)(
    long rows, const float *restrict gradient, const float *restrict feature, const float *weights,
    const float *restrict row, element *restrict out, long stride, long e)
{
    const vec one = (vec){0} + 1.0f;
    for (long t = 0; t < rows; t++) {
        NEXT(out + t * stride + e, 1);
        float weight = weights ? weights[t] : 1.0f;
        for (long j = 0; j < e; j += LANES) {
            vec f = *(const vec *)(feature + t * e + j);
            vec outer = *(const vec *)(gradient + t * e + j) - weight * *(const vec *)(row + j);
            NAME(select)(f > one, &one, &f);
            NAME(store)(out + t * stride + j, outer * f);
        }
    }
}

/* The gradients of one head of one window, of q, k and v, given those and that of what was made; the formulas are in fused.py, S and dS transposed where that is what a
   product needs, so that the second factor of each has its rows one after the other. */
TARGET static void NAME(back)(struct sizes n, long at, const void *const *given, void *const *made, float *room)
{
    const element *q = (const element *)given[0] + at, *k = (const element *)given[1] + at;
    const element *v = (const element *)given[2] + at, *gradient = (const element *)given[3] + at;
    element *dq = (element *)made[0] + at, *dk = (element *)made[1] + at, *dv = (element *)made[2] + at;
    long e = n.width, stride = n.heads * e;
    float *x = room, *y = x + BLOCK * e, *g = y + BLOCK * e, *fq = g + BLOCK * e, *u = fq + BLOCK * e;
    float *st = u + BLOCK * e, *dst = st + e * e, *k_sum = dst + e * e, *c_sum = k_sum + e, *c = c_sum + e;
    memset(k_sum, 0, 2 * e * sizeof(float));
    for (long t = 0; t < n.tokens; t += BLOCK) {
        long rows = n.tokens - t < BLOCK ? n.tokens - t : BLOCK;
        NAME(take_phi)(rows, k + t * stride, stride, x, e);
        NAME(take)(rows, v + t * stride, stride, y, e);
        NAME(add_rows)(rows, x, 0, k_sum, e);
        NAME(product)(e, rows, y, 1, e, x, st, e, t > 0);
    }
    for (long t = 0; t < n.tokens; t += BLOCK) {
        long rows = n.tokens - t < BLOCK ? n.tokens - t : BLOCK;
        NAME(take_phi)(rows, q + t * stride, stride, fq, e);
        for (long i = 0; i < rows; i++) {
            NEXT(gradient + (t + i) * stride + e, 0);
            c[i] = 1.0f / (NAME(dot)(fq + i * e, k_sum, e) + n.stabilizer);
            for (long j = 0; j < e; j += LANES)
                *(vec *)(g + i * e + j) = c[i] * NAME(load)(gradient + (t + i) * stride + j);
        }
        NAME(product)(rows, e, g, e, 1, st, u, e, 0);
        for (long i = 0; i < rows; i++)
            c[i] *= NAME(dot)(fq + i * e, u + i * e, e);
        NAME(add_rows)(rows, fq, c, c_sum, e);
        NAME(product)(e, rows, g, 1, e, fq, dst, e, t > 0);
        NAME(through_phi)(rows, u, fq, c, k_sum, dq + t * stride, stride, e);
    }
    float *ds = st;
    for (long i = 0; i < e; i++)
        for (long j = 0; j < e; j++)
            ds[i * e + j] = dst[j * e + i];
    for (long t = 0; t < n.tokens; t += BLOCK) {
        long rows = n.tokens - t < BLOCK ? n.tokens - t : BLOCK;
        if (n.tokens > BLOCK) {
            NAME(take_phi)(rows, k + t * stride, stride, x, e);
            NAME(take)(rows, v + t * stride, stride, y, e);
        }
        NAME(product)(rows, e, x, e, 1, ds, u, e, 0);
        for (long i = 0; i < rows; i++) {
            NEXT(dv + (t + i) * stride + e, 1);
            for (long j = 0; j < e; j += LANES)
                NAME(store)(dv + (t + i) * stride + j, *(const vec *)(u + i * e + j));
        }
        NAME(product)(rows, e, y, e, 1, dst, u, e, 0);
        NAME(through_phi)(rows, u, x, 0, c_sum, dk + t * stride, stride, e);
    }
}

#undef vec
#undef loose
#undef ints
#undef uints
#undef shorts
#undef element
#undef NAME
#undef TARGET
#undef LANES
#undef VECTORS
#undef ROWS
#undef BFLOAT16
