/* poll(2), ppoll(2), select(2), pselect(2): every state a connection can be in, many descriptors, time-outs, bad arguments. */
#include "harness.h"

static char buf[1 << 20];
int __poll_chk(struct pollfd *, nfds_t, int, size_t);
int __ppoll_chk(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);

CASE(idle) { state(fd); poll_mask(fd, POLLIN, 30); poll_mask(fd, POLLOUT, -1); poll_mask(fd, POLLIN | POLLOUT, -1); poll_mask(fd, 0, 30); step(); state(fd); }
CASE(with_data) {
    if (server) Q(send(fd, "abc", 3, 0));
    step();
    if (!server) { wait_in(fd); state(fd); poll_mask(fd, POLLIN, -1); poll_mask(fd, POLLIN | POLLOUT, 0); poll_mask(fd, POLLRDNORM, 0); poll_mask(fd, POLLRDHUP, 0); poll_mask(fd, POLLPRI, 0); C(recv(fd, buf, 2, 0)); state(fd); C(recv(fd, buf, 2, 0)); state(fd); }
    step();
    if (server) state(fd);
}
CASE(data_then_fin) {
    if (server) { Q(send(fd, "abc", 3, 0)); C(shutdown(fd, SHUT_WR)); state(fd); }
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); state(fd); C(recv(fd, buf, 10, 0)); state(fd); C(recv(fd, buf, 10, 0)); state(fd); poll_mask(fd, POLLIN, 0); poll_mask(fd, POLLRDHUP, -1); C(shutdown(fd, SHUT_WR)); wait_ev(fd, POLLHUP); state(fd); }
    step();
    if (server) { wait_ev(fd, 0); state(fd); C(recv(fd, buf, 10, 0)); state(fd); }
}
CASE(poll_wakes_for_data) {
    for (int i = 0; i < 4; i++) {
        if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); step(); }
        else { poll_mask(fd, i & 1 ? POLLIN : POLLIN | POLLRDHUP | POLLPRI, i & 2 ? -1 : 5000); C(recv(fd, buf, 10, 0)); poll_mask(fd, POLLIN, 0); step(); }
    }
}
CASE(poll_wakes_for_fin) {
    if (server) { wait_peer_asleep(); C(shutdown(fd, SHUT_WR)); step(); }
    else { poll_mask(fd, POLLRDHUP, 5000); state(fd); step(); }
}
CASE(poll_wakes_for_close) {
    if (server) { wait_peer_asleep(); C(close(fd)); step(); }
    else { poll_mask(fd, POLLIN, -1); state(fd); C(recv(fd, buf, 10, 0)); step(); }
}
CASE(poll_wakes_for_room) {
    long n = 0, r;
    if (server) { nonblock(fd, 1); n = fill_up(fd); tell(n); poll_mask(fd, POLLOUT, 0); poll_mask(fd, POLLOUT | POLLIN, 10000); C(write(fd, "x", 1)); step(); }
    else { n = hear(); wait_peer_asleep(); char *all = malloc(n); T(read_full(fd, all, n) == n); C(recv(fd, buf, 1, MSG_WAITALL)); step(); }
}
CASE(poll_timeouts) {
    if (!server) {
        struct pollfd p = {fd, POLLIN, 7};
        long t = now_ms(); C(poll(&p, 1, 100)); took(t, 100); C(p.revents);
        t = now_ms(); C(poll(NULL, 0, 60)); took(t, 60);
        t = now_ms(); C(poll(&p, 1, 0)); took(t, 0);
        p.events = POLLOUT; t = now_ms(); C(poll(&p, 1, 10000)); took(t, 0);
        struct timespec ts = {0, 80000000}; p.events = POLLIN; t = now_ms(); C(ppoll(&p, 1, &ts, NULL)); took(t, 80); out("%ld %ld", (long)ts.tv_sec, ts.tv_nsec);
        ts.tv_nsec = 1; C(ppoll(&p, 1, &ts, NULL)); ts.tv_nsec = 0; C(ppoll(&p, 1, &ts, NULL));
        ts.tv_nsec = -1; C(ppoll(&p, 1, &ts, NULL)); ts.tv_nsec = 1000000000; C(ppoll(&p, 1, &ts, NULL));
    }
    step();
}
CASE(poll_bad_arguments) {
    int gone = dup(fd); close(gone);
    struct pollfd p[3] = {{gone, POLLIN, 0}, {-1, POLLIN, 9}, {fd, POLLOUT, 0}};
    C(poll(p, 3, -1)); out("%s %s %s", mask(p[0].revents), mask(p[1].revents), mask(p[2].revents));
    C(poll(p + 1, 1, 0)); out("%s", mask(p[1].revents)); p[1].fd = ~fd; C(poll(p + 1, 1, 10)); out("%s", mask(p[1].revents));
    p[0].events = 0; C(poll(p, 1, -1)); out("%s", mask(p[0].revents));
    C(poll(NULL, 0, 0));
    step();
}
CASE(poll_wild_arguments) {
    struct rlimit rl;
    Q(getrlimit(RLIMIT_NOFILE, &rl));
    struct pollfd p[1] = {{fd, POLLOUT, 0}};
    C(poll((void *)-1, 1, 0)); C(poll(NULL, 1, 0)); C(poll((void *)-1, 0, 0)); C(poll(p, rl.rlim_cur + 1, 0));
    step();
}
CASE(poll_same_socket_several_times) {
    struct pollfd p[4] = {{fd, POLLIN, 0}, {fd, POLLOUT, 0}, {fd, POLLIN | POLLOUT, 0}, {fd, 0, 0}};
    C(poll(p, 4, 0)); for (int i = 0; i < 4; i++) out("%s", mask(p[i].revents));
    step();
    if (server) Q(send(fd, "x", 1, 0));
    step();
    if (!server) { wait_in(fd); C(poll(p, 4, -1)); for (int i = 0; i < 4; i++) out("%s", mask(p[i].revents)); }
    step();
}
CASE(poll_many_connections) {
    enum { N = 12 };
    int c[N];
    struct pollfd p[N];
    for (int i = 0; i < N; i++) { c[i] = another(); warm(c[i]); }
    step();
    if (server) for (int i = 0; i < N; i += 3) Q(send(c[i], "data", 4, 0));
    if (server) { Q(shutdown(c[1], SHUT_WR)); close(c[2]); }
    step();
    if (!server) {
        for (int i = 0; i < N; i += 3) wait_in(c[i]);
        wait_ev(c[1], POLLRDHUP); wait_ev(c[2], POLLRDHUP);
        for (int k = 0; k < 2; k++) {
            for (int i = 0; i < N; i++) p[i] = (struct pollfd){c[i], POLLIN | POLLRDHUP | (k ? POLLOUT : 0), 0};
            C(poll(p, N, -1)); for (int i = 0; i < N; i++) if (p[i].revents) out("%d: %s", i, mask(p[i].revents));
        }
        for (int i = 0; i < N; i += 3) Q(recv(c[i], buf, 10, 0));
        C(poll(p, N, 0)); for (int i = 0; i < N; i++) if (p[i].revents) out("%d: %s", i, mask(p[i].revents));
    }
    step();
    /* Blocked on all, woken by each in turn. */
    for (int i = N - 1; i > 2; i--) {
        if (server) { wait_peer_asleep(); Q(send(c[i], "w", 1, 0)); }
        else { for (int k = 0; k < N; k++) p[k] = (struct pollfd){k < 3 ? -1 : c[k], POLLIN, 0}; int r = poll(p, N, 10000), who = -1; for (int k = 0; k < N; k++) if (p[k].revents) who = k; out("poll = %d, %d", r, who); Q(recv(c[i], buf, 10, 0)); }
        step();
    }
}
static void usr1_soon(void) { wait_peer_asleep(); kill(peer_pid, SIGUSR1); }
CASE(ppoll_signal_mask) {
    if (server) { usr1_soon(); step(); usr1_soon(); step(); step(); Q(send(fd, "x", 1, 0)); step(); return; }
    sigset_t block, none, old;
    struct timespec ts = {5, 0};
    struct pollfd p = {fd, POLLIN, 0};
    handle(SIGUSR1, SA_RESTART);
    sigemptyset(&none); sigemptyset(&block); sigaddset(&block, SIGUSR1);
    C(ppoll(&p, 1, &ts, &none)); C(usr1s); step();
    Q(sigprocmask(SIG_BLOCK, &block, NULL));
    C(ppoll(&p, 1, NULL, &none)); C(usr1s); Q(sigprocmask(SIG_BLOCK, NULL, &old)); C(sigismember(&old, SIGUSR1)); step();
    kill(getpid(), SIGUSR1); C(usr1s);
    ts = (struct timespec){0, 0}; C(ppoll(&p, 1, &ts, &none)); C(usr1s);
    step(); step();
    wait_in(fd);
    kill(getpid(), SIGUSR1); /* pending and data there: data is reported, the signal stays or comes */
    C(ppoll(&p, 1, &ts, NULL)); C(usr1s); C(ppoll(&p, 1, &ts, &none) == 1 || errno == EINTR); 
}
CASE(poll_interrupted) {
    if (server) { usr1_soon(); step(); usr1_soon(); step(); return; }
    handle(SIGUSR1, 0); poll_mask(fd, POLLIN, 10000); C(usr1s); step();
    handle(SIGUSR1, SA_RESTART); poll_mask(fd, POLLIN, -1); C(usr1s); step();
}
CASE(select_basic) {
    fd_set r, w, e;
    struct timeval tv;
#define SETS() FD_ZERO(&r); FD_ZERO(&w); FD_ZERO(&e); FD_SET(fd, &r); FD_SET(fd, &w); FD_SET(fd, &e); tv = (struct timeval){0, 0}
#define BITS() out("  %d%d%d", !!FD_ISSET(fd, &r), !!FD_ISSET(fd, &w), !!FD_ISSET(fd, &e))
    SETS(); C(select(fd + 1, &r, &w, &e, &tv)); BITS();
    SETS(); C(select(fd + 1, &r, NULL, NULL, &tv)); BITS();
    SETS(); C(select(fd + 1, NULL, &w, NULL, NULL)); BITS();
    SETS(); C(select(fd, &r, &w, &e, &tv)); BITS();
    SETS(); C(select(0, &r, &w, &e, &tv)); BITS();
    step();
    if (server) Q(send(fd, "abc", 3, 0));
    step();
    if (!server) { wait_in(fd); SETS(); C(select(fd + 1, &r, &w, &e, NULL)); BITS(); SETS(); C(select(fd + 1, &r, NULL, NULL, NULL)); BITS(); C(recv(fd, buf, 10, 0)); SETS(); C(select(fd + 1, &r, NULL, NULL, &tv)); BITS(); }
    step();
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); SETS(); C(select(fd + 1, &r, &w, &e, &tv)); BITS(); }
    step();
}
CASE(select_times) {
    fd_set r;
    if (!server) {
        struct timeval tv = {0, 100000};
        FD_ZERO(&r); FD_SET(fd, &r);
        long t = now_ms(); C(select(fd + 1, &r, NULL, NULL, &tv)); took(t, 100); out("left %ld.%06ld, bit %d", (long)tv.tv_sec, (long)tv.tv_usec, !!FD_ISSET(fd, &r));
        tv = (struct timeval){0, 50000}; t = now_ms(); C(select(0, NULL, NULL, NULL, &tv)); took(t, 50);
        tv = (struct timeval){-1, 0}; C(select(fd + 1, &r, NULL, NULL, &tv)); tv = (struct timeval){0, -1}; C(select(fd + 1, &r, NULL, NULL, &tv)); tv = (struct timeval){0, 1500000}; FD_ZERO(&r); FD_SET(fd, &r); 
        fd_set w; FD_ZERO(&w); FD_SET(fd, &w); C(select(fd + 1, &r, &w, NULL, &tv)); T(tv.tv_sec == 1 || tv.tv_usec > 400000);
        struct timespec ts = {0, 90000000}; FD_ZERO(&r); FD_SET(fd, &r); t = now_ms(); C(pselect(fd + 1, &r, NULL, NULL, &ts, NULL)); took(t, 90); out("%ld", ts.tv_nsec);
        ts.tv_nsec = 1000000000; C(pselect(fd + 1, &r, NULL, NULL, &ts, NULL));
    }
    step();
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "x", 1, 0)); }
    else { struct timeval tv = {9, 0}; FD_ZERO(&r); FD_SET(fd, &r); C(select(fd + 1, &r, NULL, NULL, &tv)); T(tv.tv_sec < 9); C(recv(fd, buf, 1, 0)); }
    step();
}
CASE(select_bad_arguments) {
    fd_set r;
    struct timeval tv = {0, 0};
    int gone = dup(fd); close(gone);
    FD_ZERO(&r); FD_SET(fd, &r);
    C(select(-1, &r, NULL, NULL, &tv));
    FD_SET(gone, &r); C(select(gone + 1, &r, NULL, NULL, &tv)); out("bits %d %d", !!FD_ISSET(fd, &r), !!FD_ISSET(gone, &r)); C(select(gone, &r, NULL, NULL, &tv));
    C(select(0, NULL, NULL, NULL, &tv)); C(select(fd + 1, NULL, NULL, NULL, &tv));
    step();
}
CASE(select_wild_arguments) {
    struct timeval tv = {0, 0};
    C(select(fd + 1, (void *)-1, NULL, NULL, &tv)); C(select(fd + 1, NULL, (void *)-1, NULL, &tv));
    step();
}
CASE(select_many) {
    enum { N = 8 };
    int c[N], max = 0, p[2];
    fd_set r, w;
    struct timeval tv = {0, 0};
    Q(pipe(p));
    for (int i = 0; i < N; i++) { c[i] = another(); warm(c[i]); if (c[i] > max) max = c[i]; }
    step();
    if (server) { Q(send(c[1], "data", 4, 0)); Q(send(c[5], "data", 4, 0)); Q(shutdown(c[6], SHUT_WR)); }
    step();
    if (!server) {
        wait_in(c[1]); wait_in(c[5]); wait_ev(c[6], POLLRDHUP);
        FD_ZERO(&r); FD_ZERO(&w);
        for (int i = 0; i < N; i++) { FD_SET(c[i], &r); if (i & 1) FD_SET(c[i], &w); }
        FD_SET(p[0], &r); FD_SET(p[1], &w);
        C(select(max + 1, &r, &w, NULL, &tv)); for (int i = 0; i < N; i++) out("%d: %d%d", i, !!FD_ISSET(c[i], &r), !!FD_ISSET(c[i], &w)); out("pipe %d%d", !!FD_ISSET(p[0], &r), !!FD_ISSET(p[1], &w));
        Q(write(p[1], "x", 1)); FD_ZERO(&r); FD_SET(p[0], &r); FD_SET(c[1], &r); FD_SET(c[0], &r); C(select(max + 1, &r, NULL, NULL, NULL)); out("%d %d %d", !!FD_ISSET(p[0], &r), !!FD_ISSET(c[0], &r), !!FD_ISSET(c[1], &r));
    }
    step();
    for (int i = 0; i < N; i++) {
        if (i == 1 || i == 5 || i == 6) continue;
        if (server) { wait_peer_asleep(); Q(send(c[i], "w", 1, 0)); }
        else { FD_ZERO(&r); for (int k = 0; k < N; k++) if (k != 1 && k != 5 && k != 6) FD_SET(c[k], &r); int n = select(max + 1, &r, NULL, NULL, NULL), who = -1; for (int k = 0; k < N; k++) if (FD_ISSET(c[k], &r)) who = k; out("select = %d, %d", n, who); Q(recv(c[i], buf, 10, 0)); }
        step();
    }
}
CASE(select_interrupted) {
    if (server) { usr1_soon(); step(); usr1_soon(); step(); return; }
    fd_set r, r0;
    sigset_t block, none;
    struct timeval tv = {10, 0};
    FD_ZERO(&r); FD_SET(fd, &r); r0 = r;
    handle(SIGUSR1, SA_RESTART); C(select(fd + 1, &r, NULL, NULL, &tv)); C(usr1s); C(memcmp(&r, &r0, sizeof r)); step();
    sigemptyset(&none); sigemptyset(&block); sigaddset(&block, SIGUSR1); Q(sigprocmask(SIG_BLOCK, &block, NULL));
    r = r0; C(pselect(fd + 1, &r, NULL, NULL, NULL, &none)); C(usr1s); step();
}
CASE(low_water_in_poll) {
    if (!server) { C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 100)); state(fd); }
    step();
    if (server) { Q(set_int(fd, SOL_TCP, TCP_NODELAY, 1)); Q(send(fd, buf, 99, 0)); }
    step();
    if (!server) { need(fd, 99); state(fd); poll_mask(fd, POLLIN, 30); }
    step();
    if (server) Q(send(fd, buf, 1, 0));
    step();
    if (!server) { need(fd, 100); state(fd); C(recv(fd, buf, 1, 0)); state(fd); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1)); state(fd); C(recv(fd, buf, 200, 0)); state(fd); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 100)); }
    step();
    if (server) { wait_peer_asleep(); for (int i = 0; i < 4; i++) Q(send(fd, buf, 50, 0)); }
    else { poll_mask(fd, POLLIN, 10000); need(fd, 200); C(recv(fd, buf, 150, 0)); state(fd); }
    step();
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); state(fd); C(recv(fd, buf, 100, 0)); }
}
/* `first` bytes come, then the client sets a mark of 100: with both ends warm they lie in the ring, and what follows does not. */
static void before_the_mark(int fd, int first) {
    warm_by(fd, warm_n);
    step();
    if (server) { Q(set_int(fd, SOL_TCP, TCP_NODELAY, 1)); Q(send(fd, buf, first, 0)); }
    step();
    if (!server) { need(fd, first); state(fd); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 100)); state(fd); }
    step();
}
static void after_the_mark(int fd, int left) {
    step();
    if (!server) { need(fd, left); state(fd); C(get_int(fd, SOL_SOCKET, SO_RCVLOWAT)); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1)); state(fd); C(recv(fd, buf, 2000, MSG_DONTWAIT)); state(fd); }
    step();
}
CASE(low_water_in_poll_behind_unread) {
    static const int first[] = {60, 1, 99, 100, 300};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        before_the_mark(fd, first[i]);
        if (!server) poll_mask(fd, POLLIN, 30);
        step();
        if (server) Q(send(fd, buf, 39, 0));
        step();
        if (!server) { need(fd, first[i] + 39); state(fd); readable_bytes(fd); C(recv(fd, buf, 1, 0)); state(fd); C(recv(fd, buf, 500, MSG_PEEK | MSG_DONTWAIT)); state(fd); }
        after_the_mark(fd, first[i] + 38);
    }
}
CASE(low_water_wakes_poll_behind_unread) {
    for (int i = 0; i < 4; i++) {
        fd_set r;
        before_the_mark(fd, 60);
        if (server) { wait_peer_asleep(); Q(send(fd, buf, 39, 0)); wait_peer_asleep(); Q(send(fd, buf, 1, 0)); }
        else if (i % 2) { FD_ZERO(&r); FD_SET(fd, &r); C(select(fd + 1, &r, NULL, NULL, NULL)); readable_bytes(fd); }
        else { poll_mask(fd, POLLIN, 10000); readable_bytes(fd); }
        after_the_mark(fd, 100);
    }
    before_the_mark(fd, 60);
    if (server) { wait_peer_asleep(); Q(shutdown(fd, SHUT_WR)); } else poll_mask(fd, POLLIN, 10000);
    after_the_mark(fd, 60);
}
static long poll_in(void *fd) { struct pollfd p = {*(int *)fd, POLLIN, 0}; return poll(&p, 1, 10000) * 100 + p.revents; }
static long select_in(void *fd) { fd_set r; FD_ZERO(&r); FD_SET(*(int *)fd, &r); return select(*(int *)fd + 1, &r, NULL, NULL, NULL); }
CASE(low_water_lowered_under_a_sleeper) {
    struct job a, b;
    for (int i = 0; i < 3; i++) {
        before_the_mark(fd, 60);
        if (i == 1) { if (server) Q(send(fd, buf, 20, 0)); step(); if (!server) need(fd, 80); }
        if (!server) {
            job_start(&a, poll_in, &fd); job_start(&b, select_in, &fd);
            job_asleep(&a); job_asleep(&b);
            C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 90)); readable_bytes(fd); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, i == 1 ? 70 : 60 - 59 * (i == 2)));
            job_join(&a, "poll"); job_join(&b, "select");
        }
        after_the_mark(fd, i == 1 ? 80 : 60);
    }
}
CASE(low_water_with_a_reader_beside) {
    struct job a;
    before_the_mark(fd, 60);
    if (!server) { job_start(&a, poll_in, &fd); job_asleep(&a); C(recv(fd, buf, 30, 0)); C(get_int(fd, SOL_SOCKET, SO_RCVLOWAT)); tell(1); }
    else { hear(); Q(send(fd, buf, 69, 0)); }
    step();
    if (!server) { need(fd, 99); state(fd); job_asleep(&a); }
    step();
    if (server) Q(send(fd, buf, 1, 0));
    if (!server) { job_join(&a, "poll"); readable_bytes(fd); }
    after_the_mark(fd, 100);
}
CASE_RAW(low_water_of_the_listener) {
    int l = -1, c;
    if (server) { l = listen_at(AF_INET, "127.0.0.1", 0, 4); Q(set_int(l, SOL_SOCKET, SO_RCVLOWAT, 100)); }
    c = pair_via(l, AF_INET, "127.0.0.1");
    for (int i = 0; i < warm_n; i++) {
        if (server) { Q(recv(c, buf, 100, MSG_WAITALL)); Q(send(c, buf, 100, 0)); } else { Q(send(c, buf, 100, 0)); Q(recv(c, buf, 100, MSG_WAITALL)); }
    }
    step();
    if (!server) Q(send(c, buf, 60, 0));
    step();
    if (server) { need(c, 60); C(get_int(c, SOL_SOCKET, SO_RCVLOWAT)); state(c); poll_mask(c, POLLIN, 30); }
    step();
    if (!server) Q(send(c, buf, 40, 0));
    step();
    if (server) { need(c, 100); state(c); C(recv(c, buf, 200, 0)); state(c); }
    step();
}
CASE(fortified_poll) {
    struct pollfd p[2] = {{fd, POLLIN | POLLOUT, 0}, {fd, POLLIN, 0}};
    struct timespec ts = {0, 0};
    C(__poll_chk(p, 2, 0, sizeof p)); out("%s %s", mask(p[0].revents), mask(p[1].revents)); C(__ppoll_chk(p, 2, &ts, NULL, sizeof p)); out("%s %s", mask(p[0].revents), mask(p[1].revents));
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "abc", 3, 0)); } else { C(__poll_chk(p + 1, 1, 5000, sizeof *p)); out("%s", mask(p[1].revents)); C(recv(fd, buf, 10, 0)); }
    step();
}
CASE(mixed_descriptors) {
    int pipes_[2], ev = eventfd(0, EFD_NONBLOCK), tm = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), un[2], file = open("/dev/null", O_RDWR), ep = epoll_create1(0);
    Q(pipe(pipes_)); Q(socketpair(AF_UNIX, SOCK_STREAM, 0, un));
    struct epoll_event ee = {.events = EPOLLIN};
    Q(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ee));
    struct pollfd p[] = {{fd, POLLIN, 0}, {pipes_[0], POLLIN, 0}, {ev, POLLIN, 0}, {tm, POLLIN, 0}, {un[0], POLLIN | POLLOUT, 0}, {file, POLLIN | POLLOUT, 0}, {ep, POLLIN, 0}, {server ? listener : -1, POLLIN, 0}};
