// Which environment a started program gets: accel's variables are put back only where the caller made an
// environment by hand. Without accel the expectation is that nothing is added.
#include "check.h"
#include <spawn.h>

static const char *self;

static bool is_plain(const char *variable) {
    return strncmp(variable, "LD_PRELOAD=", 11) && strncmp(variable, "ACCEL_", 6) && strncmp(variable, "ACCEL=", 6);
}

static char *preload;
static bool keeps;

// The started program: argv is "show", what was given without accel's variables, and whether they must be there.
static int show(int argc, char **argv) {
    bool expected = argv[2][0] == '1';
    int rest = 0;
    for (char **at = environ; *at; at++)
        rest += is_plain(*at);
    const char *value = getenv("LD_PRELOAD"), *option = getenv("ACCEL_SPIN_USEC");
    bool there = value != NULL && strstr(value, "libaccel") != NULL;
    bool good = there == expected && argc == 4 && rest == atoi(argv[3]);
    if (expected)
        good = good && option && strcmp(option, "37") == 0;
    return good ? 0 : 1 + there + 2 * rest;
}

enum { EXECVE, EXECVPE, FEXECVE, EXECVEAT, EXECLE, SPAWN, SPAWNP, VFORK, KINDS };
static const char *const names[] = {"execve", "execvpe", "fexecve", "execveat", "execle", "posix_spawn", "posix_spawnp", "vfork"};

static int start(int kind, char **argv, char **environment) {
    pid_t pid = 0;
    if (kind == SPAWN || kind == SPAWNP) {
        int error = kind == SPAWN ? posix_spawn(&pid, self, NULL, NULL, argv, environment)
                                  : posix_spawnp(&pid, self, NULL, NULL, argv, environment);
        return error ? 100 + error : WEXITSTATUS(status_of(pid));
    }
    pid = kind == VFORK ? vfork() : fork();
    if (pid == 0) {
        switch (kind) {
        case EXECVE: case VFORK: execve(self, argv, environment); break;
        case EXECVPE: execvpe(self, argv, environment); break;
        case FEXECVE: fexecve(open(self, O_RDONLY), argv, environment); break;
        case EXECVEAT: execveat(AT_FDCWD, self, argv, environment, 0); break;
        case EXECLE: execle(self, argv[0], argv[1], argv[2], argv[3], (char *)NULL, environment); break;
        }
        _exit(99);
    }
    return WEXITSTATUS(status_of(pid));
}

static void each(const char *what, char **environment, int count, bool added) {
    char rest[16], name[128];
    snprintf(rest, sizeof rest, "%d", count);
    char *argv[] = {(char *)self, "show", added && preload && keeps ? "1" : "0", rest, NULL};
    for (int kind = 0; kind < KINDS; kind++) {
        if (kind == FEXECVE && environment == NULL)
            continue; // libc refuses it: below
        int status = start(kind, argv, environment);
        snprintf(name, sizeof name, "%s: %s", names[kind], what);
        check(name, status == 0);
        if (status)
            fprintf(stderr, "status %d\n", status);
    }
}

static int others(void) {
    int count = 0;
    for (char **at = environ; *at; at++)
        count += is_plain(*at);
    return count;
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc > 1)
        return show(argc, argv);
    preload = getenv("LD_PRELOAD");
    const char *keep = getenv("ACCEL_KEEP_ENV");
    keeps = keep == NULL || strcmp(keep, "off") != 0;

    char *empty[] = {NULL}, *two[] = {"PATH=/bin:/usr/bin", "LANG=C", NULL};
    each("an empty environment", empty, 0, true);
    each("no environment", NULL, 0, true);
    each("one made by hand", two, 2, true);
    char *replaced[] = {"LD_PRELOAD=", "A=1", NULL};
    each("an LD_PRELOAD of its own", replaced, 1, false);
    char *option[] = {"A=1", "ACCEL_SPIN_USEC=37", "ACCEL_LOG=off", NULL};
    each("options of its own", option, 1, true);

    static char texts[700][16], *many[701];
    for (int i = 0; i < 700; i++) {
        snprintf(texts[i], sizeof texts[i], "V%d=x", i);
        many[i] = texts[i];
    }
    each("a long one", many, 700, true);

    // What uses environ itself changes nothing.
    char rest[16];
    snprintf(rest, sizeof rest, "%d", others());
    char *show[] = {(char *)self, "show", preload ? "1" : "0", rest, NULL};
    pid_t pid = fork();
    if (pid == 0)
        _exit(execv(self, show) + 99);
    check("execv keeps environ", status_of(pid) == 0);
    pid = fork();
    if (pid == 0)
        _exit(execvp(self, show) + 99);
    check("execvp keeps environ", status_of(pid) == 0);
    pid = fork();
    if (pid == 0)
        _exit(execl(self, self, "show", show[2], rest, (char *)NULL) + 99);
    check("execl keeps environ", status_of(pid) == 0);
    pid = fork();
    if (pid == 0)
        _exit(execlp(self, self, "show", show[2], rest, (char *)NULL) + 99);
    check("execlp keeps environ", status_of(pid) == 0);

    errno = 0;
    check("a failed exec says why", execve("/nonexistent", show, two) == -1 && errno == ENOENT);
    check("a failed spawn says why", posix_spawn(&pid, "/nonexistent", NULL, NULL, show, two) == ENOENT);

    check("fexecve wants an environment", fexecve(1, show, NULL) == -1 && errno == EINVAL);

    // Taken out on purpose: it stays out, for hand-made environments too.
    unsetenv("LD_PRELOAD");
    each("after unsetenv", environ, others(), false);
    each("made by hand after unsetenv", two, 2, false);
    return finish();
}
