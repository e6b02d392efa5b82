/* What the fault programs share: starting roles under the library, lockstep, byte streams, cards, leak counts.
 *
 *     prog CASE [ARGS]       runs one case; exit 0 and a line of counts when it holds
 *
 * A CASE runs without the library and starts its roles (this program again) under $FAULTS_LIB; a SOLO runs under it
 * itself. Without $FAULTS_LIB everything runs on the kernel, and only the checks of upgrades are left out: the
 * reference. $FAULTS_ROUNDS multiplies the rounds. Nobody sleeps to be in step: pipes, or a bounded wait for a fact. */
#ifndef FAULTS_H
#define FAULTS_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
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
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-result"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

extern char **environ;
static const char *program;
static const char *role_name = "";

static void die(const char *fmt, ...) {
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    int e = errno, n = snprintf(line, sizeof line, "FAIL [%s %d]: ", role_name, getpid());
    n += vsnprintf(line + n, sizeof line - n - 64, fmt, ap);
    n += snprintf(line + n, sizeof line - n, " (errno %s)\n", strerrorname_np(e) ? strerrorname_np(e) : "?");
    va_end(ap);
    (void)!write(2, line, n);
    _exit(1);
}
#define CHECK(c, ...) do { if (!(c)) die(__VA_ARGS__); } while (0)
#define Q(x) ({ long q_ = (long)(x); if (q_ == -1) die("%s:%d: %s", __FILE__, __LINE__, #x); q_; })

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}
static int scaled(int quick) {
    const char *s = getenv("FAULTS_ROUNDS");
    double by = s ? atof(s) : 1;
    int n = quick * (by > 0 ? by : 1);
    return n > 0 ? n : 1;
}
/* Every wait spins: then bytes go by the ring whatever else the machine does. */
static int spins_always(void) { return getenv("ACCEL_SPIN") && !strcmp(getenv("ACCEL_SPIN"), "hard"); }
static int accel(void) { return getenv("FAULTS_LIB") && *getenv("FAULTS_LIB"); }
/* A bounded wait for a fact. */
#define WAIT(cond, ms) ({ uint64_t w_ = now_us() + (ms) * 1000ull; int ok_; while (!(ok_ = !!(cond)) && now_us() < w_) { struct timespec t_ = {0, 200000}; nanosleep(&t_, NULL); } ok_; })
static __thread uint64_t dice;
static uint32_t rnd(uint32_t n) {
    if (!dice) dice = ((now_us() * 2654435761u) ^ ((uint64_t)syscall(SYS_gettid) << 32)) | 1;
    dice ^= dice << 13; dice ^= dice >> 7; dice ^= dice << 17;
    return (uint32_t)(dice >> 20) % n;
}

/* ---- cards: the layout of driver/src/cards.rs; `cards` in faults.rs compares it with driver::cards::Reader ---- */
enum { CARDS = 65536, CARDS_HEADER = 8192, CARD = 256 };
enum { CANDIDATE, MEETING, LOCAL, KERNEL, LISTENER };
struct card {
    uint32_t taken, receive_lock, send_lock, flags, sleepers, in_kernel, holders[6], path, reason, fd, owner;
    uint64_t ring_sends, ring_sent_bytes, ring_receives, ring_received_bytes, kernel_sends, kernel_receives, opened, closed_to_sleep, closed_full, spins_won, spins_lost;
};
static volatile char *cards_base;
static volatile char *cards(void) {
    volatile char *known = __atomic_load_n(&cards_base, __ATOMIC_ACQUIRE);
    if (known) return known;
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char link[64], to[256];
        snprintf(link, sizeof link, "/proc/self/fd/%.40s", e->d_name);
        ssize_t n = readlink(link, to, sizeof to - 1);
        if (n < 0) continue;
        to[n] = 0;
        if (strncmp(to, "/memfd:accel-cards", 18)) continue;
        int fd = open(link, O_RDONLY | O_CLOEXEC);
        void *p = mmap(NULL, CARDS_HEADER + CARDS * CARD, PROT_READ, MAP_SHARED, fd, 0);
        close(fd);
        if (p != MAP_FAILED) __atomic_store_n(&cards_base, (known = p), __ATOMIC_RELEASE);
    }
    if (d) closedir(d);
    return known;
}
/* The card of a descriptor that this process holds; NULL without the library. */
static volatile struct card *card_held_by(int fd, uint32_t pid) {
    volatile char *base = cards();
    if (!base) return NULL;
    for (uint32_t i = 0, unused = 0; i < CARDS && unused < 1024; i++) {
        volatile struct card *c = (void *)(base + CARDS_HEADER + (size_t)i * CARD);
        unused = c->taken || c->owner ? 0 : unused + 1;
        if (!c->taken || (int)c->fd != fd) continue;
        for (int k = 0; k < 6; k++) if (c->holders[k] == pid) return c;
    }
    return NULL;
}
static volatile struct card *card(int fd) { return card_held_by(fd, getpid()); }
static int path_of(int fd) { volatile struct card *c = card(fd); return c ? (int)c->path : -1; }
static int reason_of(int fd) { volatile struct card *c = card(fd); return c ? (int)c->reason : -1; }
static uint64_t totals(int upgraded) { volatile char *b = cards(); return b ? ((volatile uint64_t *)b)[2 + upgraded] : 0; }

