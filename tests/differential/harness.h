/* What every program of the differential corpus shares.
 *
 * A program is a table of cases. The driver (tests/tests/differential.rs) starts it twice for each case, once as the
 * server and once as the client, each with its own LD_PRELOAD, and gives both one end of a control channel on fd 3 and
 * a transcript pipe on fd 1. Nothing that differs between two correct runs (times, pids, ports, fd numbers above the
 * lowest free ones) may be printed. The two sides keep in step by `step()`, a barrier on the control channel; never by sleeping.
 *
 *     prog list                      names of the cases; "once" behind those for which warming up means nothing
 *     prog run CASE WARM ROLE        one side of one case; WARM messages go each way before the case begins
 */
#ifndef HARNESS_H
#define HARNESS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wnonnull"
#pragma GCC diagnostic ignored "-Wunused-result"
#pragma GCC diagnostic ignored "-Wunused-value"

/* Out of the way of the numbers a case sees, so that its first fd is 3 under every configuration. */
enum { TRANSCRIPT_FD = 100, CONTROL_FD = 101 };

/* ---- this side ---- */
static int server;         /* which of the two are we */
static int warm_n;         /* messages each way before the case */
static int control_raw;    /* DIFF_CTL=raw: the control channel bypasses libc, so the library is not entered while we wait */
static int lags;           /* DIFF_LAG=server|client: that side is late after each step, which shows a case that relies on its being early */
static pid_t peer_pid;     /* the other side */
static int listener = -1;  /* the server's, unless the case asked for none */
static struct sockaddr_storage peer_addr; /* where the client connects to */
static socklen_t peer_addr_len;

/* ---- transcript ---- */
static void out(const char *fmt, ...) {
    char line[8192];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line - 1, fmt, ap);
    va_end(ap);
    if (n > (int)sizeof line - 2) n = sizeof line - 2;
    line[n++] = '\n';
    for (int at = 0; at < n;) {
        long w = syscall(SYS_write, TRANSCRIPT_FD, line + at, n - at);
        if (w <= 0) _exit(90);
        at += w;
    }
}

static void die(const char *what) {
    out("HARNESS: %s: %s", what, strerrorname_np(errno) ? strerrorname_np(errno) : "?");
    _exit(91);
}
/* Something that has to work, and whose result is of no interest. */
#define Q(x) ({ errno = 0; long q_ = (long)(x); if (q_ == -1) { out("HARNESS: %s:%d: %s", __FILE__, __LINE__, #x); die("must not fail"); } q_; })

static uint32_t hash(const void *p, size_t n) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)p)[i]) * 16777619u;
    return h;
}
static void fill(void *p, size_t n, uint32_t seed) {
    uint32_t x = seed * 2654435761u + 12345;
    for (size_t i = 0; i < n; i++) { x = x * 1664525u + 1013904223u; ((unsigned char *)p)[i] = x >> 24; }
}
static void show(const char *name, const void *p, long n) {
    char text[400];
    int at = 0;
    for (long i = 0; i < n && i < 48; i++) {
        unsigned char c = ((const unsigned char *)p)[i];
        at += snprintf(text + at, sizeof text - at, c >= 32 && c < 127 && c != '"' && c != '\\' ? "%c" : "\\x%02x", c);
    }
    text[at] = 0;
    if (n > 48) out("  %s[%ld]=\"%s...\" fnv=%08x", name, n, text, hash(p, n));
    else out("  %s[%ld]=\"%s\"", name, n < 0 ? 0 : n, text);
}

/* ---- signals: SIGPIPE is counted and shows in the transcript behind the call which raised it ---- */
static volatile sig_atomic_t pipes, usr1s, usr2s, alarms, urgs, ios;
static void on_signal(int s) {
    if (s == SIGPIPE) pipes++;
    if (s == SIGUSR1) usr1s++;
    if (s == SIGUSR2) usr2s++;
    if (s == SIGALRM) alarms++;
    if (s == SIGURG) urgs++;
    if (s == SIGIO) ios++;
}
static void handle(int s, int flags) {
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = flags};
    sigemptyset(&sa.sa_mask);
    Q(sigaction(s, &sa, NULL));
}

