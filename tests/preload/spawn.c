// fork, vfork, _Fork, posix_spawn and what libc starts by itself.
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>

static volatile bool stop;
static volatile bool broken;

static void *talk(void *argument) {
    int *fds = argument;
    while (!stop)
        if (!ping_pong(fds, 10))
            broken = true;
    return NULL;
}

static int output_of(pid_t pid, int fd, char *buffer, size_t size) {
    size_t got = 0;
    ssize_t count;
    while (got < size - 1 && (count = read(fd, buffer + got, size - 1 - got)) > 0)
        got += (size_t)count;
    buffer[got] = 0;
    close(fd);
    return status_of(pid);
}

static void spawned(void) {
    char buffer[256];
    int pipes[2];
    pid_t pid;
    char *echo[] = {"echo", "one", "two", NULL}, *cat[] = {"cat", "/proc/self/comm", NULL};
    posix_spawn_file_actions_t actions;
    for (int path = 0; path < 2; path++) {
        if (pipe2(pipes, O_CLOEXEC))
            exit(2);
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, pipes[1], 1);
        posix_spawn_file_actions_addclose(&actions, 0);
        int error = path ? posix_spawnp(&pid, "echo", &actions, NULL, echo, environ)
                         : posix_spawn(&pid, "/bin/cat", &actions, NULL, cat, environ);
        close(pipes[1]);
        int status = error ? -1 : output_of(pid, pipes[0], buffer, sizeof buffer);
        check(path ? "posix_spawnp" : "posix_spawn", status == 0 && strcmp(buffer, path ? "one two\n" : "cat\n") == 0);
        posix_spawn_file_actions_destroy(&actions);
    }
    posix_spawnattr_t attributes;
    sigset_t set;
    sigfillset(&set);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setsigdefault(&attributes, &set);
    char *sh[] = {"sh", "-c", "exit 9", NULL};
    check("attributes", posix_spawnp(&pid, "sh", NULL, &attributes, sh, environ) == 0 && WEXITSTATUS(status_of(pid)) == 9);
    check("no such program", posix_spawnp(&pid, "no-such-program-here", NULL, NULL, sh, environ) == ENOENT);
    FILE *stream = popen("echo from a pipe", "r");
    check("popen", stream && fgets(buffer, sizeof buffer, stream) && strcmp(buffer, "from a pipe\n") == 0 && pclose(stream) == 0);
    check("system", WEXITSTATUS(system("exit 5")) == 5);
    pid = vfork();
    if (pid == 0) {
        execvp("sh", sh);
        _exit(99);
    }
    check("vfork and exec", WEXITSTATUS(status_of(pid)) == 9);
    pid = vfork();
    if (pid == 0) {
        execvp("no-such-program-here", sh);
        _exit(errno == ENOENT ? 3 : 4);
    }
    check("vfork and a failed exec", WEXITSTATUS(status_of(pid)) == 3);
}

static void forked(int fds[2]) {
    pthread_t thread;
    int quiet[2];
    bool good = true;
    tcp_pair(quiet);
    ping_pong(quiet, 100);
    pthread_create(&thread, NULL, talk, quiet);
    for (int i = 0; i < 100; i++) {
        pid_t pid = i % 2 ? fork() : _Fork();
        if (pid == 0)
            _exit(i);
        good = good && WEXITSTATUS(status_of(pid)) == i;
    }
    stop = true;
    pthread_join(thread, NULL);
    check("100 forks while a thread talks", good && !broken);
    check("both pairs go on", ping_pong(fds, 50) && ping_pong(quiet, 50));

    // The child takes one end over: the bytes go on where they were.
    char buffer[16] = "";
    if (send(fds[0], "before", 6, 0) != 6)
        exit(2);
    pid_t pid = fork();
    if (pid == 0) {
        close(fds[0]);
        bool right = recv(fds[1], buffer, 6, MSG_WAITALL) == 6 && memcmp(buffer, "before", 6) == 0;
        right = right && send(fds[1], "answer", 6, 0) == 6;
        _exit(right ? 0 : 1);
    }
    close(fds[1]);
    bool answered = recv(fds[0], buffer, 6, MSG_WAITALL) == 6 && memcmp(buffer, "answer", 6) == 0;
    check("a child goes on with its parent's socket", WEXITSTATUS(status_of(pid)) == 0 && answered);
    check("and its end is the end of the stream", recv(fds[0], buffer, 1, 0) == 0);
}

static int touched;
static int touch(void *argument) {
    touched = *(int *)argument;
    return touched;
}

static void cloned(int fds[2]) {
    static char stack[65536] __attribute__((aligned(16)));
    int value = 21;
    pid_t pid = clone(touch, stack + sizeof stack, SIGCHLD, &value);
    check("clone with memory of its own", WEXITSTATUS(status_of(pid)) == 21 && touched == 0);
    pid = clone(touch, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &value);
    check("clone that shares memory", WEXITSTATUS(status_of(pid)) == 21 && touched == 21);
    pid_t told = 0;
    pid = clone(touch, stack + sizeof stack, SIGCHLD | CLONE_PARENT_SETTID, &value, &told);
    check("clone with more arguments", WEXITSTATUS(status_of(pid)) == 21 && told == pid);
    errno = 0;
    check("clone of nothing", clone(NULL, stack + sizeof stack, SIGCHLD, NULL) == -1 && errno == EINVAL);
    unsigned long arguments[8] = {[4] = SIGCHLD};
    pid = (pid_t)syscall(SYS_clone3, arguments, sizeof arguments);
    if (pid == 0)
        _exit(ping_pong(fds, 3) ? 22 : 23);
    check("clone3", WEXITSTATUS(status_of(pid)) == 22);
    check("and the pair goes on", ping_pong(fds, 50));
}

int main(void) {
    int fds[2];
    tcp_pair(fds);
    check("a pair", ping_pong(fds, 100));
    spawned();
    check("nothing happened to it", ping_pong(fds, 100));
    cloned(fds);
    forked(fds);
    return finish();
}
