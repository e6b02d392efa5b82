// A program that forbids itself most system calls goes on: accel makes none that any program might not make
// (munmap is what free does with a large block).
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static volatile sig_atomic_t runs;
static void count(int signal) { (void)signal, runs++; }

#define ALLOW(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(void) {
    static struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(read), ALLOW(write), ALLOW(sendto), ALLOW(recvfrom), ALLOW(exit_group), ALLOW(rt_sigreturn),
        ALLOW(rt_sigprocmask), ALLOW(tgkill), ALLOW(gettid), ALLOW(clock_gettime), ALLOW(close), ALLOW(shutdown), ALLOW(munmap),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    int fds[2], later[2];
    tcp_pair(fds);
    tcp_pair(later);
    check("a pair", ping_pong(fds, 100));
    signal(SIGUSR1, count);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    check("only asks", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) == -1 && errno == EFAULT);
    pid_t self = getpid(), thread = gettid();
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 2;
    check("the pair goes on", ping_pong(fds, 1000));
    check("another pair too", ping_pong(later, 1000));
    syscall(SYS_tgkill, self, thread, SIGUSR1);
    check("a handler runs", runs == 1);
    char byte;
    check("the end of the stream", shutdown(fds[0], SHUT_WR) == 0 && recv(fds[1], &byte, 1, 0) == 0 && close(fds[1]) == 0);
    _exit(finish());
}
