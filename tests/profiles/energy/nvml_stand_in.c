/* Stands in for libnvidia-ml.so.1: boards that play a script, behind the driver library's own binary interface.

   NVML_STAND_IN holds the script, words of the form key=value:

     boards=1              how many boards, alike but for their UUID: stand-in-0, stand-in-1, ...
     power=W               constant; power=W:W:S from W to W in S seconds, then constant (a ramp);
     square=W:W:MS         the one power and the other in turns of MS milliseconds
     instant=1             whether the field of instant power exists; GetPowerUsage is always there
     garbage=0             whether every power read is 4294967 W instead
     counter_ms=100        how often the energy counter moves; 0: there is none
     capability=9.0        the compute capability
     utilization=50  throttle=0 (bits; 4:S:2: others from second S on)
     pids=1,own,...:S:own  processes on the board, and those from second S on
     slowed=75:0:0         FIELD:S:MS: the counter of this field (74: power, 75: thermal), the only one that there is,
                           rises from second S on for MS milliseconds
     limit_w=300:S:200     the enforced power limit, and another from second S on
     clock_mhz=2100:S:1500 the highest clock, likewise; set_mhz: that of applications, which else is not known
     mig=0                 whether the board is cut into instances, found as such (1), or as their board (2)
     mig_told=1            0: it does not say so when asked
     fail=FUNCTION:N       the N-th call of this function fails in passing
     lost_after=N          calls that are answered before the board is lost; hang_after=N: before a call hangs
     back_after=N          calls after which a lost board answers again
     container=1           not all processes are seen (`boards.py` itself plays this)
     driver=1              0: there is no driver
     init_fails=0          how many attempts to open the library fail before one succeeds
     init_ms=0             how long the library takes to open
     call_us=0             how long every call takes, computing, as a driver does
     clock=real            or virtual: time passes only by stand_in_set_ns

   OLD_DRIVER, when defined, leaves out what older drivers do not have. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, UNKNOWN = 999 };

typedef struct { int index, instance; } device;
static device boards[8], instances[8];
static long calls, counted_from_ns;
static int64_t virtual_ns;

static const char *script(const char *key) {
    static char value[8][128];
    static int next;
    const char *at = getenv("NVML_STAND_IN");
    size_t length = strlen(key);
    while (at && *at) {
        while (*at == ' ') at++;
        if (!strncmp(at, key, length) && at[length] == '=') {
            char *copy = value[next++ % 8];
            sscanf(at + length + 1, "%127[^ ]", copy);
            return copy;
        }
        at = strchr(at, ' ');
    }
    return NULL;
}

static double number(const char *key, double otherwise) {
    const char *text = script(key);
    return text ? atof(text) : otherwise;
}

static int is_virtual(void) { const char *c = script("clock"); return c && !strcmp(c, "virtual"); }

static int64_t now_ns(void) {
    struct timespec t;
    if (is_virtual()) return virtual_ns;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void stand_in_set_ns(int64_t ns) { virtual_ns = ns; }
long stand_in_calls(void) { return calls; }

static double since_s(int64_t ns) { return (ns - counted_from_ns) / 1e9; }

/* The power of the script at a moment, and its integral from the start, in closed form. */
static double power_w(double s) {
    double a = 100, b, span;
    const char *square = script("square"), *power = script("power");
    if (square && sscanf(square, "%lf:%lf:%lf", &a, &b, &span) == 3)
        return (int64_t)(s * 1000 / span) % 2 ? b : a;
    if (power && sscanf(power, "%lf:%lf:%lf", &a, &b, &span) == 3)
        return s < span ? a + (b - a) * s / span : b;
    return power ? atof(power) : a;
}

static double energy_j(double s) {
    double a = 100, b, span;
    const char *square = script("square"), *power = script("power");
    if (square && sscanf(square, "%lf:%lf:%lf", &a, &b, &span) == 3) {
        double turn = span / 1000, pairs = (int64_t)(s / (2 * turn)), rest = s - pairs * 2 * turn;
        return pairs * turn * (a + b) + (rest < turn ? rest * a : turn * a + (rest - turn) * b);
    }
    if (power && sscanf(power, "%lf:%lf:%lf", &a, &b, &span) == 3)
        return s < span ? a * s + (b - a) * s * s / (2 * span) : (a + b) / 2 * span + b * (s - span);
    return (power ? atof(power) : a) * s;
}

