// Signal handlers under accel: dispositions, masks, restarts, and handlers that use sockets or jump away.
#include "check.h"
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/signalfd.h>
#include <sys/time.h>

extern __sighandler_t sigset(int, __sighandler_t);
extern int siginterrupt(int, int);
extern __sighandler_t sysv_signal(int, __sighandler_t);
#ifndef SIG_HOLD
#define SIG_HOLD ((__sighandler_t)2)
#endif
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static volatile sig_atomic_t runs, value, code, nested, depth_max, masked;

static void count(int signal) { (void)signal, runs++; }
static void note(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    runs++, value = info->si_value.sival_int, code = info->si_code;
}

static void install(int signal, void (*handler)(int), int flags) {
    struct sigaction new = {.sa_handler = handler, .sa_flags = flags};
    sigaction(signal, &new, NULL);
}

static void dispositions(void) {
    struct sigaction new = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESTART}, old;
    sigaddset(&new.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &new, &old);
    check("the first disposition is the default", old.sa_handler == SIG_DFL);
    sigaction(SIGUSR1, NULL, &old);
    check("the handler that is asked for is the program's", old.sa_sigaction == note);
    check("its mask", sigismember(&old.sa_mask, SIGUSR2) == 1 && sigismember(&old.sa_mask, SIGUSR1) == 0);
    printf("flags %x\n", (unsigned)old.sa_flags);
    check("signal returns it", (void *)signal(SIGUSR1, count) == (void *)note);
    sigaction(SIGUSR1, NULL, &old);
    printf("flags of signal %x, itself masked %d\n", (unsigned)old.sa_flags, sigismember(&old.sa_mask, SIGUSR1));
    check("and to ignore returns the next", signal(SIGUSR1, SIG_IGN) == count);
    raise(SIGUSR1);
    check("ignored", runs == 0 && signal(SIGUSR1, SIG_DFL) == SIG_IGN);
    int numbers[] = {0, -1, 65, 1000, 32, 33, SIGKILL, SIGSTOP};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        errno = 0;
        int result = sigaction(numbers[i], &new, NULL);
        printf("sigaction %d: %d %s\n", numbers[i], result, strerrorname_np(errno));
        errno = 0;
        bool refused = signal(numbers[i], count) == SIG_ERR;
        printf("signal %d: %d %s\n", numbers[i], refused, strerrorname_np(errno));
    }
    check("SIG_ERR is no handler", signal(SIGUSR1, SIG_ERR) == SIG_ERR && errno == EINVAL);
}

static void once(void) {
    struct sigaction old;
    runs = 0;
    install(SIGUSR1, count, SA_RESETHAND);
    raise(SIGUSR1);
    sigaction(SIGUSR1, NULL, &old);
    check("SA_RESETHAND runs once", runs == 1 && old.sa_handler == SIG_DFL);
    printf("flags after %x\n", (unsigned)old.sa_flags);
    sysv_signal(SIGUSR1, count);
    sigaction(SIGUSR1, NULL, &old);
    printf("flags of sysv_signal %x\n", (unsigned)old.sa_flags);
    raise(SIGUSR1);
    check("sysv_signal too", runs == 2 && signal(SIGUSR1, SIG_IGN) == SIG_DFL);
    pid_t child = fork();
    if (child == 0) {
        install(SIGUSR1, count, SA_RESETHAND);
        raise(SIGUSR1);
        raise(SIGUSR1);
        _exit(0);
    }
    int status = status_of(child);
    check("the second one ends the process", WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
}

static void recurse(int signal) {
    sigset_t mask;
    if (++nested > depth_max)
        depth_max = nested;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    masked = sigismember(&mask, signal) | sigismember(&mask, SIGUSR2) << 1;
    if (runs++ < 3)
        raise(signal);
    nested--;
}

static void masks(void) {
    runs = nested = depth_max = 0;
    install(SIGUSR1, recurse, 0);
    raise(SIGUSR1);
    check("a handler does not interrupt itself", runs == 4 && depth_max == 1 && masked == 1);
    runs = nested = depth_max = 0;
    install(SIGUSR1, recurse, SA_NODEFER);
    raise(SIGUSR1);
    check("unless SA_NODEFER", runs == 4 && depth_max == 4 && masked == 0);
    struct sigaction new = {.sa_handler = recurse};
    sigaddset(&new.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &new, NULL);
    runs = 3;
    raise(SIGUSR1);
    check("sa_mask", masked == 3);
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    check("nothing stays blocked", !sigismember(&mask, SIGUSR1) && !sigismember(&mask, SIGUSR2));
}

static char *alternate;
static void where(int signal) {
    char here;
    (void)signal;
    value = &here >= alternate && &here < alternate + 65536;
}

static void stacks(void) {
    alternate = malloc(65536);
    stack_t stack = {.ss_sp = alternate, .ss_size = 65536}, none = {.ss_flags = SS_DISABLE};
    sigaltstack(&stack, NULL);
    install(SIGUSR1, where, SA_ONSTACK);
    raise(SIGUSR1);
    check("SA_ONSTACK", value == 1);
    install(SIGUSR1, where, 0);
    raise(SIGUSR1);
    check("not without", value == 0);
    sigaltstack(&none, NULL);
}

static int order[8], ordered;
static void keep_order(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    order[ordered++] = info->si_value.sival_int;
}

static void information(void) {
    struct sigaction new = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN, &new, NULL);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 77});
    check("siginfo of sigqueue", value == 77 && code == SI_QUEUE);
    sigset_t set;
    sigemptyset(&set), sigaddset(&set, SIGRTMIN);
    new.sa_sigaction = keep_order;
    sigaction(SIGRTMIN, &new, NULL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < 5; i++)
        sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i});
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    check("real-time signals queue in order", ordered == 5 && order[0] == 0 && order[4] == 4);
    new.sa_sigaction = note;
    sigaction(SIGCHLD, &new, NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(3);
    check("siginfo of SIGCHLD", WEXITSTATUS(status_of(child)) == 3 && code == CLD_EXITED);
    signal(SIGCHLD, SIG_DFL);
}