static int pipes_before;
static long log_result(const char *expr, long r, int is_fd) {
    int e = errno;
    char err[64] = "", sig[32] = "";
    if (r == -1) snprintf(err, sizeof err, " %s", strerrorname_np(e) ? strerrorname_np(e) : "?");
    if (pipes != pipes_before) snprintf(sig, sizeof sig, " +SIGPIPE(%d)", (int)pipes - pipes_before);
    if (is_fd && r >= 0) out("%s = fd%s", expr, sig);
    else out("%s = %ld%s%s", expr, r, err, sig);
    errno = e;
    return r;
}
/* Make a call and write it down: its text, its result, its errno, a SIGPIPE. */
#define C(x) ({ pipes_before = pipes; errno = 0; log_result(#x, (long)(x), 0); })
/* The same for a call whose result is a file descriptor: only that it worked is written. */
#define CFD(x) ({ pipes_before = pipes; errno = 0; (int)log_result(#x, (long)(x), 1); })
#define SHOW(buf, n) show(#buf, buf, n)
/* A fact about a value which itself may not be printed. */
#define T(cond) out("%s: %s", #cond, (cond) ? "yes" : "NO")

/* ---- control channel ---- */
struct message { int tag; int value; };
static long control_io(int write_it, struct message *m) {
    for (;;) {
        long r = control_raw ? syscall(write_it ? SYS_write : SYS_read, CONTROL_FD, m, sizeof *m)
                             : write_it ? write(CONTROL_FD, m, sizeof *m) : read(CONTROL_FD, m, sizeof *m);
        if (r == sizeof *m) return r;
        if (r < 0 && errno == EINTR) continue;
        out("HARNESS: the other side is gone");
        _exit(92);
    }
}
static void tell(int value) { struct message m = {'v', value}; control_io(1, &m); }
static int hear(void) {
    struct message m;
    control_io(0, &m);
    if (m.tag != 'v') { out("HARNESS: out of step (a step where a value was due)"); _exit(93); }
    return m.value;
}
static int steps;
/* A barrier: nobody goes on before both have called it. */
static void step(void) {
    struct message m = {'s', ++steps};
    control_io(1, &m);
    control_io(0, &m);
    if (m.tag != 's' || m.value != steps) { out("HARNESS: out of step (%d, other side %d)", steps, m.value); _exit(93); }
    if (lags) nanosleep(&(struct timespec){0, 3000000}, NULL);
}

/* ---- waiting ---- */
static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
static void nap_ms(int ms) { struct timespec t = {ms / 1000, ms % 1000 * 1000000L}; while (nanosleep(&t, &t)) {} }
/* The call took at least `ms`, and not absurdly longer. */
static void took(long since, long ms) {
    long d = now_ms() - since;
    out("  took %s", d + 6 < ms ? "TOO SHORT" : d > ms + 5000 ? "TOO LONG" : "about the time asked for");
}
static void wait_ev(int fd, int events) {
    struct pollfd p = {fd, events, 0};
    for (;;) {
        int r = poll(&p, 1, 10000);
        if (r == 1) return;
        if (r < 0 && errno == EINTR) continue;
        out("HARNESS: waited 10 s in vain for events %x", events);
        return;
    }
}
static void wait_in(int fd) { wait_ev(fd, POLLIN); }
/* Until n bytes lie ready to be read. */
static void need(int fd, int n) {
    int have = 0;
    for (long t = now_ms(); now_ms() < t + 10000; nap_ms(1)) {
        if (ioctl(fd, FIONREAD, &have) == 0 && have >= n) return;
    }
    out("HARNESS: waited 10 s in vain for %d bytes, there are %d", n, have);
}
/* Until the peer's kernel has acknowledged what we sent: Nagle's algorithm may hold a small send back for as long as a delayed
 * acknowledgement takes (40 ms), and under load the loopback is not synchronous. By system call: it is about the kernel. */
static void delivered(int fd) {
    int n = 0;
    for (int i = 0; i < 2000 && syscall(SYS_ioctl, fd, SIOCOUTQ, &n) == 0 && n; i++) nap_ms(1);
}
/* Until that thread sleeps in the kernel (for a peer that is about to block). It is no error if it does not: it only makes
 * the state under test likelier. */
static void wait_asleep(pid_t pid, pid_t tid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
    int asleep = 0;
    for (int i = 0; i < 3000 && asleep < 6; i++, nap_ms(1)) {
        int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return;
        long n = syscall(SYS_read, fd, text, sizeof text - 1);
        syscall(SYS_close, fd);
        if (n <= 0) return;
        text[n] = 0;
        char *p = strrchr(text, ')');
        asleep = p && p[2] == 'S' ? asleep + 1 : 0;
    }
}
static void wait_peer_asleep(void) { wait_asleep(peer_pid, peer_pid); }
static pid_t my_tid(void) { return syscall(SYS_gettid); }

