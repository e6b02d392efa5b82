/* A memory cgroup for a test. */
#include "faults.h"

static char group[256];
static int write_text(const char *directory, const char *file, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC), ok = fd >= 0 && write(fd, text, strlen(text)) > 0;
    if (fd >= 0) close(fd);
    return ok;
}
/* Makes one with a limit; false where that is not allowed. */
static int make_group(const char *limit) {
    static const char *const roots[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup"};
    for (int i = 0; i < 2; i++) {
        snprintf(group, sizeof group, "%s/accel-faults-%d", roots[i], getpid());
        if (mkdir(group, 0755)) continue;
        write_text(group, "memory.swappiness", "0");
        write_text(group, "memory.swap.max", "0");
        if (write_text(group, i ? "memory.max" : "memory.limit_in_bytes", limit)) return 1;
        rmdir(group);
    }
    return 0;
}
