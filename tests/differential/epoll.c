/* epoll(7), epoll_ctl(2), epoll_wait(2): level, edge, one shot, nesting, several sets, lifetimes. */
#include "harness.h"

static char buf[1 << 20];
static int make(void) { return Q(epoll_create1(EPOLL_CLOEXEC)); }
static int ctl(int ep, int op, int fd, unsigned events, uint64_t data) {
    struct epoll_event e = {.events = events, .data.u64 = data};
    return epoll_ctl(ep, op, fd, &e);
}
#define ADD(ep, fd, events, data) C(ctl(ep, EPOLL_CTL_ADD, fd, events, data))
#define MOD(ep, fd, events, data) C(ctl(ep, EPOLL_CTL_MOD, fd, events, data))
#define DEL(ep, fd) C(ctl(ep, EPOLL_CTL_DEL, fd, 0, 0))
/* Wait and write down what came, sorted by data: the order among several ready ones is the kernel's list order and is looked at on purpose elsewhere. */
static int look(int ep, int max, int timeout) {
    struct epoll_event g[64];
    memset(g, 0x55, sizeof g);
    errno = 0;
    int n = epoll_wait(ep, g, max, timeout);
    out("epoll_wait(max %d, timeout %d) = %d%s%s", max, timeout, n, n < 0 ? " " : "", n < 0 ? strerrorname_np(errno) : "");
    for (int i = 0; i < n; i++) for (int j = i + 1; j < n; j++) if (g[j].data.u64 < g[i].data.u64) { struct epoll_event t = g[i]; g[i] = g[j]; g[j] = t; }
    for (int i = 0; i < n; i++) out("  %#lx: %s", (long)g[i].data.u64, mask(g[i].events));
    return n;
}
#define GIVE(fd, text) do { step(); if (server) Q(send(fd, text, sizeof text - 1, 0)); step(); if (!server) wait_in(fd); } while (0)