/* ---- readiness ---- */
static const char *mask(unsigned m) {
    static __thread char texts[8][160];
    static __thread int turn;
    char *t = texts[turn++ & 7];
    static const struct { unsigned bit; const char *name; } names[] = {
        {POLLIN, "IN"}, {POLLPRI, "PRI"}, {POLLOUT, "OUT"}, {POLLERR, "ERR"}, {POLLHUP, "HUP"}, {POLLNVAL, "NVAL"},
        {POLLRDNORM, "RDNORM"}, {POLLRDBAND, "RDBAND"}, {POLLWRNORM, "WRNORM"}, {POLLWRBAND, "WRBAND"}, {POLLRDHUP, "RDHUP"}};
    t[0] = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!(m & names[i].bit)) continue;
        if (t[0]) strcat(t, "|");
        strcat(t, names[i].name);
        m &= ~names[i].bit;
    }
    if (m) sprintf(t + strlen(t), "|%#x", m);
    return t[0] ? t : "none";
}
enum { ALL = POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDNORM | POLLRDBAND | POLLWRNORM | POLLWRBAND };
static unsigned poll_mask(int fd, int events, int timeout) {
    struct pollfd p = {fd, events, 0x7fff};
    errno = 0;
    int r = poll(&p, 1, timeout);
    out("poll(%s, %d) = %d%s%s revents=%s", mask(events), timeout, r, r < 0 ? " " : "", r < 0 ? strerrorname_np(errno) : "", mask(r < 0 ? 0 : p.revents));
    return p.revents;
}
/* Everything that poll, epoll and select have to say about a socket, at once. */
static void state(int fd) {
    struct pollfd p[4] = {{fd, ALL, 0}, {fd, 0, 0}, {fd, POLLIN, 0}, {fd, POLLOUT, 0}};
    int r = poll(p, 4, 0);
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP, .data.u64 = 0x1122334455667788}, got = {0, {0}};
    int a = epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
    int n = epoll_wait(ep, &got, 1, 0);
    close(ep);
    fd_set rs, ws, es;
    FD_ZERO(&rs); FD_ZERO(&ws); FD_ZERO(&es);
    FD_SET(fd, &rs); FD_SET(fd, &ws); FD_SET(fd, &es);
    struct timeval tv = {0, 0};
    int s = select(fd + 1, &rs, &ws, &es, &tv);
    out("state: poll=%d all:%s none:%s in:%s out:%s; epoll=%d/%d %s; select=%d %s%s%s", r, mask(p[0].revents), mask(p[1].revents), mask(p[2].revents),
        mask(p[3].revents), a, n, n == 1 ? mask(got.events) : "-", s, s > 0 && FD_ISSET(fd, &rs) ? "r" : "", s > 0 && FD_ISSET(fd, &ws) ? "w" : "", s > 0 && FD_ISSET(fd, &es) ? "e" : "");
    if (n == 1 && got.data.u64 != ev.data.u64) out("state: DATA CHANGED");
}
static int so_error(int fd) {
    int e = -1;
    socklen_t l = sizeof e;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &l)) { out("SO_ERROR: getsockopt failed %s", strerrorname_np(errno)); return -1; }
    out("SO_ERROR = %s", e ? strerrorname_np(e) : "0");
    return e;
}
static int readable_bytes(int fd) {
    int n = -7;
    int r = ioctl(fd, FIONREAD, &n);
    out("FIONREAD = %d, %d%s%s", r, n, r ? " " : "", r ? strerrorname_np(errno) : "");
    return n;
}

