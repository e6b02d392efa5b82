/* Several threads on one connection: blocked readers, writers at once, shutdown and close under a blocked call, cancellation. */
#include "harness.h"

static char buf[1 << 20];
static int the_fd;
static long blocked_recv(void *p) { return recv(the_fd, p ? p : buf, 10, 0); }
static long blocked_poll(void *p) { struct pollfd q = {the_fd, POLLIN, 0}; long r = poll(&q, 1, 10000); return r * 1000 + q.revents; }
static long blocked_send(void *p) { static char b[1 << 20]; long r; while ((r = send(the_fd, b, sizeof b, MSG_NOSIGNAL)) > 0) {} return r; }

CASE(one_reads_another_writes) {
    struct job j;
    the_fd = fd;
    if (server) { job_start(&j, blocked_recv, NULL); job_asleep(&j); C(send(fd, "while it waits", 14, 0)); step(); job_join(&j, "recv in the thread"); SHOW(buf, 6); step(); }
    else { C(recv(fd, buf, 14, MSG_WAITALL)); SHOW(buf, 14); step(); C(send(fd, "answer", 6, 0)); step(); }
}
CASE(shutdown_wakes_a_blocked_reader) {
    static const int hows[] = {SHUT_RD, SHUT_RDWR, SHUT_RD};
    for (int i = 0; i < 3; i++) {
        struct job j;
        int c = another();
        warm(c);
        the_fd = c;
        if (server) { job_start(&j, i == 2 ? blocked_poll : blocked_recv, NULL); job_asleep(&j); C(shutdown(c, hows[i])); job_join(&j, i == 2 ? "poll" : "recv"); step(); close(c); }
        else { step(); }
        step();
    }
}
CASE(shutdown_wakes_a_blocked_writer) {
    struct job j;
    the_fd = fd;
    if (server) { job_start(&j, blocked_send, NULL); job_asleep(&j); C(shutdown(fd, SHUT_WR)); job_join(&j, "send"); step(); }
    else { step(); T(drain(fd, NULL) > 100000); }
}
CASE(close_under_a_blocked_reader) {
    /* On Linux the reader goes on waiting, and gets what comes. */
    struct job j;
    the_fd = fd;
    if (server) { job_start(&j, blocked_recv, NULL); job_asleep(&j); C(close(fd)); C(recv(fd, buf, 1, 0)); step(); job_join(&j, "recv"); SHOW(buf, 4); step(); }
    else { step(); C(send(fd, "late", 4, 0)); step(); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); }
}
CASE(close_under_a_poller) {
    struct job j;
    the_fd = fd;
    if (server) { job_start(&j, blocked_poll, NULL); job_asleep(&j); C(close(fd)); step(); job_join(&j, "poll"); step(); }
    else { step(); C(send(fd, "late", 4, 0)); step(); }
}
CASE(number_reused_under_a_blocked_reader) {
    struct job j;
    the_fd = fd;
    static char mine[10];
    int c = another();
    warm(c);
    if (server) { job_start(&j, blocked_recv, mine); job_asleep(&j); C(dup2(c, fd) == fd); step(); job_join(&j, "recv"); SHOW(mine, 4); C(recv(fd, buf, 10, 0)); SHOW(buf, 5); step(); }
    else { step(); Q(send(fd, "old!", 4, 0)); Q(send(c, "other", 5, 0)); step(); }
}
struct part { int fd, id, n; };
static long small_messages(void *p) {
    struct part *t = p;
    char m[32];
    for (int i = 0; i < t->n; i++) { memset(m, 'a' + t->id, 32); m[0] = t->id; memcpy(m + 1, &i, 4); if (send(t->fd, m, 32, 0) != 32) return i; }
    return t->n;
}
CASE(messages_of_several_writers_stay_whole) {
    enum { T_ = 4, N = 500 };
    struct job j[T_];
    struct part p[T_];
    if (server) { for (int i = 0; i < T_; i++) { p[i] = (struct part){fd, i, N}; job_start(&j[i], small_messages, &p[i]); } for (int i = 0; i < T_; i++) job_join(&j[i], "sent"); C(shutdown(fd, SHUT_WR)); }
    else {
        int next[T_] = {0}, bad = 0; char m[32];
        while (read_full(fd, m, 32) == 32) { int id = m[0], i; memcpy(&i, m + 1, 4); if (id < 0 || id >= T_ || i != next[id]++) bad++; else for (int k = 5; k < 32; k++) if (m[k] != 'a' + id) { bad++; break; } }
        C(bad); for (int i = 0; i < T_; i++) C(next[i]);
    }
}
static long count_reader(void *p) { struct part *t = p; char b[777]; long n = 0, r; while ((r = recv(t->fd, b, sizeof b, 0)) > 0) n += r; return r < 0 ? r : n; }
CASE(several_readers_share_the_stream) {
    struct job j[3];
    struct part p = {fd};
    if (server) { put(fd, 3000000, 1); C(shutdown(fd, SHUT_WR)); step(); }
    else { long n = 0; for (int i = 0; i < 3; i++) job_start(&j[i], count_reader, &p); for (int i = 0; i < 3; i++) { pthread_join(j[i].t, NULL); n += j[i].result; } C(n); step(); }
}
struct flow { int fd; long n; uint32_t seed; int ok; };
static long sends_all(void *p) { struct flow *f = p; char *b = malloc(f->n); fill(b, f->n, f->seed); long r = write_full(f->fd, b, f->n); free(b); return r; }
static long takes_all(void *p) { struct flow *f = p; char *b = malloc(f->n), *d = malloc(f->n); fill(d, f->n, f->seed); long r = read_full(f->fd, b, f->n); f->ok = r == f->n && !memcmp(b, d, f->n); free(b); free(d); return r; }
CASE(full_duplex_by_two_threads_each) {
    struct flow o = {fd, 8 << 20, server}, i = {fd, 8 << 20, !server};
    struct job a, b;
    job_start(&a, sends_all, &o); job_start(&b, takes_all, &i); job_join(&a, "sent"); job_join(&b, "received"); C(i.ok);
}
static long ping_pong(void *p) {
    struct part *t = p;
    char b[64], d[64];
    for (int i = 0; i < t->n; i++) { fill(d, 64, i * 8 + t->id); if (!server) { if (write_full(t->fd, d, 64) != 64) return i; } if (read_full(t->fd, b, 64) != 64 || memcmp(b, d, 64)) return i; if (server) { if (write_full(t->fd, b, 64) != 64) return i; } }
    return t->n;
}
CASE(a_thread_for_each_connection) {
    enum { N = 8 };
    struct job j[N];
    struct part p[N];
    for (int i = 0; i < N; i++) { p[i] = (struct part){another(), i, 300}; }
    for (int i = 0; i < N; i++) job_start(&j[i], ping_pong, &p[i]);
    for (int i = 0; i < N; i++) job_join(&j[i], "exchanged");
    put(fd, 10, 1); get(fd, 10, 1);
}
CASE(cancelled_in_recv) {
    struct job j;
    the_fd = fd;
    if (server) {
        job_start(&j, blocked_recv, NULL); job_asleep(&j); C(pthread_cancel(j.t)); void *r; pthread_join(j.t, &r); T(r == PTHREAD_CANCELED);
        step(); C(recv(fd, buf, 10, 0)); SHOW(buf, 5); job_start(&j, blocked_poll, NULL); job_asleep(&j); C(pthread_cancel(j.t)); pthread_join(j.t, &r); T(r == PTHREAD_CANCELED); step();
    } else { step(); C(send(fd, "hello", 5, 0)); step(); }
    put(fd, 3000, 1); get(fd, 3000, 1);
}
CASE(exit_while_a_thread_waits) {
    struct job j;
    the_fd = fd;
    if (server) { Q(send(fd, "last", 4, 0)); job_start(&j, blocked_recv, NULL); job_asleep(&j); tell(1); exit(5); }
    hear(); C(recv(fd, buf, 100, MSG_WAITALL)); SHOW(buf, 4); C(recv(fd, buf, 10, 0));
}
CASE(main_thread_leaves_first) {
    struct job j;
    the_fd = fd;
    if (!server) { C(recv(fd, buf, 5, MSG_WAITALL)); C(send(fd, "x", 1, 0)); C(recv(fd, buf, 1, 0)); return; }
    pid_t p = fork();
    if (!p) { job_start(&j, blocked_recv, NULL); send(fd, "child", 5, 0); pthread_exit(NULL); }
    close(fd); int st; waitpid(p, &st, 0); C(WIFEXITED(st)); C(WEXITSTATUS(st));
}
static long waits_in_epoll(void *p) { struct epoll_event g; int ep = *(int *)p; long r = epoll_wait(ep, &g, 1, 10000); return r == 1 ? (long)g.data.u32 : r; }
CASE(many_threads_wait_in_one_epoll) {
    enum { N = 4 };
    int ep = epoll_create1(0), c[N];
    struct job j[N];
    for (int i = 0; i < N; i++) { c[i] = another(); warm(c[i]); struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = i}; if (server) Q(epoll_ctl(ep, EPOLL_CTL_ADD, c[i], &e)); }
    if (server) for (int i = 0; i < N; i++) { job_start(&j[i], waits_in_epoll, &ep); job_asleep(&j[i]); }
    step();
    if (!server) for (int i = 0; i < N; i++) Q(send(c[i], "x", 1, 0));
    if (server) { long sum = 0; for (int i = 0; i < N; i++) { pthread_join(j[i].t, NULL); sum += 1 << j[i].result; } C(sum); }
    step();
}
CASE(reader_and_poller_at_once) {
    /* One thread sleeps in poll, another reads what comes without blocking; the sleeper is woken each time. */
    struct job j;
    the_fd = fd;
    for (int i = 0; i < 5; i++) {
        if (server) { job_start(&j, blocked_poll, NULL); job_asleep(&j); step(); job_join(&j, "poll"); C(recv(fd, buf, 10, MSG_DONTWAIT)); }
        else { step(); Q(send(fd, "abc", 3, 0)); }
        step();
    }
}
CASE(two_blocked_readers_one_message_each) {
    /* Which of them gets which is not said; both end. */
    struct job j[2];
    static char b[2][10];
    the_fd = fd;
    if (server) { for (int i = 0; i < 2; i++) { job_start(&j[i], blocked_recv, b[i]); job_asleep(&j[i]); } step(); for (int i = 0; i < 2; i++) pthread_join(j[i].t, NULL); T(j[0].result == 3 && j[1].result == 3); step(); }
    else { step(); Q(set_int(fd, SOL_TCP, TCP_NODELAY, 1)); Q(send(fd, "one", 3, 0)); wait_peer_asleep(); Q(send(fd, "two", 3, 0)); step(); }
}
static long forks(void *p) { for (int i = 0; i < 30; i++) { pid_t c = fork(); if (!c) _exit(0); waitpid(c, NULL, 0); } return 30; }
CASE(forks_while_another_thread_talks) {
    struct part p = {fd, 1, 400};
    struct job j, k;
    job_start(&j, forks, NULL); job_start(&k, ping_pong, &p); job_join(&j, "forked"); job_join(&k, "exchanged");
}
static long opens_and_closes(void *p) { for (int i = 0; i < 300; i++) { int f = open("/dev/null", O_RDONLY), g = dup(the_fd); close(f); close(g); } return 300; }
CASE(descriptors_come_and_go_meanwhile) {
    struct part p = {fd, 1, 400};
    struct job j, k;
    the_fd = fd;
    job_start(&j, opens_and_closes, NULL); job_start(&k, ping_pong, &p); job_join(&j, "opened"); job_join(&k, "exchanged");
}