/* ---- bytes ---- */
static inline unsigned char byte_at(uint32_t seed, uint64_t at) { return (unsigned char)(((at + seed) * 0x9e3779b97f4a7c15ull) >> 53); }
static void fill(void *p, size_t n, uint32_t seed, uint64_t at) { for (size_t i = 0; i < n; i++) ((unsigned char *)p)[i] = byte_at(seed, at + i); }
static void verify(const void *p, size_t n, uint32_t seed, uint64_t at) {
    for (size_t i = 0; i < n; i++) if (((const unsigned char *)p)[i] != byte_at(seed, at + i)) die("WRONG BYTE at %llu of stream %u", (unsigned long long)(at + i), seed);
}
static long read_full(int fd, void *p, long n) {
    long at = 0;
    while (at < n) {
        long r = read(fd, (char *)p + at, n - at);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0 && errno == EAGAIN) { struct pollfd q = {fd, POLLIN, 0}; poll(&q, 1, 1000); continue; }
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
        if (r < 0 && errno == EAGAIN) { struct pollfd q = {fd, POLLOUT, 0}; poll(&q, 1, 1000); continue; }
        if (r <= 0) return at ? at : r;
        at += r;
    }
    return at;
}
static void put(int fd, long n, uint32_t seed, uint64_t at) {
    char b[65536];
    while (n > 0) {
        long c = n < (long)sizeof b ? n : (long)sizeof b;
        fill(b, c, seed, at);
        long w = write_full(fd, b, c);
        if (w != c) die("put: wrote %ld of %ld", w, c);
        n -= c; at += c;
    }
}
static void get(int fd, long n, uint32_t seed, uint64_t at) {
    char b[65536];
    while (n > 0) {
        long c = n < (long)sizeof b ? n : (long)sizeof b;
        long r = read_full(fd, b, c);
        if (r != c) die("get: read %ld of %ld at %llu", r, c, (unsigned long long)at);
        verify(b, c, seed, at);
        n -= c; at += c;
    }
}

/* ---- sockets ---- */
static int nodelay(int fd) { int one = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); return fd; }
static in_addr_t address(void) { return inet_addr(getenv("FAULTS_ADDR") ? getenv("FAULTS_ADDR") : "127.0.0.1"); }
static int listen_on(int *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = address()};
    socklen_t l = sizeof a;
    int fd = Q(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), one = 1;
    Q(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    Q(bind(fd, (void *)&a, sizeof a));
    Q(listen(fd, 1024));
    Q(getsockname(fd, (void *)&a, &l));
    *port = ntohs(a.sin_port);
    return fd;
}
static int connect_to(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = address(), .sin_port = htons(port)};
    int fd = Q(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    Q(connect(fd, (void *)&a, sizeof a));
    return nodelay(fd);
}
static int accept_on(int l) { return nodelay(Q(accept4(l, NULL, NULL, SOCK_CLOEXEC))); }

/* One side of a ping-pong that ends when both ends are upgraded (or, `least` rounds, when they need not be). */
static int warm_to(int fd, int first, int most, int must) {
    char b[32];
    int mine = 0, n = 0;
    memset(b, 0, sizeof b);
    for (; n < most; n++) {
        mine = !accel() || path_of(fd) == LOCAL;
        if (first) {
            b[0] = (char)mine;
            CHECK(write_full(fd, b, 32) == 32, "warm write");
            CHECK(read_full(fd, b, 32) == 32, "warm read");
            if (b[0] == 3 || (n >= 5 && b[0] == 2)) break;
        } else {
            CHECK(read_full(fd, b, 32) == 32, "warm read");
            mine = !accel() || path_of(fd) == LOCAL;
            int both = mine && b[0] && n >= 5, last = n + 1 == most;
            b[0] = both ? 3 : last ? 2 : (char)0;
            CHECK(write_full(fd, b, 32) == 32, "warm write");
            if (both || last) break;
        }
    }
    mine = !accel() || path_of(fd) == LOCAL;
    if (must) CHECK(mine, "not upgraded after %d messages: path %d reason %d", n, path_of(fd), reason_of(fd));
    return mine;
}
static int warm(int fd, int first) { return warm_to(fd, first, 4000, 1); }