#define LOOK() do { C(poll(p, 8, 0)); for (int i_ = 0; i_ < 8; i_++) if (p[i_].revents) out("  %d: %s", i_, mask(p[i_].revents)); } while (0)
    LOOK();
    Q(write(pipes_[1], "x", 1)); LOOK();
    Q(eventfd_write(ev, 1)); LOOK();
    struct itimerspec its = {.it_value = {0, 1}}; Q(timerfd_settime(tm, 0, &its, NULL)); wait_in(tm); LOOK();
    Q(write(un[1], "x", 1)); LOOK();
    step();
    Q(send(fd, "x", 1, 0));
    step();
    wait_in(fd); LOOK();
    Q(recv(fd, buf, 1, 0)); Q(read(pipes_[0], buf, 1)); LOOK();
    close(pipes_[1]); LOOK();
    step();
    int c = server ? -1 : another();
    step();
    if (server) { wait_in(listener); LOOK(); c = another(); LOOK(); }
    close(c);
    /* Blocked on the lot. */
    step();
    p[2].fd = p[3].fd = p[4].fd = p[5].fd = p[1].fd = -1;
    if (server) { wait_peer_asleep(); Q(send(fd, "x", 1, 0)); } else { C(poll(p, 8, 10000)); out("%s %s", mask(p[0].revents), mask(p[6].revents)); }
    step();
}
CASE(alternating_wait_calls) {
    /* One message for each way to wait. */
    for (int i = 0; i < 20; i++) {
        if (server) { if (i % 2) wait_peer_asleep(); snprintf(buf, 10, "m%02d", i); Q(send(fd, buf, 3, 0)); }
        else {
            struct pollfd p = {fd, POLLIN, 0}; fd_set r; FD_ZERO(&r); FD_SET(fd, &r);
            struct epoll_event e = {.events = EPOLLIN}, g; int ep;
            switch (i % 5) {
                case 0: C(poll(&p, 1, -1)); break;
                case 1: C(select(fd + 1, &r, NULL, NULL, NULL)); break;
                case 2: C(ppoll(&p, 1, NULL, NULL)); break;
                case 3: C(pselect(fd + 1, &r, NULL, NULL, NULL, NULL)); break;
                case 4: ep = epoll_create1(0); Q(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)); C(epoll_wait(ep, &g, 1, -1)); close(ep); break;
            }
            C(recv(fd, buf, 10, 0)); SHOW(buf, 3);
        }
        step();
    }
}
CASE_RAW(unconnected_sockets) {
    int s = socket(AF_INET, SOCK_STREAM, 0), l = listen_at(AF_INET, "127.0.0.1", 0, 4), d = socket(AF_INET, SOCK_DGRAM, 0);
    state(s); state(l); state(d);
    int c = pair_via(l, AF_INET, "127.0.0.1"), more = -1;
    warm(c); state(c); state(l);
    step();
    if (server) tell(port_of(l)); else more = connect_to(AF_INET, "127.0.0.1", hear());
    step();
    if (server) { wait_in(l); state(l); }
    step();
}