static void *send_later(void *argument) {
    sleep_ms(60);
    if (send(*(int *)argument, "x", 1, 0) != 1)
        abort();
    return NULL;
}

// What a recv that sleeps gives when a signal comes, and then data.
static int interrupted(int fds[2]) {
    pthread_t sender;
    struct itimerval soon = {.it_value.tv_usec = 20000};
    char byte;
    sigset_t set;
    sigemptyset(&set), sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_create(&sender, NULL, send_later, &fds[1]);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    runs = 0;
    setitimer(ITIMER_REAL, &soon, NULL);
    ssize_t got = recv(fds[0], &byte, 1, 0);
    int result = got < 0 ? -errno : (int)got;
    pthread_join(sender, NULL);
    if (got < 0 && recv(fds[0], &byte, 1, 0) != 1)
        return -1;
    return runs == 1 ? result : -1;
}

static void interruptions(int fds[2]) {
    install(SIGALRM, count, 0);
    check("recv fails with EINTR", interrupted(fds) == -EINTR);
    install(SIGALRM, count, SA_RESTART);
    check("SA_RESTART goes on", interrupted(fds) == 1);
    siginterrupt(SIGALRM, 1);
    check("siginterrupt 1", interrupted(fds) == -EINTR);
    signal(SIGALRM, count);
    check("holds for signal", interrupted(fds) == -EINTR);
    siginterrupt(SIGALRM, 0);
    check("siginterrupt 0", interrupted(fds) == 1);
    struct pollfd entry = {.fd = fds[0], .events = POLLIN};
    struct itimerval soon = {.it_value.tv_usec = 20000};
    setitimer(ITIMER_REAL, &soon, NULL);
    check("poll fails even with SA_RESTART", poll(&entry, 1, 5000) < 0 && errno == EINTR);
}

static sigjmp_buf away;
static void jump(int signal) {
    (void)signal;
    siglongjmp(away, 1);
}