/* ---- moving bytes without writing each call down ---- */
static long read_full(int fd, void *p, long n) {
    long at = 0;
    while (at < n) {
        long r = read(fd, (char *)p + at, n - at);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0 && errno == EAGAIN) { wait_in(fd); continue; }
        if (r <= 0) return at ? at : r;
        at += r;
    }
    return at;
}
static long write_full(int fd, const void *p, long n) {
    long at = 0;
    while (at < n) {
        long r = write(fd, (const char *)p + at, n - at);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0 && errno == EAGAIN) { wait_ev(fd, POLLOUT); continue; }
        if (r <= 0) return at ? at : r;
        at += r;
    }
    return at;
}
/* n bytes of a pattern one way; the receiver says whether all came, unchanged. */
static void put(int fd, long n, uint32_t seed) {
    char *p = malloc(n ? n : 1);
    fill(p, n, seed);
    long r = write_full(fd, p, n);
    if (r != n) out("put(%ld) stopped after %ld: %s", n, r, strerrorname_np(errno));
    free(p);
}
static void get(int fd, long n, uint32_t seed) {
    char *p = malloc(n ? n : 1), *q = malloc(n ? n : 1);
    fill(q, n, seed);
    long r = read_full(fd, p, n);
    if (r != n) out("get(%ld) stopped after %ld: %s", n, r, r < 0 ? strerrorname_np(errno) : "EOF");
    else out("get(%ld) %s", n, memcmp(p, q, n) ? "DIFFERENT BYTES" : "the same bytes");
    free(p);
    free(q);
}
/* Read until EOF or an error. */
static long drain(int fd, uint32_t *h) {
    static __thread char b[65536];
    long total = 0;
    uint32_t x = 2166136261u;
    for (;;) {
        long r = read(fd, b, sizeof b);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0 && errno == EAGAIN) { wait_in(fd); continue; }
        if (r <= 0) { if (r < 0) out("drain: %s", strerrorname_np(errno)); break; }
        for (long i = 0; i < r; i++) x = (x ^ (unsigned char)b[i]) * 16777619u;
        total += r;
    }
    if (h) *h = x;
    return total;
}
static void nonblock(int fd, int on) {
    int f = Q(fcntl(fd, F_GETFL));
    Q(fcntl(fd, F_SETFL, on ? f | O_NONBLOCK : f & ~O_NONBLOCK));
}
static void set_timeout(int fd, int which, int ms) {
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    Q(setsockopt(fd, SOL_SOCKET, which, &tv, sizeof tv));
}
static int set_int(int fd, int level, int name, int v) { return setsockopt(fd, level, name, &v, sizeof v); }
static int get_int(int fd, int level, int name) {
    int v = -99;
    socklen_t l = sizeof v;
    if (getsockopt(fd, level, name, &v, &l)) return -1;
    return v;
}

