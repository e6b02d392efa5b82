/* Deaths by other hands than kill -9, each compared with the plain kernel; and one end stopped while the other goes on. */
#include "cgroup.h"

/* ---- deaths ---- */
enum { KILLED, SEGV, ABORT, OOM, IN_COPY, HOWS };
static const int signals_of[HOWS] = {SIGKILL, SIGSEGV, SIGABRT, SIGKILL, SIGSEGV};
/* Both ends upgrade if both run under the library; the others talk for a while. */
static void talk(int fd, int first) {
    int with = getenv("LD_PRELOAD") != NULL;
    int upgraded = warm_to(fd, first, with ? 4000 : 40, 0);
    CHECK(upgraded || !with, "path %d reason %d", path_of(fd), reason_of(fd));
}
ROLE(dying) { /* PORT HOW */
    int fd = connect_to(atoi(argv[0])), how = atoi(argv[1]);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    talk(fd, 1);
    get(fd, 1000, 1, 0);
    put(fd, 20000, 2, 0);
    volatile struct card *c = card(fd);
    tell(c && c->ring_sent_bytes > 0);
    hear();
    if (how == SEGV) *(volatile int *)NULL = 1;
    if (how == ABORT) abort();
    if (how == OOM) {
        size_t n = 256 << 20;
        char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (size_t i = 0; i < n; i += 4096) p[i] = 1;
        die("the limit of the cgroup did nothing");
    }
    if (how == IN_COPY) { /* the second page is not there: the copy into the ring faults half way */
        char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(p + 4096, 4096);
        fill(p, 4096, 2, 20000);
        send(fd, p, 8192, MSG_NOSIGNAL);
        raise(SIGSEGV);
    }
    for (;;) pause();
}
ROLE(bereaved) { /* UNREAD LATE */
    int port, l = listen_on(&port), unread = atoi(argv[0]), late = atoi(argv[1]);
    tell(port);
    int fd = accept_on(l);
    char b[4096];
    talk(fd, 0);
    put(fd, 1000, 1, 0);
    hear();
    if (unread) put(fd, 500, 1, 1000);
    tell(gettid());
    if (late) hear();           /* dead by now */
    long at = 0, r;
    while ((r = recv(fd, b, sizeof b, 0)) > 0) { verify(b, r, 2, at); at += r; }
    tell(at);
    tell(r < 0 ? -errno : 0);
    r = recv(fd, b, 1, 0);
    tell(r < 0 ? -errno : (int)r);
    r = send(fd, b, 1, MSG_NOSIGNAL);
    tell(r < 0 ? -errno : (int)r);
    close(fd);
    CHECK(held().channels == 0, "%d channels left", held().channels);
}
struct seen { int bytes, end, recv, send, by_ring; };
static struct seen death(int with, int how, int unread, int late) {
    struct role b = spawn_with(with, "bereaved", number(unread), number(late), NULL);
    struct role d = spawn_with(with, "dying", number(hear_on(b.control)), number(how), NULL);
    struct seen s = {.by_ring = hear_on(d.control)};
    CHECK(s.by_ring >= 0, "the dying one");
    tell_on(b.control, 0);
    int tid = hear_on(b.control), status;
    if (!late) wait_asleep(b.pid, tid); /* has read all, and sleeps in recv */
    if (how == OOM) CHECK(write_text(group, "cgroup.procs", number(d.pid)), "into the cgroup");
    if (how == KILLED) kill(d.pid, SIGKILL);
    else tell_on(d.control, 0);
    CHECK(waitpid(d.pid, &status, 0) == d.pid && WIFSIGNALED(status) && WTERMSIG(status) == signals_of[how], "way %d: status %#x", how, status);
    close(d.control);
    if (late) tell_on(b.control, 0);
    s.bytes = hear_on(b.control); s.end = hear_on(b.control); s.recv = hear_on(b.control); s.send = hear_on(b.control);
    finish(b);
    return s;
}
CASE(ways_to_die) {
    int rounds = scaled(1), n = 0, by_ring = 0, grouped = make_group("33554432");
    if (!grouped) printf("SKIP ways_to_die: no memory cgroup can be made here (the OOM killer)\n");
    for (int i = 0; i < rounds; i++) for (int how = 0; how < HOWS; how++) for (int unread = 0; unread < 2; unread++) for (int late = 0; late < 2; late++) {
        if (how == OOM && !grouped) continue;
        struct seen plain = death(0, how, unread, late), here = accel() ? death(1, how, unread, late) : plain;
        n++;
        by_ring += here.by_ring;
        if (how == IN_COPY && accel()) { /* the kernel may take what lies before the fault; a ring gets nothing of it */
            CHECK(here.bytes == 20000, "a fault in send: %d bytes", here.bytes);
            here.bytes = plain.bytes;
        }
        CHECK(here.bytes == plain.bytes && here.end == plain.end && here.recv == plain.recv && here.send == plain.send, "way %d unread %d late %d: %d bytes, then %d, %d, send %d; on the kernel %d bytes, then %d, %d, send %d", how, unread, late, here.bytes, here.end, here.recv, here.send, plain.bytes, plain.end, plain.recv, plain.send);
    }
    if (grouped) WAIT(rmdir(group) == 0, 2000);
    if (accel() && spins_always()) CHECK(by_ring > 0, "%d of %d had bytes in the ring", by_ring, n);
    printf("ways_to_die: %d deaths (kill, SIGSEGV, abort%s, a fault in send), read as on the kernel\n", n, grouped ? ", out of memory" : "");
}

