// The calls of the table by number, through syscall().
#include "check.h"
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>

struct kernel_action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};

static volatile sig_atomic_t runs;
static void count(int signal) { (void)signal, runs++; }

static void data(int fds[2]) {
    char buffer[16] = "", other[16] = "";
    struct iovec vectors[2] = {{"ab", 2}, {"cd", 2}}, into[2] = {{buffer, 2}, {buffer + 2, 2}};
    check("write, read", syscall(SYS_write, fds[0], "abcd", 4) == 4 && syscall(SYS_read, fds[1], buffer, 16) == 4);
    check("writev, readv", syscall(SYS_writev, fds[0], vectors, 2) == 4 && syscall(SYS_readv, fds[1], into, 2) == 4);
    check("sendto, recvfrom", syscall(SYS_sendto, fds[1], "efgh", 4, 0, NULL, 0) == 4 &&
                                  syscall(SYS_recvfrom, fds[0], other, 16, 0, NULL, NULL) == 4 && !strcmp(other, "efgh"));
    struct msghdr out = {.msg_iov = vectors, .msg_iovlen = 2}, in = {.msg_iov = into, .msg_iovlen = 2};
    check("sendmsg, recvmsg", syscall(SYS_sendmsg, fds[0], &out, 0) == 4 && syscall(SYS_recvmsg, fds[1], &in, 0) == 4);
    struct mmsghdr outs = {.msg_hdr = out}, ins = {.msg_hdr = in};
    check("sendmmsg, recvmmsg", syscall(SYS_sendmmsg, fds[0], &outs, 1, 0) == 1 && outs.msg_len == 4 &&
                                    syscall(SYS_recvmmsg, fds[1], &ins, 1, 0, NULL) == 1 && ins.msg_len == 4);
    check("pwritev2, preadv2", syscall(SYS_pwritev2, fds[0], vectors, 2, -1L, -1L, 0) == 4 &&
                                   syscall(SYS_preadv2, fds[1], into, 2, -1L, -1L, 0) == 4);
    errno = 0;
    check("EAGAIN", syscall(SYS_recvfrom, fds[1], other, 16, MSG_DONTWAIT, NULL, NULL) == -1 && errno == EAGAIN);
    check("mixed with libc's", ping_pong(fds, 50));
}

static void descriptors(int fds[2]) {
    int copy = (int)syscall(SYS_dup, fds[1]), flags = (int)syscall(SYS_fcntl, copy, F_GETFL), waiting = -1;
    check("dup, fcntl", copy >= 0 && (flags & O_ACCMODE) == O_RDWR);
    char byte = 'x';
    check("the copy", send(fds[0], &byte, 1, 0) == 1 && recv(copy, &byte, 1, 0) == 1);
    check("dup3", syscall(SYS_dup3, fds[1], copy, O_CLOEXEC) == copy && syscall(SYS_fcntl, copy, F_GETFD) == FD_CLOEXEC);
    send(fds[0], "four", 4, 0);
    sleep_ms(5);
    check("ioctl", syscall(SYS_ioctl, fds[1], 0x541B, &waiting) == 0 && waiting == 4);
    char four[4];
    check("and read", recv(copy, four, 4, 0) == 4);
    int value = 0;
    socklen_t length = sizeof value;
    check("getsockopt", syscall(SYS_getsockopt, fds[0], SOL_SOCKET, SO_TYPE, &value, &length) == 0 && value == SOCK_STREAM);
    check("close", syscall(SYS_close, copy) == 0 && syscall(SYS_close, copy) == -1 && errno == EBADF);
    int file = (int)syscall(SYS_openat, AT_FDCWD, "/dev/zero", O_RDONLY, 0);
    check("the number is a file's now", file == copy && read(file, &byte, 1) == 1 && byte == 0);
    close(file);
}