/* Write, without waiting, until nothing fits and nothing will: the kernel's buffers go on growing and draining for a while. */
static long fill_up(int fd) {
    static char b[65536];
    long n = 0, r, quiet = 0;
    while (quiet < 4) {
        quiet++;
        while ((r = send(fd, b, sizeof b, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0) { n += r; quiet = 0; }
        if (errno != EAGAIN) { out("fill_up: %s", strerrorname_np(errno)); return n; }
        nap_ms(15);
    }
    return n;
}

/* ---- connections ---- */
static socklen_t address(int family, const char *ip, int port, struct sockaddr_storage *a) {
    memset(a, 0, sizeof *a);
    a->ss_family = family;
    if (family == AF_INET) {
        struct sockaddr_in *s = (void *)a;
        s->sin_port = htons(port);
        Q(inet_pton(AF_INET, ip, &s->sin_addr));
        return sizeof *s;
    }
    struct sockaddr_in6 *s = (void *)a;
    s->sin6_port = htons(port);
    Q(inet_pton(AF_INET6, ip, &s->sin6_addr));
    return sizeof *s;
}
static int port_of(int fd) {
    struct sockaddr_storage a;
    socklen_t l = sizeof a;
    Q(getsockname(fd, (void *)&a, &l));
    return ntohs(a.ss_family == AF_INET ? ((struct sockaddr_in *)&a)->sin_port : ((struct sockaddr_in6 *)&a)->sin6_port);
}
static int listen_at(int family, const char *ip, int port, int backlog) {
    struct sockaddr_storage a;
    socklen_t l = address(family, ip, port, &a);
    int fd = Q(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    Q(set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1));
    Q(bind(fd, (void *)&a, l));
    Q(listen(fd, backlog));
    return fd;
}
static int connect_to(int family, const char *ip, int port) {
    struct sockaddr_storage a;
    socklen_t l = address(family, ip, port, &a);
    int fd = Q(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    Q(connect(fd, (void *)&a, l));
    return fd;
}
/* WARM messages each way; the connection is then as accelerated as it will get. */
static void warm_by(int fd, int n) {
    char b[32];
    for (int i = 0; i < n; i++) {
        if (server) {
            if (read_full(fd, b, sizeof b) != sizeof b) die("warm read");
            if (write_full(fd, b, sizeof b) != sizeof b) die("warm write");
        } else {
            memset(b, 'a' + i % 26, sizeof b);
            if (write_full(fd, b, sizeof b) != sizeof b) die("warm write");
            if (read_full(fd, b, sizeof b) != sizeof b) die("warm read");
            if (b[0] != 'a' + i % 26 || b[31] != b[0]) out("warm: DIFFERENT BYTES");
        }
    }
}
static void warm(int fd) { warm_by(fd, warm_n); }
/* A listener of the case's own at the server, its port told to the client: returns the connection at both. */
static int pair_via(int lfd, int family, const char *ip) {
    int fd;
    if (server) {
        tell(port_of(lfd));
        fd = Q(accept4(lfd, NULL, NULL, SOCK_CLOEXEC));
    } else {
        fd = connect_to(family, ip, hear());
    }
    return fd;
}
/* One more connection between the two sides, by the usual listener. */
static int another(void) {
    int fd = server ? (int)Q(accept4(listener, NULL, NULL, SOCK_CLOEXEC)) : (int)Q(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!server) Q(connect(fd, (void *)&peer_addr, peer_addr_len));
    return fd;
}

/* ---- threads ---- */
struct job { long (*f)(void *); void *arg; pthread_t t; volatile pid_t tid; long result; int error; };
static void *job_main(void *p) {
    struct job *j = p;
    j->tid = my_tid();
    errno = 0;
    j->result = j->f(j->arg);
    j->error = errno;
    return NULL;
}
static void job_start(struct job *j, long (*f)(void *), void *arg) {
    j->f = f; j->arg = arg; j->tid = 0;
    if (pthread_create(&j->t, NULL, job_main, j)) die("pthread_create");
    while (!j->tid) sched_yield();
}
static void job_asleep(struct job *j) { wait_asleep(getpid(), j->tid); }
static long job_join(struct job *j, const char *what) {
    pthread_join(j->t, NULL);
    out("%s = %ld%s%s", what, j->result, j->result == -1 ? " " : "", j->result == -1 ? strerrorname_np(j->error) : "");
    return j->result;
}

/* ---- the table ---- */
struct kase { const char *name; void (*run)(int fd); int raw, once; };
static struct kase cases[256];
static int case_count;
static const char *case_name; /* of the one that runs */
static void case_add(const char *name, void (*run)(int), int raw, int once) {
    if (case_count < 256) cases[case_count++] = (struct kase){name, run, raw, once};
}
#define CASE_(n, raw, once) static void n(int fd); __attribute__((constructor)) static void add_##n(void) { case_add(#n, n, raw, once); } static void n(int fd)
#define CASE(n) CASE_(n, 0, 0)      /* begins with a warmed connection between the two */
#define CASE_RAW(n) CASE_(n, 1, 0)  /* makes its own connections, warms them itself */
#define CASE_ONCE(n) CASE_(n, 1, 1) /* makes its own; warming means nothing */

/* A program may be executed again by one of its cases: prog helper ... */
int helper(int argc, char **argv) __attribute__((weak));

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "helper")) return helper(argc - 2, argv + 2);
    if (argc == 2 && !strcmp(argv[1], "list")) {
        for (int i = 0; i < case_count; i++) printf("%s%s\n", cases[i].name, cases[i].once ? " once" : "");
        return 0;
    }
    if (argc != 5 || strcmp(argv[1], "run")) { fprintf(stderr, "usage: %s list | run CASE WARM server|client\n", argv[0]); return 2; }
    struct kase *k = NULL;
    for (int i = 0; i < case_count; i++) if (!strcmp(cases[i].name, argv[2])) k = &cases[i];
    if (!k) { fprintf(stderr, "no such case\n"); return 2; }
    warm_n = atoi(argv[3]);
    server = !strcmp(argv[4], "server");
    control_raw = getenv("DIFF_CTL") && !strcmp(getenv("DIFF_CTL"), "raw");
    lags = getenv("DIFF_LAG") && !strcmp(getenv("DIFF_LAG"), argv[4]);
    if (dup3(1, TRANSCRIPT_FD, O_CLOEXEC) < 0 || dup3(3, CONTROL_FD, O_CLOEXEC) < 0) return 94;
    close(3);
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    close(null);
    handle(SIGPIPE, SA_RESTART);
    tell(getpid());
    peer_pid = hear();
    int fd = -1;
    if (!k->raw) {
        if (server) {
            listener = listen_at(AF_INET, "127.0.0.1", 0, 64);
            tell(port_of(listener));
            fd = Q(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
        } else {
            peer_addr_len = address(AF_INET, "127.0.0.1", hear(), &peer_addr);
            fd = Q(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
            Q(connect(fd, (void *)&peer_addr, peer_addr_len));
        }
        warm(fd);
        step();
    }
    case_name = k->name;
    k->run(fd);
    out("end of case");
    /* Nobody's exit may be seen by the other's last calls. If the case let the other side die, there is nobody to wait for. */
    struct message m = {'e', 0};
    syscall(SYS_write, CONTROL_FD, &m, sizeof m);
    while (syscall(SYS_read, CONTROL_FD, &m, sizeof m) < 0 && errno == EINTR) {}
    if (m.tag != 'e') out("HARNESS: out of step at the end");
    return 0;
}
#endif
