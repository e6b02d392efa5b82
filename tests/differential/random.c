/* Programs made up from a seed: both sides draw the same numbers, so each knows what the other does. In most steps one side acts and
 * the other waits; in some one side blocks and the other acts then. Before a side looks, what must have come has come.
 * DIFF_SEEDS=1-200 chooses the seeds (at most 256 at a time); each is a case of its own. */
#include "harness.h"

static uint64_t random_state;
static uint32_t draw(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return random_state >> 33;
}
static int below(int n) { return draw() % n; }
/* Small numbers are likelier. */
static int size(void) {
    static const int most[] = {1, 8, 64, 700, 3000, 9000};
    return 1 + below(most[below(6)]);
}

enum { NAMES = 4, ROOM = 1 << 16, QUEUE_MAX = 24000 };
struct model {
    int names[NAMES]; /* descriptors of the connection; -1 is none */
    long queued[2];   /* bytes on their way to the server, to the client */
    int ended[2];     /* the server, the client has shut its sending down */
    int nonblocking;
    int mark; /* SO_RCVLOWAT */
    int set;          /* an epoll set */
};
static struct model m;
static char room[ROOM];
static long position; /* of the next byte we send */

static int me(void) { return server ? 0 : 1; }
static int any(int n) {
    for (;; n++) if (m.names[n % NAMES] >= 0) return m.names[n % NAMES];
}
static void result(const char *what, long a, long b, long r) {
    int e = errno;
    out("%s %ld %ld = %ld%s%s%s", what, a, b, r, r < 0 ? " " : "", r < 0 ? strerrorname_np(e) : "", pipes != pipes_before ? " +SIGPIPE" : "");
    pipes_before = pipes;
}

/* Everything that the peer has sent is here, and its end. */
static void settle(void) {
    if (m.queued[me()]) need(any(0), m.queued[me()]);
    if (m.ended[!me()]) wait_ev(any(0), POLLRDHUP);
}

/* ---- the acts: each returns the bytes that it moved ---- */
struct act { int kind, name, n, at, flags, thread, child; };

static long send_by(struct act *a) {
    int fd = any(a->name), flags = MSG_NOSIGNAL * (a->flags & 1) | MSG_DONTWAIT * (a->flags >> 1 & 1);
    long n = a->n, half = n / 2, r = -1;
    for (long i = 0; i < n; i++) room[i] = (position + i) * 31 + (position + i) / 251;
    struct iovec v[3] = {{room, half}, {NULL, 0}, {room + half, n - half}};
    struct msghdr h = {.msg_iov = v, .msg_iovlen = 3};
    errno = 0;
    switch (a->kind % 7) {
    case 0: r = send(fd, room, n, flags); break;
    case 1: r = write(fd, room, n); break;
    case 2: r = writev(fd, v, 3); break;
    case 3: r = sendmsg(fd, &h, flags); break;
    case 4: r = sendto(fd, room, n, flags, NULL, 0); break;
    case 5: {
        struct mmsghdr two[2] = {{{.msg_iov = v, .msg_iovlen = 1}}, {{.msg_iov = v + 2, .msg_iovlen = 1}}};
        int done = sendmmsg(fd, two, 2, flags);
        r = done < 0 ? -1 : (long)two[0].msg_len + (done == 2 ? two[1].msg_len : 0);
        break;
    }
    case 6: {
        int file = memfd_create("random", MFD_CLOEXEC);
        if (syscall(SYS_write, file, room, n) != n) die("memfd");
        lseek(file, 0, SEEK_SET);
        errno = 0;
        r = sendfile(fd, file, NULL, n);
        int e = errno;
        close(file);
        errno = e;
        break;
    }
    }
    result("send", a->kind % 7, n, r);
    if (r > 0) position += r;
    return r;
}