CASE(level) {
    int ep = make();
    if (!server) { ADD(ep, fd, EPOLLIN, 0x1234567890abcdef); look(ep, 8, 0); look(ep, 8, 30); }
    GIVE(fd, "abcdef");
    if (!server) { look(ep, 8, -1); look(ep, 8, 0); C(recv(fd, buf, 3, 0)); look(ep, 8, 0); C(recv(fd, buf, 3, 0)); look(ep, 8, 0); }
    GIVE(fd, "abcdef");
    if (!server) { look(ep, 8, -1); C(recv(fd, buf, 30, 0)); C(recv(fd, buf, 30, MSG_DONTWAIT)); look(ep, 8, 0); }
    step();
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); look(ep, 8, 0); look(ep, 8, 0); C(recv(fd, buf, 3, 0)); look(ep, 8, 0); }
}
CASE(level_blocking) {
    int ep = make();
    if (!server) ADD(ep, fd, EPOLLIN | EPOLLRDHUP, 7);
    step();
    for (int i = 0; i < 6; i++) {
        if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); }
        else { look(ep, 8, i % 2 ? -1 : 5000); C(recv(fd, buf, 10, 0)); look(ep, 8, 0); }
        step();
    }
    if (server) { wait_peer_asleep(); C(shutdown(fd, SHUT_WR)); }
    else look(ep, 8, -1);
    step();
    if (!server) C(shutdown(fd, SHUT_WR));
    step();
    if (!server) { wait_ev(fd, POLLHUP); look(ep, 8, 0); }
}
CASE(edge) {
    int ep = make();
    if (!server) { ADD(ep, fd, EPOLLIN | EPOLLET, 1); look(ep, 8, 0); }
    GIVE(fd, "abcdef");
    if (!server) { look(ep, 8, -1); look(ep, 8, 0); C(recv(fd, buf, 2, 0)); look(ep, 8, 0); look(ep, 8, 30); }
    GIVE(fd, "ghi");
    if (!server) { need(fd, 7); look(ep, 8, -1); look(ep, 8, 0); C(recv(fd, buf, 100, 0)); SHOW(buf, 7); look(ep, 8, 0); C(recv(fd, buf, 100, MSG_DONTWAIT)); look(ep, 8, 0); }
    for (int i = 0; i < 4; i++) { GIVE(fd, "x"); if (!server) { look(ep, 8, -1); C(recv(fd, buf, 10, MSG_DONTWAIT)); look(ep, 8, 0); } }
    step();
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); look(ep, 8, -1); look(ep, 8, 0); C(recv(fd, buf, 3, 0)); look(ep, 8, 0); }
}
CASE(edge_blocking) {
    int ep = make();
    if (!server) ADD(ep, fd, EPOLLIN | EPOLLET | EPOLLRDHUP, 1);
    step();
    for (int i = 0; i < 8; i++) {
        if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); }
        else { look(ep, 8, -1); while (recv(fd, buf, 2, MSG_DONTWAIT) > 0) {} look(ep, 8, 0); }
        step();
    }
}
CASE(edge_in_and_out) {
    int ep = make();
    if (!server) { ADD(ep, fd, EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, 1); look(ep, 8, 0); look(ep, 8, 0); }
    GIVE(fd, "abcdef");
    if (!server) { look(ep, 8, -1); look(ep, 8, 0); C(recv(fd, buf, 100, 0)); look(ep, 8, 0); }
    GIVE(fd, "abcdef");
    if (!server) { look(ep, 8, -1); look(ep, 8, 0); C(recv(fd, buf, 100, 0)); C(send(fd, "reply", 5, 0)); }
    step();
    if (server) { need(fd, 5); C(recv(fd, buf, 5, 0)); Q(shutdown(fd, SHUT_WR)); }
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); look(ep, 8, -1); look(ep, 8, 0); }
}
CASE(edge_added_late) {
    int ep = make();
    GIVE(fd, "abc");
    if (!server) { ADD(ep, fd, EPOLLIN | EPOLLET, 1); look(ep, 8, 0); look(ep, 8, 0); MOD(ep, fd, EPOLLIN | EPOLLET, 2); look(ep, 8, 0); look(ep, 8, 0); C(recv(fd, buf, 1, 0)); MOD(ep, fd, EPOLLIN | EPOLLET, 3); look(ep, 8, 0); DEL(ep, fd); look(ep, 8, 0); ADD(ep, fd, EPOLLIN | EPOLLET, 4); look(ep, 8, 0); look(ep, 8, 0); }
    step();
}
CASE(edge_several_sends_one_edge) {
    int ep = make();
    if (!server) ADD(ep, fd, EPOLLIN | EPOLLET, 1);
    step();
    if (server) { Q(set_int(fd, SOL_TCP, TCP_NODELAY, 1)); for (int i = 0; i < 10; i++) Q(send(fd, "0123456789", 10, 0)); }
    step();
    if (!server) { need(fd, 100); look(ep, 8, 0); look(ep, 8, 0); C(recv(fd, buf, 50, 0)); look(ep, 8, 0); C(recv(fd, buf, 100, 0)); look(ep, 8, 0); }
    step();
}
CASE(edge_room_to_write) {
    int ep = make();
    if (server) {
        ADD(ep, fd, EPOLLOUT | EPOLLET, 1); look(ep, 8, 0); look(ep, 8, 0);
        long n = fill_up(fd);
        look(ep, 8, 0); /* nothing: full */
        tell(n);
        look(ep, 8, 10000); look(ep, 8, 0);
        step();
        C(send(fd, "x", 1, MSG_DONTWAIT));
    } else {
        long n = hear();
        wait_peer_asleep();
        char *all = malloc(n);
        T(read_full(fd, all, n) == n);
        step();
        C(recv(fd, buf, 1, 0));
    }
}
CASE(one_shot) {
    int ep = make();
    if (!server) ADD(ep, fd, EPOLLIN | EPOLLONESHOT, 1);
    GIVE(fd, "abc");
    if (!server) { look(ep, 8, -1); look(ep, 8, 0); C(recv(fd, buf, 1, 0)); }
    GIVE(fd, "def");
    if (!server) { need(fd, 5); look(ep, 8, 30); MOD(ep, fd, EPOLLIN | EPOLLONESHOT, 2); look(ep, 8, -1); look(ep, 8, 0); MOD(ep, fd, EPOLLIN | EPOLLONESHOT | EPOLLET, 3); look(ep, 8, 0); look(ep, 8, 0); C(recv(fd, buf, 100, 0)); MOD(ep, fd, EPOLLIN | EPOLLONESHOT, 4); look(ep, 8, 0); }
    GIVE(fd, "ghi");
    if (!server) { look(ep, 8, -1); look(ep, 8, 0); }
    step();
    if (server) Q(close(fd));
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); look(ep, 8, 0); MOD(ep, fd, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, 5); look(ep, 8, 0); look(ep, 8, 0); }
}
CASE(one_shot_blocking_rearm) {
    int ep = make();
    if (!server) ADD(ep, fd, EPOLLIN | EPOLLONESHOT, 0);
    step();
    for (int i = 1; i < 8; i++) {
        if (server) { if (i & 1) wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); }
        else { look(ep, 8, -1); C(recv(fd, buf, 100, 0)); MOD(ep, fd, EPOLLIN | EPOLLONESHOT, i); }
        step();
    }
}
CASE(masks_exactly) {
    int a = make(), b = make(), c = make(), d = make(), e = make();
    if (!server) { ADD(a, fd, EPOLLOUT, 1); ADD(b, fd, EPOLLIN | EPOLLOUT, 2); ADD(c, fd, 0, 3); ADD(d, fd, EPOLLRDHUP | EPOLLPRI, 4); ADD(e, fd, EPOLLRDNORM | EPOLLWRNORM | EPOLLRDBAND | EPOLLWRBAND | EPOLLMSG, 5); }
#define FIVE() do { look(a, 8, 0); look(b, 8, 0); look(c, 8, 0); look(d, 8, 0); look(e, 8, 0); } while (0)
    if (!server) FIVE();
    GIVE(fd, "abc");
    if (!server) FIVE();
    step();
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); FIVE(); C(recv(fd, buf, 10, 0)); FIVE(); C(shutdown(fd, SHUT_WR)); }
    step();
    if (!server) { wait_ev(fd, POLLHUP); FIVE(); }
}
CASE(masks_after_reset) {
    int ep = make();
    struct linger l = {1, 0};
    if (!server) ADD(ep, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP, 1);
    step();
    if (server) { Q(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l)); close(fd); }
    step();
    if (!server) { wait_ev(fd, 0); look(ep, 8, -1); look(ep, 8, 0); C(recv(fd, buf, 1, 0)); look(ep, 8, 0); so_error(fd); look(ep, 8, 0); MOD(ep, fd, 0, 2); look(ep, 8, 0); }
    step();
}
CASE(peer_closes_while_waiting) {
    for (int i = 0; i < 3; i++) {
        int c = another(), ep = make();
        warm(c);
        if (!server) ADD(ep, c, i == 0 ? EPOLLIN : i == 1 ? EPOLLIN | EPOLLRDHUP | EPOLLET : EPOLLRDHUP, 5);
        step();
        if (server) { wait_peer_asleep(); if (i == 2) shutdown(c, SHUT_WR); else close(c); }
        else { look(ep, 8, -1); look(ep, 8, 0); C(recv(c, buf, 1, 0)); C(send(c, "x", 1, 0)); }
        step();
        if (!server && i < 2) { wait_ev(c, 0); look(ep, 8, 0); look(ep, 8, 0); }
        step();
    }
}
CASE(control_errors) {
    int ep = make(), ep2 = make(), file = open("/proc/self/exe", O_RDONLY), gone = dup(fd);
    close(gone);
    struct epoll_event g[4];
    ADD(ep, fd, EPOLLIN, 1); ADD(ep, fd, EPOLLIN, 2); DEL(ep, fd); DEL(ep, fd); MOD(ep, fd, EPOLLIN, 3); ADD(ep, file, EPOLLIN, 4); ADD(ep, ep, EPOLLIN, 5); ADD(ep, gone, EPOLLIN, 6); ADD(ep, -1, EPOLLIN, 7); ADD(fd, ep, EPOLLIN, 8); ADD(fd, fd, EPOLLIN, 8); ADD(gone, fd, EPOLLIN, 9); ADD(file, fd, EPOLLIN, 9);
    C(epoll_ctl(ep, EPOLL_CTL_ADD, fd, NULL)); C(epoll_ctl(ep, EPOLL_CTL_ADD, fd, (void *)-1)); C(epoll_ctl(ep, 99, fd, g)); C(epoll_ctl(ep, 0, fd, NULL));
    ADD(ep, fd, EPOLLIN, 1); C(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
    C(epoll_wait(ep, g, 0, 0)); C(epoll_wait(ep, g, -1, 0)); C(epoll_wait(fd, g, 4, 0)); C(epoll_wait(gone, g, 4, 0)); C(epoll_wait(-1, g, 4, 0)); C(epoll_wait(file, g, 4, 0)); C(epoll_wait(ep, (void *)-1, 4, 0));
    ADD(ep, fd, EPOLLOUT, 1); C(epoll_wait(ep, (void *)-1, 4, 0)); C(epoll_wait(ep, NULL, 4, 0)); look(ep, 4, 0);
    C(epoll_create(0)); C(epoll_create1(0x123)); T(epoll_create(1) > 2); C(fcntl(epoll_create1(EPOLL_CLOEXEC), F_GETFD)); C(fcntl(epoll_create1(0), F_GETFD));
    ADD(ep, ep2, EPOLLIN, 5); ADD(ep2, ep, EPOLLIN, 5);
    C(read(ep, g, 4)); C(write(ep, g, 4)); 
}
CASE(exclusive) {
    int ep = make(), ep2 = make();
    if (!server) { ADD(ep, fd, EPOLLIN | EPOLLEXCLUSIVE, 1); MOD(ep, fd, EPOLLIN, 2); MOD(ep, fd, EPOLLIN | EPOLLEXCLUSIVE, 2); ADD(ep2, fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 3); ADD(ep2, fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLRDHUP, 3); ADD(ep2, fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET, 4); ADD(ep2, ep, EPOLLIN | EPOLLEXCLUSIVE, 4); }
    GIVE(fd, "abc");
    if (!server) { look(ep, 8, 0); look(ep2, 8, 0); C(recv(fd, buf, 10, 0)); look(ep, 8, 0); look(ep2, 8, 0); }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); } else look(ep, 8, -1);
    step();
}
CASE(nested) {
    int in = make(), mid = make(), outer = make();
    if (!server) { ADD(in, fd, EPOLLIN, 1); ADD(mid, in, EPOLLIN, 2); ADD(outer, mid, EPOLLIN, 3); look(outer, 8, 0); poll_mask(in, POLLIN, 0); poll_mask(outer, POLLIN | POLLOUT, 0); }
    GIVE(fd, "abc");
    if (!server) { look(outer, 8, -1); look(outer, 8, 0); poll_mask(in, POLLIN, 0); poll_mask(mid, POLLIN, 0); poll_mask(outer, POLLIN, -1); look(mid, 8, 0); look(in, 8, 0); C(recv(fd, buf, 10, 0)); look(outer, 8, 0); poll_mask(outer, POLLIN, 0); poll_mask(in, POLLIN, 0); }
    step();
    for (int i = 0; i < 4; i++) {
        if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); }
        else if (i == 0) { look(outer, 8, -1); C(recv(fd, buf, 10, 0)); }
        else if (i == 1) { poll_mask(mid, POLLIN, -1); C(recv(fd, buf, 10, 0)); }
        else if (i == 2) { fd_set r; FD_ZERO(&r); FD_SET(outer, &r); C(select(outer + 1, &r, NULL, NULL, NULL)); C(recv(fd, buf, 10, 0)); }
        else { look(in, 8, -1); C(recv(fd, buf, 10, 0)); }
        step();
    }
}
CASE(nested_edge) {
    int in = make(), outer = make();
    if (!server) { ADD(in, fd, EPOLLIN, 1); ADD(outer, in, EPOLLIN | EPOLLET, 3); look(outer, 8, 0); }
    GIVE(fd, "abc");
    if (!server) { look(outer, 8, -1); look(outer, 8, 0); look(in, 8, 0); look(outer, 8, 0); C(recv(fd, buf, 10, 0)); look(in, 8, 0); look(outer, 8, 0); }
    GIVE(fd, "abc");
    if (!server) { look(outer, 8, -1); look(in, 8, 0); C(recv(fd, buf, 10, 0)); }
    step();
}
CASE(two_sets_one_socket) {
    int a = make(), b = make();
    if (!server) { ADD(a, fd, EPOLLIN, 1); ADD(b, fd, EPOLLIN | EPOLLET, 2); }
    GIVE(fd, "abc");
    if (!server) { look(a, 8, -1); look(b, 8, -1); look(a, 8, 0); look(b, 8, 0); C(recv(fd, buf, 10, 0)); look(a, 8, 0); look(b, 8, 0); }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); } else { look(b, 8, -1); look(a, 8, 0); look(b, 8, 0); C(recv(fd, buf, 10, 0)); close(a); }
    GIVE(fd, "abc");
    if (!server) look(b, 8, 0);
    step();
}
CASE(close_of_a_watched_socket) {
    int ep = make(), c = another();
    warm(c);
    if (!server) ADD(ep, c, EPOLLIN, 1);
    GIVE(c, "abc");
    if (!server) { look(ep, 8, 0); close(c); look(ep, 8, 0); int f = open("/dev/null", O_RDONLY); T(f == c); look(ep, 8, 0); DEL(ep, f); MOD(ep, f, EPOLLIN, 1); close(f); DEL(ep, f); }
    step();
    /* The number again, another connection. */
    if (server) { wait_ev(c, 0); close(c); }
    step();
    c = another(); warm(c);
    if (!server) { look(ep, 8, 0); ADD(ep, c, EPOLLIN, 2); look(ep, 8, 0); }
    GIVE(c, "abc");
    if (!server) { look(ep, 8, 0); }
    step();
}
CASE(dup_of_a_watched_socket) {
    int ep = make(), copy = dup(fd);
    if (!server) { ADD(ep, fd, EPOLLIN, 1); ADD(ep, copy, EPOLLIN | EPOLLOUT, 2); look(ep, 8, 0); DEL(ep, copy); close(fd); look(ep, 8, 0); }
    GIVE(copy, "abc");
    if (!server) { look(ep, 8, 0); /* the closed number is still watched */ DEL(ep, fd); MOD(ep, copy, EPOLLIN, 3); C(recv(copy, buf, 10, 0)); look(ep, 8, 0); ADD(ep, copy, EPOLLIN, 4); }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "def", 3, 0)); } else { look(ep, 8, -1); C(recv(copy, buf, 10, 0)); close(copy); look(ep, 8, 0); }
    step();
}
CASE(max_events_one_goes_round) {
    enum { N = 5 };
    int ep = make(), c[N];
    for (int i = 0; i < N; i++) { c[i] = another(); warm(c[i]); if (!server) Q(ctl(ep, EPOLL_CTL_ADD, c[i], EPOLLIN, i)); }
    step();
    if (server) for (int i = 0; i < N; i++) Q(send(c[i], "abc", 3, 0));
    step();
    if (!server) {
        int seen[N] = {0};
        struct epoll_event g;
        for (int i = 0; i < N; i++) wait_in(c[i]);
        for (int i = 0; i < 2 * N; i++) { if (epoll_wait(ep, &g, 1, 0) != 1) out("none?"); seen[g.data.u32]++; }
        for (int i = 0; i < N; i++) out("%d: seen %d times", i, seen[i]);
        C(epoll_wait(ep, (struct epoll_event[3]){}, 3, 0));
        look(ep, 64, 0);
        for (int i = 0; i < N; i++) { Q(recv(c[i], buf, 10, 0)); out("now %d", epoll_wait(ep, &g, 1, 0)); }
    }
    step();
}
CASE(max_events_edge) {
    enum { N = 5 };
    int ep = make(), c[N];
    for (int i = 0; i < N; i++) { c[i] = another(); warm(c[i]); if (!server) Q(ctl(ep, EPOLL_CTL_ADD, c[i], EPOLLIN | EPOLLET, i)); }
    step();
    if (server) for (int i = 0; i < N; i++) Q(send(c[i], "abc", 3, 0));
    step();
    if (!server) {
        struct epoll_event g[2];
        int seen[N] = {0}, n, calls = 0;
        for (int i = 0; i < N; i++) wait_in(c[i]);
        while ((n = epoll_wait(ep, g, 2, 0)) > 0) { calls++; for (int i = 0; i < n; i++) seen[g[i].data.u32]++; }
        out("%d calls", calls); for (int i = 0; i < N; i++) out("%d: seen %d times", i, seen[i]);
    }
    step();
}
CASE(many_members_few_active) {
    enum { N = 60 };
    int ep = make(), c[N];
    for (int i = 0; i < N; i++) { c[i] = another(); if (i % 7 == 0) warm(c[i]); if (!server) Q(ctl(ep, EPOLL_CTL_ADD, c[i], EPOLLIN | (i & 1 ? EPOLLET : 0), i)); }
    step();
    for (int i = 0; i < N; i += 4) {
        if (server) { if (i % 8 == 0) wait_peer_asleep(); Q(send(c[i], "abc", 3, 0)); Q(send(c[(i * 7 + 3) % N], "abc", 3, 0)); }
        step();
        if (!server) { wait_in(c[i]); wait_in(c[(i * 7 + 3) % N]); look(ep, 64, -1); Q(recv(c[i], buf, 10, 0)); recv(c[(i * 7 + 3) % N], buf, 10, MSG_DONTWAIT); look(ep, 64, 0); }
        step();
    }
}
static void usr1_soon(void) { wait_peer_asleep(); kill(peer_pid, SIGUSR1); }
CASE(pwait_signal_mask) {
    int ep = make();
    struct epoll_event g;
    if (server) { usr1_soon(); step(); usr1_soon(); step(); return; }
    sigset_t none, block;
    sigemptyset(&none); sigemptyset(&block); sigaddset(&block, SIGUSR1);
    handle(SIGUSR1, SA_RESTART);
    ADD(ep, fd, EPOLLIN, 1);
    C(epoll_wait(ep, &g, 1, 10000)); C(usr1s); step();
    Q(sigprocmask(SIG_BLOCK, &block, NULL));
    C(epoll_pwait(ep, &g, 1, -1, &none)); C(usr1s); step();
    kill(getpid(), SIGUSR1); C(epoll_pwait(ep, &g, 1, 0, NULL)); C(epoll_pwait(ep, &g, 1, 0, &block)); C(usr1s); C(epoll_pwait(ep, &g, 1, 0, &none)); C(usr1s);
    C(epoll_pwait(ep, &g, 0, 0, &none));
}
CASE(pwait_nanoseconds) {
    int ep = make();
    struct epoll_event g;
    if (!server) {
        ADD(ep, fd, EPOLLIN, 1);
        struct timespec ts = {0, 90000000};
        long t = now_ms(); C(epoll_pwait2(ep, &g, 1, &ts, NULL)); took(t, 90); out("%ld", ts.tv_nsec);
        ts.tv_nsec = 1; C(epoll_pwait2(ep, &g, 1, &ts, NULL)); ts.tv_nsec = 0; C(epoll_pwait2(ep, &g, 1, &ts, NULL)); ts.tv_nsec = -1; C(epoll_pwait2(ep, &g, 1, &ts, NULL)); ts.tv_nsec = 1000000000; C(epoll_pwait2(ep, &g, 1, &ts, NULL)); ts.tv_sec = -1; C(epoll_pwait2(ep, &g, 1, &ts, NULL));
        t = now_ms(); C(epoll_wait(ep, &g, 1, 70)); took(t, 70);
    }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "x", 1, 0)); } else { C(epoll_pwait2(ep, &g, 1, NULL, NULL)); out("%s", mask(g.events)); }
    step();
}
CASE(wild_arguments) {
    int ep = make();
    struct epoll_event g;
    ADD(ep, fd, EPOLLOUT, 1);
    C(epoll_wait(ep, &g, INT_MAX, 0)); C(epoll_wait(ep, (void *)-1, 4, 0)); C(epoll_pwait(ep, &g, 1, 0, (void *)-1)); C(epoll_pwait2(ep, &g, 1, (void *)-1, NULL));
}
CASE(inherited_over_fork) {
    int ep = make();
    if (server) { step(); Q(send(fd, "child", 5, 0)); step(); step(); Q(send(fd, "parent", 6, 0)); step(); return; }
    ADD(ep, fd, EPOLLIN, 9);
    int p[2]; Q(pipe(p));
    pid_t child = fork();
    if (child == 0) { look(ep, 8, 10000); C(recv(fd, buf, 100, 0)); SHOW(buf, 5); look(ep, 8, 0); _exit(0); }
    step(); step();
    C(waitpid(child, NULL, 0) == child);
    step(); step();
    wait_in(fd); look(ep, 8, 0); C(recv(fd, buf, 100, 0)); SHOW(buf, 6); look(ep, 8, 0);
}
/* What lies unread when the child first waits on the set that it inherited: sent before the fork, and after it. */
CASE(inherited_with_bytes_unread) {
    int ep = make();
    if (!server) ADD(ep, fd, EPOLLIN, 9);
    GIVE(fd, "before");
    if (!server) {
        pid_t child = fork();
        if (child == 0) { look(ep, 8, 5000); C(recv(fd, buf, 100, 0)); SHOW(buf, 6); look(ep, 8, 0); _exit(0); }
        C(waitpid(child, NULL, 0) == child); look(ep, 8, 0);
    }
    step();
}
CASE(inherited_and_then_sent_to) {
    int ep = make(), p[2]; Q(pipe(p));
    pid_t child = -1;
    if (!server) {
        ADD(ep, fd, EPOLLIN, 9);
        child = fork();
        if (child == 0) { Q(read(p[0], buf, 1)); look(ep, 8, 5000); C(recv(fd, buf, 100, 0)); SHOW(buf, 5); look(ep, 8, 0); _exit(0); }
    }
    step();
    if (server) Q(send(fd, "after", 5, 0));
    step();
    if (!server) { Q(write(p[1], "x", 1)); C(waitpid(child, NULL, 0) == child); look(ep, 8, 0); }
    step();
}
CASE(changed_by_the_child) {
    /* The set is shared with the child: what it adds the parent sees. */
    int ep = make();
    if (!server) { pid_t child = fork(); if (child == 0) { ADD(ep, fd, EPOLLIN, 77); _exit(0); } C(waitpid(child, NULL, 0) == child); }
    GIVE(fd, "abc");
    if (!server) { look(ep, 8, 0); MOD(ep, fd, EPOLLIN | EPOLLOUT, 78); look(ep, 8, 0); DEL(ep, fd); look(ep, 8, 0); }
    step();
}
struct waiter { int ep; struct epoll_event g; };
static long wait_one(void *p) { struct waiter *w = p; return epoll_wait(w->ep, &w->g, 1, 10000); }
CASE(added_while_another_thread_waits) {
    struct waiter w = {make()};
    struct job j;
    GIVE(fd, "abc");
    if (!server) { job_start(&j, wait_one, &w); job_asleep(&j); ADD(w.ep, fd, EPOLLIN, 5); job_join(&j, "waiter"); out("%s", mask(w.g.events)); C(recv(fd, buf, 10, 0)); }
    step();
    if (!server) { job_start(&j, wait_one, &w); job_asleep(&j); MOD(w.ep, fd, EPOLLOUT, 6); job_join(&j, "waiter"); out("%s", mask(w.g.events)); MOD(w.ep, fd, EPOLLIN, 6); job_start(&j, wait_one, &w); job_asleep(&j); }
    step();
    if (server) Q(send(fd, "abc", 3, 0)); else { job_join(&j, "waiter"); out("%s %d", mask(w.g.events), (int)w.g.data.u32); }
    step();
}
CASE(two_threads_wait_on_one_set) {
    struct waiter w[2] = {{make()}};
    struct job j[2];
    w[1].ep = w[0].ep;
    if (!server) { ADD(w[0].ep, fd, EPOLLIN | EPOLLET, 5); for (int i = 0; i < 2; i++) { job_start(&j[i], wait_one, &w[i]); job_asleep(&j[i]); } }
    step();
    if (server) { Q(send(fd, "abc", 3, 0)); }
    step();
    if (!server) { wait_in(fd); }
    /* One edge, one of them wakes: the second by the next. */
    step();
    if (!server) { nap_ms(30); C(recv(fd, buf, 10, 0)); }
    step();
    if (server) Q(send(fd, "def", 3, 0));
    step();
    if (!server) { long a, b; pthread_join(j[0].t, NULL); pthread_join(j[1].t, NULL); out("%ld", j[0].result + j[1].result); }
    step();
}
CASE(mixed_members) {
    int ep = make(), p[2], ev = eventfd(0, EFD_NONBLOCK), tm = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), un[2];
    Q(pipe(p)); Q(socketpair(AF_UNIX, SOCK_STREAM, 0, un));
    ADD(ep, fd, EPOLLIN, 1); ADD(ep, p[0], EPOLLIN, 2); ADD(ep, ev, EPOLLIN, 3); ADD(ep, tm, EPOLLIN, 4); ADD(ep, un[0], EPOLLIN | EPOLLOUT, 5); ADD(ep, p[1], EPOLLOUT, 6);
    look(ep, 16, 0);
    Q(write(p[1], "x", 1)); look(ep, 16, 0);
    Q(eventfd_write(ev, 3)); look(ep, 16, 0);
    struct itimerspec its = {.it_value = {0, 1}}; Q(timerfd_settime(tm, 0, &its, NULL)); wait_in(tm); look(ep, 16, 0);
    Q(write(un[1], "x", 1)); look(ep, 16, 0);
    step(); Q(send(fd, "x", 1, 0)); step(); wait_in(fd); look(ep, 16, 0);
    Q(read(p[0], buf, 1)); Q(recv(fd, buf, 1, 0)); close(un[1]); look(ep, 16, 0);
    DEL(ep, un[0]); DEL(ep, tm); DEL(ep, ev); DEL(ep, p[1]); look(ep, 16, 0);
    for (int i = 0; i < 4; i++) {
        step();
        if (server) { wait_peer_asleep(); Q(send(fd, "x", 1, 0)); step(); step(); }
        else { look(ep, 16, -1); Q(recv(fd, buf, 1, 0)); step(); Q(write(p[1], "y", 1)); look(ep, 16, -1); Q(read(p[0], buf, 1)); step(); }
    }
}
CASE(low_water_in_epoll) {
    int lt = make(), et = make();
    if (!server) { Q(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 100)); ADD(lt, fd, EPOLLIN, 1); ADD(et, fd, EPOLLIN | EPOLLET, 2); }
    step();
    if (server) { Q(set_int(fd, SOL_TCP, TCP_NODELAY, 1)); Q(send(fd, buf, 60, 0)); }
    step();
    if (!server) { need(fd, 60); look(lt, 8, 0); look(et, 8, 0); look(lt, 8, 30); }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, buf, 60, 0)); } else { look(lt, 8, 10000); look(et, 8, 0); C(recv(fd, buf, 30, 0)); look(lt, 8, 0); look(et, 8, 0); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1)); look(lt, 8, 0); }
    step();
}
/* `first` bytes come, then the client sets a mark of 100: with both ends warm they lie in the ring, and what follows does not. */
static void before_the_mark(int fd, int first) {
    warm_by(fd, warm_n);
    step();
    if (server) { Q(set_int(fd, SOL_TCP, TCP_NODELAY, 1)); Q(send(fd, buf, first, 0)); }
    step();
    if (!server) need(fd, first);
}
static void more(int fd, int n, int then) {
    step();
    if (server) Q(send(fd, buf, n, 0));
    step();
    if (!server) need(fd, then);
}
static void clear(int fd) { if (!server) { C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1)); C(recv(fd, buf, 2000, MSG_DONTWAIT)); } step(); }
CASE(low_water_in_epoll_behind_unread) {
    int lt = make(), et = make();
    if (!server) { ADD(lt, fd, EPOLLIN, 1); ADD(et, fd, EPOLLIN | EPOLLET, 2); }
    for (int i = 0; i < 2; i++) {
        before_the_mark(fd, 60);
        if (!server) { look(lt, 8, 0); look(et, 8, 0); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 100)); look(lt, 8, 0); look(et, 8, 0); look(lt, 8, 30); }
        more(fd, 39, 99);
        if (!server) { look(lt, 8, 0); look(et, 8, 0); }
        more(fd, 21, 120);
        if (!server) { look(lt, 8, 0); look(et, 8, 0); look(et, 8, 0); C(recv(fd, buf, 10, 0)); look(lt, 8, 0); look(et, 8, 0); C(recv(fd, buf, 20, 0)); look(lt, 8, 0); look(et, 8, 0); }
        more(fd, 20, 110);
        if (!server) { look(lt, 8, 0); look(et, 8, 0); C(recv(fd, buf, 20, 0)); look(lt, 8, 0); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 90)); look(lt, 8, 0); look(et, 8, 0); look(et, 8, 0); }
        clear(fd);
        if (!server) { look(lt, 8, 0); look(et, 8, 0); }
    }
}
CASE(low_water_wakes_epoll_behind_unread) {
    int lt = make(), et = make(), once = make(), outer = make();
    if (!server) { ADD(lt, fd, EPOLLIN, 1); ADD(et, fd, EPOLLIN | EPOLLET, 2); ADD(once, fd, EPOLLIN | EPOLLONESHOT, 3); }
    int sets[] = {lt, et, once, outer};
    for (int i = 0; i < 4; i++) {
        before_the_mark(fd, 60);
        if (!server) { if (i == 3) ADD(outer, et, EPOLLIN, 4); for (int k = 0; k < 4; k++) look(sets[k], 8, 0); MOD(once, fd, EPOLLIN | EPOLLONESHOT, 3); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 100)); for (int k = 0; k < 3; k++) look(sets[k], 8, 0); }
        step();
        if (server) { wait_peer_asleep(); Q(send(fd, buf, 39, 0)); wait_peer_asleep(); Q(send(fd, buf, 1, 0)); } else { look(sets[i], 8, 10000); readable_bytes(fd); }
        step();
        if (!server) for (int k = 0; k < 3; k++) look(sets[k], 8, 0);
        clear(fd);
        if (!server) { for (int k = 0; k < 3; k++) look(sets[k], 8, 0); MOD(once, fd, EPOLLIN | EPOLLONESHOT, 3); }
    }
}
static long wait_in_set(void *ep) { struct epoll_event g; return epoll_wait(*(int *)ep, &g, 1, 10000) * 100 + g.data.u64; }
CASE(low_water_lowered_under_an_epoll) {
    int lt = make(), et = make();
    struct job a, b;
    if (!server) { ADD(lt, fd, EPOLLIN, 1); ADD(et, fd, EPOLLIN | EPOLLET, 2); }
    for (int i = 0; i < 3; i++) {
        before_the_mark(fd, 60);
        if (!server) {
            look(lt, 8, 0); look(et, 8, 0); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 100));
            job_start(&a, wait_in_set, &lt); job_start(&b, wait_in_set, &et);
            job_asleep(&a); job_asleep(&b);
            C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 61)); readable_bytes(fd); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, i == 2 ? 1 : 60));
            job_join(&a, "level"); job_join(&b, "edge"); look(lt, 8, 0); look(et, 8, 0);
        }
        step();
        clear(fd);
    }
}
CASE(data_arrives_before_add_and_after_del) {
    int ep = make();
    for (int i = 0; i < 6; i++) {
        GIVE(fd, "abc");
        if (!server) { Q(ctl(ep, EPOLL_CTL_ADD, fd, EPOLLIN | (i & 1 ? EPOLLET : 0), i)); look(ep, 8, -1); C(recv(fd, buf, 10, 0)); Q(ctl(ep, EPOLL_CTL_DEL, fd, 0, 0)); }
        GIVE(fd, "def");
        if (!server) { look(ep, 8, 0); C(recv(fd, buf, 10, 0)); }
        step();
    }
}
CASE(waiting_without_the_ready_one) {
    /* Sleeping in a set of other descriptors must not hinder a socket outside it. */
    int ep = make(), c = another();
    warm(c);
    if (!server) ADD(ep, c, EPOLLIN, 1);
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "outside", 7, 0)); Q(send(c, "inside", 6, 0)); }
    else { look(ep, 8, -1); need(fd, 7); C(recv(fd, buf, 10, MSG_DONTWAIT)); C(recv(c, buf, 10, MSG_DONTWAIT)); }
    step();
}
CASE(listener_in_epoll) {
    int ep = make(), c = -1;
    if (server) { ADD(ep, listener, EPOLLIN | EPOLLEXCLUSIVE, 1); ADD(ep, fd, EPOLLIN, 2); look(ep, 8, 0); }
    step();
    if (!server) { wait_peer_asleep(); c = another(); } else { look(ep, 8, -1); c = another(); look(ep, 8, 0); ADD(ep, c, EPOLLIN | EPOLLRDHUP, 3); }
    warm(c);
    step();
    if (!server) Q(send(c, "new", 3, 0)); 
    step();
    if (server) { wait_in(c); look(ep, 8, 0); Q(recv(c, buf, 3, 0)); }
    step();
    if (!server) { wait_peer_asleep(); Q(send(fd, "old", 3, 0)); } else { look(ep, 8, -1); }
    step();
}
CASE(echo_server_by_epoll) {
    /* Level and edge triggered echo of many small messages over several connections. */
    enum { N = 6, M = 60 };
    int ep = make(), c[N];
    for (int i = 0; i < N; i++) { c[i] = another(); warm(c[i]); }
    if (server) {
        int open_ = N;
        for (int i = 0; i < N; i++) { nonblock(c[i], 1); Q(ctl(ep, EPOLL_CTL_ADD, c[i], EPOLLIN | (i & 1 ? EPOLLET : 0), i)); }
        long bytes = 0;
        while (open_) {
            struct epoll_event g[4];
            int n = epoll_wait(ep, g, 4, 10000);
            if (n <= 0) { C(n); break; }
            for (int i = 0; i < n; i++) {
                int f = c[g[i].data.u32];
                for (;;) { long r = read(f, buf, 1000); if (r > 0) { bytes += r; write_full(f, buf, r); } if (r == 0) { Q(ctl(ep, EPOLL_CTL_DEL, f, 0, 0)); close(f); open_--; } if (r <= 0 || !(g[i].data.u32 & 1)) break; }
            }
        }
        C(bytes);
    } else {
        long bytes = 0;
        for (int m = 0; m < M; m++) for (int i = 0; i < N; i++) {
            int n = 1 + (m * 37 + i * 11) % 900;
            char b[1000], d[1000];
            fill(b, n, m * N + i); write_full(c[i], b, n); bytes += n;
            if (read_full(c[i], d, n) != n || memcmp(b, d, n)) { out("message %d on %d differs", m, i); return; }
        }
        for (int i = 0; i < N; i++) { shutdown(c[i], SHUT_WR); if (recv(c[i], buf, 1, 0)) out("no EOF"); }
        C(bytes);
    }
}
CASE(quiet_member_beside_a_busy_one) {
    /* A loop that always finds something looks at a quiet member thousands of times, and then must still hear of it. */
    int ep = make(), c = another(), seen = 0;
    struct epoll_event g[4];
    warm(c);
    if (!server) { ADD(ep, fd, EPOLLIN, 1); ADD(ep, c, EPOLLOUT, 2); }
    for (int i = 0; i < 200; i++) {
        if (server) { read_full(fd, buf, 4); write_full(fd, buf, 4); continue; }
        write_full(fd, "ping", 4);
        Q(ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT, 1));
        Q(ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN, 1));
        read_full(fd, buf, 4);
    }
    for (int i = 0; !server && i < 10000; i++) Q(epoll_wait(ep, g, 4, 0));
    step();
    if (server) Q(send(fd, "late", 4, 0));
    step();
    for (time_t end = time(NULL) + 5; !server && time(NULL) < end && !seen;) {
        int n = Q(epoll_wait(ep, g, 4, 0));
        while (n-- > 0) seen |= g[n].data.u64 == 1;
    }
    if (!server) { C(seen); C(recv(fd, buf, 10, MSG_DONTWAIT)); }
    step();
}