static void waits(int fds[2]) {
    struct pollfd entry = {.fd = fds[1], .events = POLLIN};
    struct timespec soon = {0, 5000000};
    unsigned long mask = 0;
    struct { unsigned long *mask; size_t size; } sized = {&mask, 8};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fds[1], &set);
    check("ppoll times out", syscall(SYS_ppoll, &entry, 1, &soon, &mask, 8) == 0);
    soon = (struct timespec){0, 5000000};
    check("pselect6 times out", syscall(SYS_pselect6, fds[1] + 1, &set, NULL, NULL, &soon, &sized) == 0);
    errno = 0;
    check("a mask of another size", syscall(SYS_ppoll, &entry, 1, &soon, &mask, 4) == -1 && errno == EINVAL);
    int epoll = (int)syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 42}, got = {0};
    check("epoll_ctl", syscall(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fds[1], &event) == 0);
    check("epoll_pwait times out", syscall(SYS_epoll_pwait, epoll, &got, 1, 5, &mask, 8) == 0);
    send(fds[0], "x", 1, 0);
    soon = (struct timespec){1, 0};
    check("epoll_pwait", syscall(SYS_epoll_pwait, epoll, &got, 1, 1000, NULL, 8) == 1 && got.data.u64 == 42);
    check("ppoll", syscall(SYS_ppoll, &entry, 1, &soon, NULL, 8) == 1 && entry.revents == POLLIN);
    FD_ZERO(&set);
    FD_SET(fds[1], &set);
    check("pselect6", syscall(SYS_pselect6, fds[1] + 1, &set, NULL, NULL, &soon, NULL) == 1 && FD_ISSET(fds[1], &set));
    // A signal that only the wait's own mask lets in.
    signal(SIGUSR1, count);
    sigset_t blocked;
    sigemptyset(&blocked), sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    char byte;
    recv(fds[1], &byte, 1, 0);
    raise(SIGUSR1);
    soon = (struct timespec){5, 0};
    errno = 0;
    check("the mask holds while it waits", syscall(SYS_ppoll, &entry, 1, &soon, &mask, 8) == -1 && errno == EINTR && runs == 1);
    raise(SIGUSR1);
    check("for epoll_pwait too", syscall(SYS_epoll_pwait, epoll, &got, 1, 5000, &mask, 8) == -1 && errno == EINTR && runs == 2);
    sigprocmask(SIG_UNBLOCK, &blocked, NULL);
    close(epoll);
}

static void processes(void) {
    struct kernel_action action = {0};
    signal(SIGUSR1, count);
    check("rt_sigaction reads", syscall(SYS_rt_sigaction, SIGUSR1, NULL, &action, 8) == 0 && action.handler != NULL);
    struct sigaction old;
    signal(SIGUSR1, SIG_IGN);
    check("and puts back", syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 8) == 0);
    runs = 0;
    raise(SIGUSR1);
    sigaction(SIGUSR1, NULL, &old);
    check("what it read", runs == 1 && old.sa_handler == count);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        syscall(SYS_exit_group, 6);
    check("clone, exit_group", WEXITSTATUS(status_of(pid)) == 6);
    pid = fork();
    if (pid == 0) {
        char *argv[] = {"sh", "-c", "exit 8", NULL};
        syscall(SYS_execve, "/bin/sh", argv, environ);
        _exit(99);
    }
    check("execve", WEXITSTATUS(status_of(pid)) == 8);
    check("getpid, gettid", syscall(SYS_getpid) == getpid() && syscall(SYS_gettid) == gettid());
    char name[16] = "";
    check("prctl", syscall(SYS_prctl, PR_GET_NAME, name, 0, 0, 0) == 0 && strcmp(name, "rawcall") == 0);
    errno = 0;
    check("no such call", syscall(99999) == -1 && errno == ENOSYS);
    int futex = 1;
    errno = 0;
    check("six arguments", syscall(SYS_futex, &futex, 9, 2, NULL, NULL, 1) == -1 && errno == EAGAIN);
    unsigned action_wanted = 0x7fff0000;
    check("seccomp asks", syscall(SYS_seccomp, 2, 0, &action_wanted) == 0);
    errno = 0;
    long ring = syscall(SYS_io_uring_setup, 0, NULL);
    check("io_uring_setup fails as it does", ring == -1 && errno != 0);
}

int main(void) {
    int fds[2];
    tcp_pair(fds);
    check("a pair", ping_pong(fds, 100));
    data(fds);
    descriptors(fds);
    waits(fds);
    processes();
    check("the pair goes on", ping_pong(fds, 100));
    return finish();
}