static long receive_by(struct act *a) {
    int fd = any(a->name), flags = 0, kind = a->kind % 7;
    long n = a->n, half = n / 2, r = -1, sent = m.queued[me()];
    int flagged = kind != 1 && kind != 2;
    if (flagged && a->flags % 5 == 1) flags |= MSG_PEEK;
    if (flagged && a->flags % 7 == 1) flags |= MSG_TRUNC;
    if (flagged && a->flags % 3 == 1 && (sent >= n || m.ended[!me()])) flags |= MSG_WAITALL;
    /* Too little to read, and nobody who will write: do not wait for it. */
    if (sent < (m.mark < n ? m.mark : n) && !m.ended[!me()]) { if (!flagged || kind == 6) kind = 0; flags |= MSG_DONTWAIT; }
    struct iovec v[3] = {{room, half}, {NULL, 0}, {room + half, n - half}};
    struct msghdr h = {.msg_iov = v, .msg_iovlen = 3};
    memset(room, '.', n);
    errno = 0;
    switch (kind) {
    case 0: r = recv(fd, room, n, flags); break;
    case 1: r = read(fd, room, n); break;
    case 2: r = readv(fd, v, 3); break;
    case 3: r = recvmsg(fd, &h, flags); break;
    case 4: r = recvfrom(fd, room, n, flags, NULL, NULL); break;
    case 5: {
        struct mmsghdr two[2] = {{{.msg_iov = v, .msg_iovlen = 1}}, {{.msg_iov = v + 2, .msg_iovlen = 1}}};
        int done = recvmmsg(fd, two, 2, flags & ~MSG_TRUNC | MSG_DONTWAIT, NULL);
        r = done < 0 ? -1 : (long)two[0].msg_len + (done == 2 ? two[1].msg_len : 0);
        if (flags & MSG_PEEK) { result("peeked", done, n, r); return 0; }
        break;
    }
    case 6: {
        int p[2];
        if (pipe2(p, O_CLOEXEC)) die("pipe2");
        errno = 0;
        r = splice(fd, NULL, p[1], NULL, n, 0);
        int e = errno;
        if (r > 0 && syscall(SYS_read, p[0], room, r) != r) die("pipe");
        close(p[0]);
        close(p[1]);
        flags = 0;
        errno = e;
        break;
    }
    }
    result("receive", kind, n, r);
    out("  flags %x, %08x", flags, r > 0 ? hash(room, r < n ? r : n) : 0);
    return r > 0 && !(flags & MSG_PEEK) ? r : 0;
}

static void watch(int op, unsigned events, int name) {
    struct epoll_event e = {.events = events, .data.u32 = name};
    errno = 0;
    result("epoll_ctl", op, events, epoll_ctl(m.set, op, any(name), &e));
}
static void reap(int timeout) {
    struct epoll_event got[8];
    int n = epoll_wait(m.set, got, 8, timeout);
    out("epoll_wait = %d", n);
    for (int i = 0; i < n; i++) out("  %s", mask(got[i].events));
}
static void rename_by(struct act *a) {
    int to = a->at % NAMES, from = any(a->name);
    if (m.names[to] == from) return;
    if (m.names[to] >= 0) result("close", 0, 0, close(m.names[to]));
    m.names[to] = a->flags & 1 ? dup(from) : fcntl(from, F_DUPFD_CLOEXEC, 60 + to);
    out("another name");
}
static void look(struct act *a) {
    int fd = any(a->name);
    switch (a->flags % 6) {
    case 0: state(fd); break;
    case 1: readable_bytes(fd); break;
    case 2: so_error(fd); break;
    case 3: poll_mask(fd, POLLIN | POLLOUT | POLLRDHUP, 0); break;
    case 4: reap(0); break;
    case 5: {
        static const unsigned kinds[] = {EPOLLIN, EPOLLIN | EPOLLOUT, EPOLLIN | EPOLLET, EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, EPOLLIN | EPOLLONESHOT, EPOLLRDHUP};
        static const int ops[] = {EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_MOD, EPOLL_CTL_DEL};
        watch(ops[a->n % 4], kinds[a->at % 6], a->name);
        reap(0);
        break;
    }
    }
}

/* One act of this side; what it moved: positive was sent, negative received. */
static long act(struct act *a) {
    int turn = a->kind % 20;
    settle();
    if (turn < 7) {
        long r = m.queued[!me()] + a->n < QUEUE_MAX ? send_by(a) : 0;
        return r > 0 ? r : 0;
    }
    if (turn < 14) return -receive_by(a);
    if (turn < 17) { look(a); return 0; }
    if (turn == 17) { rename_by(a); return 0; }
    if (turn == 18) { m.nonblocking = a->flags & 1; nonblock(any(a->name), m.nonblocking); return 0; }
    if (a->flags % 3 == 0) {
        m.mark = 1 + a->n % 150;
        result("mark", m.mark, get_int(any(a->name), SOL_SOCKET, SO_RCVLOWAT), set_int(any(a->name), SOL_SOCKET, SO_RCVLOWAT, m.mark));
        return 0;
    }
    result("option", a->n, 0, set_int(any(a->name), SOL_TCP, a->flags & 1 ? TCP_NODELAY : TCP_QUICKACK, a->n & 1));
    return 0;
}
static long act_job(void *p) { return act(p); }
/* In this thread, another, or a child. */
static long act_somewhere(struct act *a) {
    int turn = a->kind % 20;
    if (a->thread) {
        struct job j;
        job_start(&j, act_job, a);
        pthread_join(j.t, NULL);
        return j.result;
    }
    if (!a->child || turn >= 14) return act(a);
    int p[2];
    if (pipe2(p, O_CLOEXEC)) die("pipe2");
    pid_t child = fork();
    if (!child) {
        long moved[2] = {act(a), position};
        syscall(SYS_write, p[1], moved, sizeof moved);
        _exit(0);
    }
    long moved[2] = {0, position};
    close(p[1]);
    if (syscall(SYS_read, p[0], moved, sizeof moved) != sizeof moved) out("the child said nothing");
    close(p[0]);
    waitpid(child, NULL, 0);
    position = moved[1];
    return moved[0];
}
/* Both learn what `who` moved. */
static void agree(int who, long moved) {
    if (who == me()) tell(moved); else moved = hear();
    if (moved > 0) m.queued[!who] += moved; else m.queued[who] += moved;
    step();
}