/* ---- SIGSTOP of one end ---- */
static volatile int stop_writing;
struct stream { int fd, tid; uint32_t seed; uint64_t bytes; };
static void *write_stream(void *arg) {
    struct stream *s = arg;
    char b[40000];
    s->tid = gettid();
    while (!stop_writing) {
        long n = 1 + rnd(rnd(4) ? 700 : sizeof b - 1);
        fill(b, n, s->seed, s->bytes);
        CHECK(write_full(s->fd, b, n) == n, "write");
        s->bytes += n;
    }
    shutdown(s->fd, SHUT_WR);
    return NULL;
}
static void *read_stream(void *arg) {
    struct stream *s = arg;
    char b[65536];
    long r;
    s->tid = gettid();
    while ((r = recv(s->fd, b, 1 + rnd(sizeof b), 0)) > 0) { verify(b, r, s->seed, s->bytes); s->bytes += r; }
    CHECK(r == 0, "the stream ended with %ld", r);
    return NULL;
}
ROLE(stoppable) { /* PORT: connect there; 0: listen */
    int port = atoi(argv[0]), first = port != 0, l = -1, fd, order;
    if (first) fd = connect_to(port);
    else { l = listen_on(&port); tell(port); fd = accept_on(l); }
    warm(fd, first);
    struct stream out = {fd, 0, first, 0}, in = {fd, 0, !first, 0};
    pthread_t w, r;
    pthread_create(&w, NULL, write_stream, &out);
    pthread_create(&r, NULL, read_stream, &in);
    while (!*(volatile int *)&out.tid || !*(volatile int *)&in.tid) sched_yield();
    tell(out.tid); tell(in.tid);
    while ((order = hear()) == 1) { /* its other connections go on */
        int a, b;
        pair(&a, &b);
        put(a, 5000, 3, 0); get(b, 5000, 3, 0);
        close(a); close(b);
        tell(1);
    }
    uint64_t before = in.bytes;
    CHECK(WAIT(*(volatile uint64_t *)&in.bytes > before + 1000000, 20000), "the stream does not go on");
    tell(1);
    hear();
    stop_writing = 1;
    pthread_join(w, NULL);
    pthread_join(r, NULL);
    tell(out.bytes >> 31); tell(out.bytes & 0x7fffffff);
    tell(in.bytes >> 31); tell(in.bytes & 0x7fffffff);
}
static uint64_t hear_long(int fd) { uint64_t high = hear_on(fd); return high << 31 | (uint32_t)hear_on(fd); }
/* Clock ticks of processor time, and times that it fell asleep, of a process's threads. */
static void spent(int pid, long *ticks, long *sleeps) {
    char path[64], line[512];
    long user = 0, system = 0, n;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    CHECK(f && fgets(line, sizeof line, f), "%s", path);
    fclose(f);
    sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user, &system);
    *ticks = user + system;
    *sleeps = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = opendir(path);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        snprintf(line, sizeof line, "%s/%.20s/status", path, e->d_name);
        if (e->d_name[0] == '.' || !(f = fopen(line, "re"))) continue;
        while (fgets(line, sizeof line, f)) if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1) *sleeps += n;
        fclose(f);
    }
    if (d) closedir(d);
}
static int state_of(int pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    char *p = strrchr(text, ')');
    return p ? p[2] : 0;
}
CASE(stopped_long) {
    int seconds = getenv("FAULTS_STOP") ? atoi(getenv("FAULTS_STOP")) : 1;
    struct role s[2] = {spawn("stoppable", "0")};
    s[1] = spawn("stoppable", number(hear_on(s[0].control)));
    int tids[2][2];
    for (int i = 0; i < 2; i++) for (int k = 0; k < 2; k++) CHECK((tids[i][k] = hear_on(s[i].control)) > 0, "ready");
    for (int i = 0; i < 2; i++) {
        struct role still = s[i], other = s[1 - i];
        long ticks[2], sleeps[2];
        kill(still.pid, SIGSTOP);
        CHECK(WAIT(state_of(still.pid) == 'T', 5000), "not stopped");
        /* reader and writer of the other end have gone to the kernel */
        for (int k = 0; k < 2; k++) wait_asleep(other.pid, tids[1 - i][k]);
        spent(other.pid, &ticks[0], &sleeps[0]);
        struct pollfd p = {other.control, POLLIN, 0};
        CHECK(poll(&p, 1, seconds * 1000) == 0, "the other side ended while one was stopped");
        spent(other.pid, &ticks[1], &sleeps[1]);
        long per_second = (ticks[1] - ticks[0]) * 100 / (seconds * sysconf(_SC_CLK_TCK)), naps = (sleeps[1] - sleeps[0]) / seconds;
        printf("stopped_long: %d s: the other end used %ld %% of a core and woke %ld times a second\n", seconds, per_second, naps);
        CHECK(per_second <= 5 && naps <= 100, "the other end does not rest: %ld %% of a core, %ld sleeps a second", per_second, naps);
        for (int k = 0; k < 2; k++) CHECK(is_asleep(other.pid, tids[1 - i][k]), "thread %d of the other end is awake", k);
        tell_on(other.control, 1);
        CHECK(hear_on(other.control) == 1, "its other connections stall");
        kill(still.pid, SIGCONT);
    }
    for (int i = 0; i < 2; i++) { tell_on(s[i].control, 0); }
    for (int i = 0; i < 2; i++) CHECK(hear_on(s[i].control) == 1, "resumed");
    for (int i = 0; i < 2; i++) tell_on(s[i].control, 0);
    uint64_t sent[2], got[2];
    for (int i = 0; i < 2; i++) { sent[i] = hear_long(s[i].control); got[i] = hear_long(s[i].control); }
    CHECK(sent[0] == got[1] && sent[1] == got[0], "sent %llu and %llu, received %llu and %llu", (unsigned long long)sent[0], (unsigned long long)sent[1], (unsigned long long)got[1], (unsigned long long)got[0]);
    for (int i = 0; i < 2; i++) finish(s[i]);
    printf("stopped_long: %llu kB whole\n", (unsigned long long)(sent[0] + sent[1]) >> 10);
}