/* Both ends in this process, upgraded, both directions open if `accel`. */
static void pair_on(int l, int port, int *c, int *s) { *c = connect_to(port); *s = accept_on(l); }
static void warm_pair(int c, int s, int must) {
    char b[32] = {0};
    for (int i = 0; i < 200; i++) {
        CHECK(write_full(c, b, 32) == 32 && read_full(s, b, 32) == 32, "pair"); 
        CHECK(write_full(s, b, 32) == 32 && read_full(c, b, 32) == 32, "pair");
        if (i > 5 && (!accel() || (path_of(c) == LOCAL && path_of(s) == LOCAL))) break;
    }
    if (must && accel()) CHECK(path_of(c) == LOCAL && path_of(s) == LOCAL, "pair not upgraded: paths %d %d reasons %d %d", path_of(c), path_of(s), reason_of(c), reason_of(s));
    for (int i = 0; i < 4; i++) {
        CHECK(write_full(c, b, 32) == 32 && read_full(s, b, 32) == 32, "pair");
        CHECK(write_full(s, b, 32) == 32 && read_full(c, b, 32) == 32, "pair");
    }
}
static void pair(int *c, int *s) {
    int port, l = listen_on(&port);
    pair_on(l, port, c, s);
    close(l);
    warm_pair(*c, *s, 1);
}
/* Writes n bytes that lie in the ring, unread (with the library and ACCEL_SPIN=hard). */
static void put_ring(int fd, long n, uint32_t seed, uint64_t at) {
    volatile struct card *c = card(fd);
    uint64_t before = c ? c->ring_sent_bytes : 0;
    put(fd, n, seed, at);
    if (accel()) CHECK(c && c->ring_sent_bytes == before + n, "the bytes did not go by the ring (%llu of %ld)", c ? (unsigned long long)(c->ring_sent_bytes - before) : 0, n);
}

/* ---- leaks ---- */
static int count_dir(const char *path) {
    DIR *d = opendir(path);
    int n = 0;
    struct dirent *e;
    while (d && (e = readdir(d))) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}
static int count_lines(const char *path, const char *what) {
    FILE *f = fopen(path, "re");
    char line[1024];
    int n = 0;
    if (!f) return -1;
    while (fgets(line, sizeof line, f)) n += strstr(line, what) != NULL;
    fclose(f);
    return n;
}
struct held { int fds, channels, threads; };
static struct held held(void) {
    return (struct held){count_dir("/proc/self/fd"), count_lines("/proc/self/maps", "accel-channel"), count_dir("/proc/self/task")};
}
static int same_held(struct held a, struct held b) { return a.fds == b.fds && a.channels == b.channels && a.threads == b.threads; }
static void check_held(struct held before, const char *when) {
    struct held now;
    CHECK(WAIT((now = held(), same_held(before, now)), 1500), "leak %s: fds %d→%d channels %d→%d threads %d→%d", when, before.fds, now.fds, before.channels, now.channels, before.threads, now.threads);
}
static long rss_kb(void) {
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    long anon = 0;
    while (f && fgets(line, sizeof line, f)) sscanf(line, "RssAnon: %ld", &anon);
    if (f) fclose(f);
    return anon;
}
static int names(void) { return count_lines("/proc/net/unix", "@accel"); }

/* Abstract names of the library that end with a port of 127.0.0.1: of a listener's mailbox, and of doors for connections
 * to it (driver/src/meeting.rs). The kernel shows each NUL as @. */
static int names_of(int port) {
    static char text[4 << 20];
    unsigned char seen[2] = {port >> 8, port & 255};
    size_t n = 0;
    long r;
    int fd = Q(open("/proc/net/unix", O_RDONLY | O_CLOEXEC)), count = 0;
    while (n < sizeof text && (r = read(fd, text + n, sizeof text - n)) > 0) n += r;
    close(fd);
    for (int i = 0; i < 2; i++) if (!seen[i]) seen[i] = '@';
    for (char *at = text; (at = memmem(at, text + n - at, "@accel", 6)); at++) {
        int end = at[6] == '/' ? 45 : at[6] == '@' ? 27 : 0;
        count += end && at + end <= text + n && !memcmp(at + end - 2, seen, 2);
    }
    return count;
}
static void check_names(int port, int before, const char *when) {
    int now; /* a letter that waits for its connection to be accepted shows under the name of the box */
    CHECK(WAIT((now = names_of(port)) == before, 1500), "abstract names %s: %d→%d", when, before, now);
}