/* One side blocks until the other's message comes. */
static void blocked(int who, struct act *a, int early) {
    if (m.queued[who] || m.ended[!who] || m.ended[who]) return;
    long moved = 0;
    step();
    if (who == me()) {
        static const char *ways[] = {"recv", "poll", "epoll", "select", "read"};
        int fd = any(a->name), way = a->flags % 5;
        nonblock(fd, 0);
        if (m.mark > 1) Q(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, m.mark = 1));
        errno = 0;
        if (way == 0 || way == 4) {
            moved = way ? read(fd, room, ROOM) : recv(fd, room, ROOM, 0);
            result(ways[way], 0, 0, moved);
            out("  %08x", hash(room, moved > 0 ? moved : 0));
        } else if (way == 1) {
            poll_mask(fd, POLLIN, 10000);
        } else if (way == 2) {
            int set = epoll_create1(EPOLL_CLOEXEC);
            struct epoll_event e = {.events = EPOLLIN}, got = {0};
            epoll_ctl(set, EPOLL_CTL_ADD, fd, &e);
            int n = epoll_wait(set, &got, 1, 10000);
            out("epoll_wait = %d %s", n, mask(got.events));
            close(set);
        } else {
            fd_set in;
            FD_ZERO(&in);
            FD_SET(fd, &in);
            struct timeval t = {10, 0};
            out("select = %d", select(fd + 1, &in, NULL, NULL, &t));
        }
        nonblock(fd, m.nonblocking);
    } else if (!early) {
        wait_peer_asleep();
    }
    /* As one message, or the sleeper may see a part. */
    struct act b = {.kind = a->kind % 7 == 5 ? 0 : a->kind, .n = a->n, .name = a->name, .flags = 0};
    agree(!who, who == me() ? 0 : send_by(&b));
    agree(who, who == me() ? -(moved > 0 ? moved : 0) : 0);
}

/* The end of the connection, in one of the ways there are. */
static void finish(int who, int way) {
    if (way < 3) {
        if (who == me()) result("shutdown", 0, 0, shutdown(any(0), SHUT_WR));
        m.ended[who] = 1;
        step();
        settle();
        if (who != me()) { uint32_t h = 0; nonblock(any(0), 0); out("drained %ld", drain(any(0), &h)); out("  %08x", h); }
        m.queued[!who] = 0;
        step();
        return;
    }
    settle();
    step();
    if (who == me()) {
        struct linger now = {1, 0};
        if (way == 3) Q(setsockopt(any(0), SOL_SOCKET, SO_LINGER, &now, sizeof now));
        for (int i = 0; i < NAMES; i++) if (m.names[i] >= 0) close(m.names[i]);
    }
    int reset = way == 3 || m.queued[who];
    step();
    if (who != me()) {
        int fd = any(1);
        nonblock(fd, 0);
        wait_ev(fd, reset ? 0 : POLLRDHUP);
        for (int i = 0; i < 3; i++) {
            errno = 0;
            long r = recv(fd, room, ROOM, 0);
            result("recv", 0, 0, r);
            out("  %08x", r > 0 ? hash(room, r) : 0);
        }
        if (reset) { errno = 0; result("send", 0, 0, send(fd, "x", 1, 0)); state(fd); }
    }
    step();
}

static void seed(int fd) {
    random_state = strtoul(case_name + 5, NULL, 10) * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 4; i++) draw();
    m = (struct model){.names = {fd, -1, -1, -1}, .mark = 1, .set = Q(epoll_create1(EPOLL_CLOEXEC))};
    if (below(4)) Q(set_int(fd, SOL_TCP, TCP_NODELAY, 1));
    int children = below(4) == 0, acts = 40 + below(60);
    for (int i = 0; i < acts; i++) {
        int who = below(2), blocks = below(6) == 0, early = below(2);
        struct act a = {.kind = below(5040), .name = below(NAMES), .n = size(), .at = below(5040), .flags = below(5040), .thread = below(10) == 0, .child = children && below(12) == 0};
        if (blocks) { blocked(who, &a, early); continue; }
        agree(who, who == me() ? act_somewhere(&a) : 0);
    }
    int who = below(2), way = below(5);
    finish(who, way);
    if (way < 3) finish(!who, below(5));
}

__attribute__((constructor)) static void add_seeds(void) {
    int first = 1, last = 40;
    const char *chosen = getenv("DIFF_SEEDS");
    if (chosen) sscanf(chosen, "%d-%d", &first, &last);
    for (int i = first; i <= last; i++) {
        char *name = NULL;
        if (asprintf(&name, "seed_%d", i) < 0) _exit(95);
        case_add(name, seed, 0, 0);
    }
}