static double limit(const char *key, double otherwise) {
    double first = otherwise, from = 1e18, then = 0;
    const char *text = script(key);
    if (text) sscanf(text, "%lf:%lf:%lf", &first, &from, &then);
    return since_s(now_ns()) < from ? first : then;
}

static void spin_us(double us) {
    struct timespec start, t;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do clock_gettime(CLOCK_MONOTONIC, &t);
    while ((t.tv_sec - start.tv_sec) * 1e6 + (t.tv_nsec - start.tv_nsec) / 1e3 < us);
}

static int fails(const char *function) {
    static int times;
    char name[64];
    int nth;
    const char *text = script("fail");
    return text && sscanf(text, "%63[^:]:%d", name, &nth) == 2 && !strcmp(name, function) && ++times == nth;
}

static int called_as(const char *function) {
    double us = number("call_us", 0), lost = number("lost_after", -1), hang = number("hang_after", -1);
    double back = number("back_after", 1e18);
    calls++;
    if (us) spin_us(us);
    while (hang >= 0 && calls > hang) sleep(1);
    if (fails(function)) return UNKNOWN;
    return lost >= 0 && calls > lost && calls <= back ? GPU_IS_LOST : SUCCESS;
}
#define called() called_as(__func__)

#define ANSWER(what) do { int e = called(); if (e) return e; what; return SUCCESS; } while (0)

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    static int failed;
    if (!number("driver", 1)) return DRIVER_NOT_LOADED;
    if (failed++ < number("init_fails", 0)) return UNKNOWN;
    usleep(number("init_ms", 0) * 1000);
    if (!counted_from_ns) counted_from_ns = is_virtual() ? 0 : now_ns();
    for (int i = 0; i < 8; i++) boards[i] = (device){i, 0}, instances[i] = (device){i, 1};
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int e) {
    switch (e) {
        case NOT_SUPPORTED: return "Not Supported";
        case NOT_FOUND: return "Not Found";
        case DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case GPU_IS_LOST: return "GPU is lost";
        case INVALID_ARGUMENT: return "Invalid Argument";
        case UNKNOWN: return "Unknown Error";
        default: return "Some Error";
    }
}

int nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "stand-in"); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)number("boards", 1); return SUCCESS; }