/* Whether a thread sleeps in the kernel. */
static int is_asleep(int pid, int tid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    char *p = strrchr(text, ')');
    return p && p[2] == 'S';
}
static void wait_asleep(int pid, int tid) {
    int in_row = 0;
    CHECK(WAIT((in_row = is_asleep(pid, tid) ? in_row + 1 : 0) >= 8, 10000), "thread %d of %d does not fall asleep", tid, pid);
}

/* ---- roles ---- */
enum { CONTROL = 200 };
struct role { pid_t pid; int control; };
static void tell_on(int fd, int v) { while (syscall(SYS_write, fd, &v, sizeof v) < 0 && errno == EINTR) {} }
static int hear_on(int fd) {
    int v = -99;
    long r;
    struct pollfd p = {fd, POLLIN, 0};
    while ((r = syscall(SYS_read, fd, &v, sizeof v)) < 0 && errno == EINTR) {}
    return r == sizeof v ? v : -99;
}
static void tell(int v) { tell_on(CONTROL, v); }
static int hear(void) { return hear_on(CONTROL); }
static struct role spawn_with(int with, const char *name, ...) {
    int sv[2];
    Q(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
    const char *argv[16] = {program, name};
    va_list ap;
    va_start(ap, name);
    for (int i = 2; i < 15 && (argv[i] = va_arg(ap, const char *)); i++) {}
    va_end(ap);
    pid_t pid = Q(fork());
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (with && accel()) setenv("LD_PRELOAD", getenv("FAULTS_LIB"), 1);
        else unsetenv("LD_PRELOAD");
        dup2(sv[1], CONTROL);
        execv(program, (char **)argv);
        die("exec");
    }
    close(sv[1]);
    return (struct role){pid, sv[0]};
}
#define spawn(...) spawn_with(1, __VA_ARGS__, NULL)
/* Waits for a role that ends by itself; it must end well. */
static void finish(struct role r) {
    int status = 0, done = 0;
    if (!WAIT((done = waitpid(r.pid, &status, WNOHANG)) != 0, 60000)) {
        char text[4096] = "", path[64];
        snprintf(path, sizeof path, "/proc/%d/stack", r.pid);
        int f = open(path, O_RDONLY); if (f >= 0) { ssize_t n = read(f, text, 4000); text[n > 0 ? n : 0] = 0; }
        kill(r.pid, SIGKILL);
        waitpid(r.pid, &status, 0);
        die("role %d hangs; %s", r.pid, text);
    }
    close(r.control);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "role %d ended with status %#x", r.pid, status);
}
static void murder(struct role r) { kill(r.pid, SIGKILL); waitpid(r.pid, NULL, 0); close(r.control); }
static const char *number(int n) { static char text[8][16]; static int turn; char *t = text[turn++ & 7]; snprintf(t, 16, "%d", n); return t; }
/* A child of fork that must end well. */
static void reap(pid_t pid) {
    int status = 0;
    CHECK(WAIT(waitpid(pid, &status, WNOHANG) != 0, 30000) || (kill(pid, SIGKILL), 0), "child %d hangs", pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d ended with status %#x", pid, status);
}

struct entry { const char *name; void (*run)(int argc, char **argv); int solo; };
static struct entry entries[128];
static int entry_count;
static void add_entry(const char *name, void (*run)(int, char **), int solo) { entries[entry_count++] = (struct entry){name, run, solo}; }
#define ENTRY_(n, solo) static void n(int argc, char **argv); __attribute__((constructor)) static void add_##n(void) { add_entry(#n, n, solo); } static void n(int argc, char **argv)
#define CASE(n) ENTRY_(n, 0)
#define ROLE(n) ENTRY_(n, 0)
#define SOLO(n) ENTRY_(n, 1)
static void on_pipe(int s) { (void)s; }

int main(int argc, char **argv) {
    program = "/proc/self/exe";
    static char self[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) program = self;
    if (argc < 2) { for (int i = 0; i < entry_count; i++) printf("%s\n", entries[i].name); return 2; }
    role_name = argv[1];
    signal(SIGPIPE, on_pipe);
    struct rlimit most;
    if (!getrlimit(RLIMIT_NOFILE, &most)) { most.rlim_cur = most.rlim_max < 20000 ? most.rlim_max : 20000; setrlimit(RLIMIT_NOFILE, &most); }
    for (int i = 0; i < entry_count; i++) {
        if (strcmp(entries[i].name, argv[1])) continue;
        if (entries[i].solo && accel() && !getenv("LD_PRELOAD")) {
            setenv("LD_PRELOAD", getenv("FAULTS_LIB"), 1);
            execv(program, argv);
            die("exec");
        }
        entries[i].run(argc - 2, argv + 2);
        fflush(stdout);
        return 0;
    }
    fprintf(stderr, "no case %s\n", argv[1]);
    return 2;
}
#endif