static void jumps(int fds[2]) {
    volatile int jumped = 0;
    install(SIGALRM, jump, 0);
    for (volatile int i = 0; i < 20; i++) {
        if (sigsetjmp(away, 1) == 0) {
            struct itimerval soon = {.it_value.tv_usec = 2000};
            char byte;
            setitimer(ITIMER_REAL, &soon, NULL);
            recv(fds[0], &byte, 1, 0);
        } else
            jumped++;
    }
    check("longjmp out of a sleeping recv", jumped == 20 && ping_pong(fds, 50));
    volatile int rounds = 0;
    jumped = 0;
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    // Jumps out of whatever the handler interrupts; only whole rounds count, and none may be lost.
    install(SIGALRM, jump, 0);
    while (jumped < 50) {
        if (sigsetjmp(away, 1) == 0) {
            setitimer(ITIMER_REAL, &often, NULL);
            for (;;) {
                char buffer[64];
                recv(fds[0], buffer, sizeof buffer, MSG_DONTWAIT);
                rounds++;
            }
        }
        jumped++;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    install(SIGALRM, count, SA_RESTART);
    check("longjmp out of a busy loop", rounds > 0 && ping_pong(fds, 50));
    install(SIGSEGV, jump, SA_NODEFER);
    volatile int *volatile nowhere = NULL;
    jumped = 0;
    if (sigsetjmp(away, 1) == 0)
        *nowhere = 1;
    else
        jumped = 1;
    check("longjmp out of SIGSEGV", jumped == 1);
    install(SIGSEGV, SIG_DFL, 0);
}

static int handler_pair[2];
static volatile sig_atomic_t exchanged, broken;
static void use_sockets(int signal) {
    int before = errno;
    char byte = 'h';
    (void)signal;
    if (send(handler_pair[0], &byte, 1, 0) == 1 && recv(handler_pair[1], &byte, 1, 0) == 1)
        exchanged++;
    else
        broken++;
    errno = before;
}

static void sockets_in_handlers(int fds[2]) {
    tcp_pair(handler_pair);
    ping_pong(handler_pair, 50);
    install(SIGALRM, use_sockets, SA_RESTART);
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    bool good = true;
    while (good && exchanged < 200)
        good = ping_pong(fds, 100);
    setitimer(ITIMER_REAL, &never, NULL);
    check("a handler uses sockets while its thread does", good && broken == 0);
    check("both pairs go on", ping_pong(fds, 50) && ping_pong(handler_pair, 50));
}

static void waiting(void) {
    sigset_t set;
    int got = 0;
    sigemptyset(&set), sigaddset(&set, SIGUSR2);
    install(SIGUSR2, count, 0);
    runs = 0;
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR2);
    check("sigwait", sigwait(&set, &got) == 0 && got == SIGUSR2 && runs == 0);
    int fd = signalfd(-1, &set, SFD_NONBLOCK);
    struct signalfd_siginfo info;
    raise(SIGUSR2);
    check("signalfd", read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR2 && runs == 0);
    close(fd);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    check("sigset holds", sigset(SIGUSR2, SIG_HOLD) == count);
    raise(SIGUSR2);
    check("nothing runs meanwhile", runs == 0);
    check("sigset says so", sigset(SIGUSR2, count) == SIG_HOLD && runs == 1);
    errno = 0;
    check("sigset refuses", sigset(0, count) == SIG_ERR && errno == EINVAL);
}

static void children(void) {
    runs = 0;
    install(SIGUSR1, count, 0);
    pid_t child = fork();
    if (child == 0) {
        raise(SIGUSR1);
        _exit(runs);
    }
    check("a fork child has the handler", WEXITSTATUS(status_of(child)) == 1 && runs == 0);
    child = vfork();
    if (child == 0) {
        struct sigaction new = {.sa_handler = SIG_DFL}, old;
        sigaction(SIGUSR1, &new, &old);
        _exit(old.sa_handler == count ? 7 : 8);
    }
    check("a vfork child sees it", WEXITSTATUS(status_of(child)) == 7);
    struct sigaction old;
    sigaction(SIGUSR1, NULL, &old);
    raise(SIGUSR1);
    check("and changes only its own", old.sa_handler == count && runs == 1);
    errno = 4242;
    raise(SIGUSR1);
    check("errno is the handler's business", errno == 4242);
}

static volatile int cleaned;
static void clean(void *argument) { (void)argument, cleaned = 1; }
static void *sleeper(void *argument) {
    char byte;
    pthread_cleanup_push(clean, NULL);
    recv(*(int *)argument, &byte, 1, 0);
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancellation(int fds[2]) {
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, sleeper, &fds[0]);
    sleep_ms(20);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    check("a sleeping recv is cancelled", result == PTHREAD_CANCELED && cleaned && ping_pong(fds, 50));
}

int main(void) {
    int fds[2];
    setvbuf(stdout, NULL, _IOLBF, 0);
    dispositions();
    once();
    masks();
    stacks();
    information();
    tcp_pair(fds);
    check("a pair", ping_pong(fds, 200));
    interruptions(fds);
    jumps(fds);
    sockets_in_handlers(fds);
    waiting();
    children();
    cancellation(fds);
    return finish();
}