int nvmlDeviceGetHandleByUUID(const char *uuid, device **handle) {
    int index;
    int of_instance = sscanf(uuid, "MIG-stand-in-%d", &index) == 1;
    if (!of_instance && sscanf(uuid, "GPU-stand-in-%d", &index) != 1) return NOT_FOUND;
    if (index >= number("boards", 1) || of_instance != (number("mig", 0) == 1)) return NOT_FOUND;
    *handle = of_instance ? &instances[index] : &boards[index];
    return SUCCESS;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device *of, device **handle) {
    *handle = &boards[of->index];
    return SUCCESS;
}
int nvmlDeviceGetMigMode(device *d, unsigned *current, unsigned *pending) {
    (void)d;
    if (!number("mig_told", 1)) return UNKNOWN;
    *current = *pending = number("mig", 0) != 0;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(device *d, int *major, int *minor) {
    const char *text = script("capability");
    (void)d;
    *major = 9, *minor = 0;
    if (text) sscanf(text, "%d.%d", major, minor);
    return SUCCESS;
}

static unsigned long long counter_mj(void) {
    double period = number("counter_ms", 100) / 1000, s = since_s(now_ns());
    return energy_j((int64_t)(s / period) * period) * 1000 + 1e6;
}
int nvmlDeviceGetTotalEnergyConsumption(device *d, unsigned long long *mj) {
    if (!number("counter_ms", 100) || d->instance) return NOT_SUPPORTED;
    ANSWER(*mj = counter_mj());
}
static unsigned power_mw(void) { return number("garbage", 0) ? 4294967295u : power_w(since_s(now_ns())) * 1000; }
int nvmlDeviceGetPowerUsage(device *d, unsigned *mw) {
    if (d->instance) return NOT_SUPPORTED;
    ANSWER(*mw = power_mw());
}
#ifndef OLD_DRIVER
static int slows(unsigned field, unsigned long long *ns) {
    unsigned which = 0;
    double from = 0, ms = 0, past_ms;
    const char *text = script("slowed");
    if (sscanf(text ? text : "75:0:0", "%u:%lf:%lf", &which, &from, &ms) != 3 || which != field) return 0;
    past_ms = (since_s(now_ns()) - from) * 1000;
    *ns = 5000000 + (past_ms < 0 ? 0 : past_ms < ms ? past_ms : ms) * 1e6;
    return 1;
}
typedef struct {
    unsigned field, scope; int64_t at, latency; int type, result;
    union { unsigned u; double d; unsigned long long ull; } value;
} field;
int nvmlDeviceGetFieldValues(device *d, int count, field *values) {
    int e = called();
    for (int i = 0; !e && i < count; i++) {
        int energy = values[i].field == 83 && number("counter_ms", 100);
        int power = values[i].field == 186 && number("instant", 1);
        int slowed = slows(values[i].field, &values[i].value.ull);
        values[i].result = slowed || ((energy || power) && !d->instance) ? SUCCESS : NOT_SUPPORTED;
        if (energy) values[i].value.ull = counter_mj();
        if (power) values[i].value.u = power_mw();
    }
    return e;
}
int nvmlDeviceGetMemoryInfo_v2(device *d, unsigned char *memory) {
    (void)d;
    ANSWER(((unsigned long long *)memory)[4] = 7ull << 30);
}
int nvmlDeviceGetTemperatureV(device *d, int *t) { (void)d; ANSWER(t[2] = 61); }
int nvmlDeviceGetCurrentClocksEventReasons(device *d, unsigned long long *bits) {
    (void)d;
    ANSWER(*bits = limit("throttle", 0));
}
#endif
int nvmlDeviceGetMemoryInfo(device *d, unsigned long long *memory) { (void)d; ANSWER(memory[2] = 7ull << 30); }
int nvmlDeviceGetTemperature(device *d, int sensor, unsigned *t) { (void)d, (void)sensor; ANSWER(*t = 61); }
int nvmlDeviceGetCurrentClocksThrottleReasons(device *d, unsigned long long *bits) {
    (void)d;
    ANSWER(*bits = limit("throttle", 0));
}
int nvmlDeviceGetUtilizationRates(device *d, unsigned *rates) {
    if (d->instance) return NOT_SUPPORTED;
    ANSWER(rates[0] = number("utilization", 50); rates[1] = 20);
}
int nvmlDeviceGetClockInfo(device *d, int kind, unsigned *mhz) { (void)d; ANSWER(*mhz = kind == 2 ? 9000 : 1700); }
int nvmlDeviceGetMaxClockInfo(device *d, int kind, unsigned *mhz) {
    (void)d, (void)kind;
    ANSWER(*mhz = limit("clock_mhz", 2100));
}
int nvmlDeviceGetApplicationsClock(device *d, int kind, unsigned *mhz) {
    (void)d, (void)kind;
    if (!script("set_mhz")) return NOT_SUPPORTED;
    ANSWER(*mhz = limit("set_mhz", 0));
}
int nvmlDeviceGetEnforcedPowerLimit(device *d, unsigned *mw) {
    (void)d;
    ANSWER(*mw = limit("limit_w", 300) * 1000);
}
int nvmlDeviceGetPowerManagementLimit(device *d, unsigned *mw) { (void)d; ANSWER(*mw = 300000); }
int nvmlDeviceGetPcieThroughput(device *d, int way, unsigned *kb) { (void)d, (void)way; ANSWER(*kb = 1234); }

typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process;
int nvmlDeviceGetComputeRunningProcesses_v3(device *d, unsigned *count, process *list) {
    unsigned found = 0;
    char first[128] = "", then[128] = "", *text = first;
    double from = 1e18;
    const char *pids = script("pids");
    int e = called();
    (void)d;
    if (e) return e;
    if (pids) sscanf(pids, "%127[^:]:%lf:%127s", first, &from, then);
    if (since_s(now_ns()) >= from) text = then;
    for (char *at = strtok(text, ","); at; at = strtok(NULL, ","), found++)
        if (list && found < *count)
            list[found] = (process){!strcmp(at, "own") ? (unsigned)getpid() : (unsigned)atoi(at), 1 << 30, 0, 0};
    e = found > *count ? INSUFFICIENT_SIZE : SUCCESS;
    *count = found;
    return e;
}