/* ---- members whose interest in writing comes and goes: the library may keep that to itself, and must not show it ---- */
/* Requests and answers with interest in writing turned on and off at the client; leaves its registration with `events`. */
static void toggling(int ep, int fd, unsigned events, uint64_t data) {
    for (int i = 0; i < 200; i++) {
        if (server) { read_full(fd, buf, 4); write_full(fd, buf, 4); continue; }
        write_full(fd, "ping", 4);
        Q(ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT, data));
        Q(ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN, data));
        read_full(fd, buf, 4);
    }
    if (!server) Q(ctl(ep, EPOLL_CTL_MOD, fd, events, data));
}
/* Looks, without waiting, until the member with that data was reported with one of these events; gives its whole mask. */
static unsigned look_until(int ep, uint64_t data, unsigned events) {
    struct epoll_event g[8];
    for (time_t end = time(NULL) + 5; time(NULL) < end;) {
        int n = Q(epoll_wait(ep, g, 8, 0));
        while (n-- > 0) if (g[n].data.u64 == data && g[n].events & events) return g[n].events;
    }
    return 0;
}
CASE(toggled_member_whose_peer_is_killed) {
    int ep = make();
    if (!server) ADD(ep, fd, EPOLLIN, 1);
    toggling(ep, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP, 1);
    step();
    if (server) raise(SIGKILL);
    /* Not until EPOLLIN: tcp_poll takes no lock, and may see the FIN's sequence number before the end that it means. */
    out("%s", mask(look_until(ep, 1, EPOLLRDHUP)));
    C(recv(fd, buf, 10, 0));
}
CASE(toggled_quiet_member_whose_peer_is_killed) {
    int ep = make(), at = Q(eventfd(0, EFD_CLOEXEC));
    if (!server) { ADD(ep, fd, EPOLLIN, 1); ADD(ep, at, EPOLLOUT, 2); }
    toggling(ep, fd, EPOLLIN, 1);
    step();
    if (server) raise(SIGKILL);
    out("%s", mask(look_until(ep, 1, EPOLLIN)));
    C(recv(fd, buf, 10, 0));
}
CASE(toggled_member_in_a_duplicated_set) {
    int ep = make();
    if (!server) ADD(ep, fd, EPOLLIN, 1);
    toggling(ep, fd, EPOLLIN, 1);
    if (!server) { int copy = Q(dup(ep)); close(ep); ep = copy; }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); }
    else { look(ep, 8, 3000); C(recv(fd, buf, 10, 0)); MOD(ep, fd, EPOLLOUT, 5); look(ep, 8, 0); DEL(ep, fd); look(ep, 8, 0); }
    step();
}
CASE(toggled_member_in_a_moved_set) {
    int ep = make();
    if (!server) ADD(ep, fd, EPOLLIN, 1);
    toggling(ep, fd, EPOLLIN, 1);
    if (!server) { int moved = Q(fcntl(ep, F_DUPFD_CLOEXEC, 60)); close(ep); T(make() == ep); ep = moved; }
    toggling(ep, fd, EPOLLIN, 7);
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); }
    else { look(ep, 8, 3000); C(recv(fd, buf, 10, 0)); }
    step();
}
CASE(toggled_member_duplicated_and_closed) {
    int ep = make(), copy = -1;
    if (!server) ADD(ep, fd, EPOLLIN, 1);
    toggling(ep, fd, EPOLLIN, 1);
    if (!server) { copy = Q(dup(fd)); close(fd); fd = copy; }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); }
    else { look(ep, 8, 3000); C(recv(fd, buf, 10, 0)); look(ep, 8, 0); ADD(ep, fd, EPOLLIN, 2); }
    GIVE(fd, "def");
    if (!server) look(ep, 8, 0);
    step();
}
CASE(deleted_member_with_the_data_of_another) {
    int ep = make(), p[2], at = Q(eventfd(0, EFD_CLOEXEC));
    Q(pipe2(p, O_CLOEXEC));
    if (!server) { ADD(ep, fd, EPOLLIN, 7); ADD(ep, at, EPOLLOUT, 2); }
    toggling(ep, fd, EPOLLIN, 7);
    if (!server) { DEL(ep, fd); ADD(ep, p[0], EPOLLIN | EPOLLET, 7); Q(write(p[1], "x", 1)); out("%s", mask(look_until(ep, 7, EPOLLIN))); }
    step();
    if (!server) { ADD(ep, fd, EPOLLIN, 3); }
    GIVE(fd, "def");
    if (!server) out("%s", mask(look_until(ep, 3, EPOLLIN)));
    step();
}
CASE(deleted_member_and_disconnect) {
    int ep = make();
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    if (!server) ADD(ep, fd, EPOLLIN, 7);
    toggling(ep, fd, EPOLLIN, 7);
    step();
    if (!server) { DEL(ep, fd); C(connect(fd, &none, sizeof none)); MOD(ep, fd, EPOLLIN, 8); ADD(ep, fd, EPOLLIN, 9); look(ep, 8, 0); }
    step();
}
CASE(deleted_member_whose_peer_resets) {
    int ep = make(), at = Q(eventfd(0, EFD_CLOEXEC));
    if (!server) { ADD(ep, fd, EPOLLIN, 7); }
    toggling(ep, fd, EPOLLIN, 7);
    if (!server) { DEL(ep, fd); MOD(ep, fd, EPOLLIN, 1); DEL(ep, fd); }
    step();
    if (server) { Q(setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger))); close(fd); }
    step();
    if (!server) { wait_ev(fd, 0); look(ep, 8, 0); look(ep, 8, 30); ADD(ep, fd, EPOLLIN | EPOLLRDHUP, 8); look(ep, 8, -1); }
    step();
}
CASE(toggled_member_whose_peer_ends) {
    for (int how = 0; how < 4; how++) {
        int ep = make(), c = another();
        unsigned wanted = how % 2 ? EPOLLIN | EPOLLRDHUP : EPOLLIN | EPOLLOUT | EPOLLRDHUP;
        warm(c);
        if (!server) ADD(ep, c, EPOLLIN, how);
        toggling(ep, c, wanted, how);
        step();
        if (server && how < 2) Q(shutdown(c, SHUT_WR));
        if (server && how > 1) { Q(setsockopt(c, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger))); close(c); }
        step();
        if (!server) { wait_ev(c, how < 2 ? POLLRDHUP : 0); out("%s", mask(look_until(ep, how, EPOLLRDHUP))); look(ep, 8, 0); C(recv(c, buf, 10, 0)); close(c); close(ep); }
        step();
    }
}
CASE(toggled_member_that_is_shut_down_here) {
    for (int how = 0; how < 3; how++) {
        int ep = make(), c = another();
        warm(c);
        if (!server) ADD(ep, c, EPOLLIN, how);
        toggling(ep, c, EPOLLIN | EPOLLRDHUP, how);
        step();
        if (!server) { C(shutdown(c, how)); look(ep, 8, 0); look(ep, 8, 0); MOD(ep, c, EPOLLIN | EPOLLOUT | EPOLLRDHUP, how); look(ep, 8, 0); }
        step();
        if (server) Q(send(c, "abc", 3, MSG_NOSIGNAL));
        step();
        if (!server && how == 1) { wait_in(c); look(ep, 8, 0); C(recv(c, buf, 10, 0)); look(ep, 8, 0); }
        step();
        close(c);
        step();
    }
}
CASE(toggled_member_in_two_sets) {
    int a = make(), b = make();
    if (!server) { ADD(a, fd, EPOLLIN, 1); ADD(b, fd, EPOLLIN, 2); }
    toggling(a, fd, EPOLLIN, 1);
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); } else { look(b, 8, 3000); look(a, 8, 0); C(recv(fd, buf, 10, 0)); }
    step();
    toggling(a, fd, EPOLLIN, 1);
    if (!server) DEL(a, fd);
    GIVE(fd, "def");
    if (!server) { look(a, 8, 0); look(b, 8, 0); ADD(a, fd, EPOLLIN, 3); look(a, 8, 0); C(recv(fd, buf, 10, 0)); }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "ghi", 3, 0)); } else { look(a, 8, 3000); look(b, 8, 0); }
    step();
}
CASE(nested_after_the_bytes_came) {
    int in = make(), outer = make();
    if (!server) ADD(in, fd, EPOLLIN, 1);
    toggling(in, fd, EPOLLIN, 1);
    GIVE(fd, "abc");
    if (!server) { ADD(outer, in, EPOLLIN, 3); look(outer, 8, 0); look(outer, 8, 3000); look(in, 8, 0); C(recv(fd, buf, 10, 0)); look(in, 8, 0); look(outer, 8, 0); }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "def", 3, 0)); } else { look(outer, 8, 3000); look(in, 8, 0); }
    step();
}
CASE(one_shots_with_the_same_data) {
    int ep = make(), c = another();
    warm(c);
    if (!server) { ADD(ep, fd, EPOLLIN | EPOLLONESHOT, 1); ADD(ep, c, EPOLLIN | EPOLLONESHOT, 1); }
    GIVE(c, "abc");
    if (!server) { look(ep, 8, 3000); C(recv(c, buf, 10, 0)); }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); } else { look(ep, 8, 3000); C(recv(fd, buf, 10, 0)); look(ep, 8, 0); }
    GIVE(c, "def");
    if (!server) look(ep, 8, 30);
    step();
}
CASE(looking_again_and_again_with_timeouts) {
    int ep = make();
    if (!server) ADD(ep, fd, EPOLLIN, 1);
    toggling(ep, fd, EPOLLIN, 1);
    for (int timeout = 0; timeout < 3; timeout++) {
        struct epoll_event g[4];
        if (!server) for (int i = 0; i < (timeout ? 50 : 6000); i++) Q(epoll_wait(ep, g, 4, timeout));
        step();
        if (server) Q(send(fd, "abc", 3, 0));
        if (!server) { out("%s", mask(look_until(ep, 1, EPOLLIN))); C(recv(fd, buf, 10, 0)); }
        step();
    }
}
