/* A wall clock that jumps by years at every look, back and forth. The library under test may never ask for it: the
 * process ends with 7 if it did. The monotonic clock is the kernel's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int looks, by_library;
static time_t jump(void *caller) {
    Dl_info info;
    if (dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "libaccel")) __sync_fetch_and_add(&by_library, 1);
    return (__sync_fetch_and_add(&looks, 1) % 7 - 3) * 100000000L;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (!result && clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_RAW && clock != CLOCK_MONOTONIC_COARSE) now->tv_sec += jump(__builtin_return_address(0));
    return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = (int)syscall(SYS_gettimeofday, now, zone);
    now->tv_sec += jump(__builtin_return_address(0));
    return result;
}
time_t time(time_t *now) {
    struct timeval t;
    syscall(SYS_gettimeofday, &t, NULL);
    t.tv_sec += jump(__builtin_return_address(0));
    if (now) *now = t.tv_sec;
    return t.tv_sec;
}
__attribute__((destructor)) static void judge(void) { if (by_library) _exit(7); }
