/* Many bytes, many connections: every byte arrives once and in order, whatever the ways of reading and writing. */
#include "harness.h"

enum { BIG = 50 << 20, BLOCK = 1 << 20 };
static char buf[BLOCK], other[BLOCK];
static uint32_t rnd_state = 1;
static uint32_t rnd(uint32_t n) { rnd_state = rnd_state * 1664525u + 1013904223u; return (rnd_state >> 8) % n; }
/* Byte i of stream s, cheap enough to make and check while the bytes go by. */
static void make(char *p, long n, long from, int s) { for (long i = 0; i < n; i++) p[i] = ((from + i) * 2654435761u >> 13) + s; }
static long wrong_at = -1;
static void check(const char *p, long n, long from, int s) { for (long i = 0; i < n && wrong_at < 0; i++) if (p[i] != (char)((((from + i) * 2654435761u) >> 13) + s)) wrong_at = from + i; }
static void verdict(long n, long total) { out("received %ld of %ld, %s", n, total, wrong_at < 0 ? "all right" : "WRONG BYTES"); }

static void send_stream(int fd, long total, int s, int chunk) {
    for (long n = 0; n < total;) {
        long w = chunk ? chunk : 1 + rnd(BLOCK - 1), r;
        if (w > total - n) w = total - n;
        make(buf, w, n, s);
        if ((r = write_full(fd, buf, w)) != w) { out("stopped at %ld: %s", n, strerrorname_np(errno)); return; }
        n += w;
    }
}
static void receive_stream(int fd, long total, int s, int chunk) {
    long n = 0, r;
    while (n < total && (r = read(fd, buf, chunk ? chunk : 1 + rnd(BLOCK - 1))) > 0) { check(buf, r, n, s); n += r; }
    verdict(n, total);
}
static void one_way(int fd, int from_server, int send_chunk, int recv_chunk) {
    if (server == from_server) { send_stream(fd, BIG, 1, send_chunk); C(shutdown(fd, SHUT_WR)); C(recv(fd, buf, 1, 0)); }
    else { receive_stream(fd, BIG, 1, recv_chunk); C(recv(fd, buf, 1, 0)); C(shutdown(fd, SHUT_WR)); }
}
/* By turns through whatever carries a plain send, and through the kernel, while the other side reads and peeks. */
CASE(two_ways_by_turns) {
    enum { N = 3000 };
    static char p[N * 100], q[N * 100];
    fill(p, sizeof p, 9);
    if (server) {
        for (int i = 0, at = 0; i < N; at += 100, i++) { long r = send(fd, p + at, 100, i % 7 == 3 ? MSG_DONTROUTE : 0); if (r != 100) { out("send %d: %ld", i, r); break; } }
        C(shutdown(fd, SHUT_WR)); C(recv(fd, q, 1, 0));
    } else {
        long at = 0, r, wrong = 0; char b[333];
        for (int i = 0; at < (long)sizeof p; i++) {
            if (i % 3 == 0) { r = recv(fd, b, sizeof b, MSG_PEEK | (i % 2 ? MSG_DONTWAIT : 0)); if (r > 0 && memcmp(b, p + at, r)) wrong++; }
            r = recv(fd, q + at, i % 5 ? 333 : 64, i % 4 ? 0 : MSG_DONTWAIT);
            if (r < 0 && errno == EAGAIN) continue;
            if (r <= 0) break;
            at += r;
        }
        out("%ld bytes, %s, %ld peeks were wrong", at, memcmp(p, q, sizeof p) ? "DIFFERENT" : "the same", wrong); C(recv(fd, b, 1, 0)); C(shutdown(fd, SHUT_WR));
    }
}
CASE(server_to_client) { one_way(fd, 1, 0, 0); }
CASE(client_to_server) { one_way(fd, 0, 0, 0); }
CASE(large_writes_small_reads) { one_way(fd, 1, BLOCK, 4096); }
CASE(small_writes_large_reads) { one_way(fd, 0, 3000, BLOCK); }
CASE(page_by_page) { one_way(fd, 1, 4096, 4096); }
/* Both ways at once, never blocking, with whichever call waits. */
static void duplex(int fd, int how, long total) {
    long sent = 0, got = 0, r;
    int ep = -1, eof = 0;
    unsigned ready = 0;
    nonblock(fd, 1);
    rnd_state = 7 + server;
    if (how == 2 || how == 3) { ep = epoll_create1(0); struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | (how == 3 ? EPOLLET : 0)}; Q(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)); }
    while (sent < total || got < total) {
        int want = (got < total ? POLLIN : 0) | (sent < total ? POLLOUT : 0);
        if (how == 0) { struct pollfd p = {fd, want, 0}; r = poll(&p, 1, 15000); ready = p.revents; }
        else if (how == 1) { fd_set a, b; struct timeval tv = {15, 0}; FD_ZERO(&a); FD_ZERO(&b); if (want & POLLIN) FD_SET(fd, &a); if (want & POLLOUT) FD_SET(fd, &b); r = select(fd + 1, &a, &b, NULL, &tv); ready = (FD_ISSET(fd, &a) ? POLLIN : 0) | (FD_ISSET(fd, &b) ? POLLOUT : 0); }
        else { struct epoll_event e = {.events = want}; if (how == 2) Q(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e)); r = epoll_wait(ep, &e, 1, 15000); ready = e.events; }
        if (r < 1) { out("waited in vain: %ld, sent %ld, got %ld", r, sent, got); return; }
        if (ready & POLLIN) do { r = recv(fd, buf, 1 + rnd(BLOCK - 1), 0); if (r > 0) { check(buf, r, got, !server); got += r; } else if (r == 0 || errno != EAGAIN) { out("recv %ld %s after %ld", r, strerrorname_np(errno), got); return; } } while (how == 3 && r > 0 && got < total);
        if (ready & POLLOUT) do { long w = 1 + rnd(BLOCK - 1); if (w > total - sent) w = total - sent; if (!w) break; make(other, w, sent, server); r = send(fd, other, w, 0); if (r > 0) sent += r; else if (errno != EAGAIN) { out("send %s after %ld", strerrorname_np(errno), sent); return; } } while (how == 3 && r > 0 && sent < total);
    }
    verdict(got, total);
    C(sent);
    step();
    C(recv(fd, buf, 1, 0));
}
CASE(both_ways_by_poll) { duplex(fd, 0, BIG); }
CASE(both_ways_by_select) { duplex(fd, 1, 20 << 20); }
CASE(both_ways_by_epoll_level) { duplex(fd, 2, 20 << 20); }
CASE(both_ways_by_epoll_edge) { duplex(fd, 3, BIG); }
CASE(by_vectors) {
    struct iovec v[16];
    long n = 0, r, total = 20 << 20;
    rnd_state = 3;
    for (;;) {
        long want = 0;
        for (int i = 0; i < 16; i++) { v[i] = (struct iovec){buf + want, rnd(5000)}; want += v[i].iov_len; }
        if (server) { make(buf, want, n, 4); r = writev(fd, v, 16); if (r < 0) { C(r); break; } n += r; if (n >= total) break; }
        else { r = readv(fd, v, 16); if (r <= 0) break; check(buf, r, n, 4); n += r; }
    }
    if (server) { tell((int)(n / 1000)); tell((int)(n % 1000)); shutdown(fd, SHUT_WR); } else { long s = hear() * 1000L; s += hear(); T(n == s); T(wrong_at < 0); }
}
CASE(peek_then_read) {
    long n = 0, r, total = 3 << 20;
    if (server) send_stream(fd, total, 2, 0), C(shutdown(fd, SHUT_WR));
    else { int bad = 0; while ((r = recv(fd, other, 1 + rnd(20000), MSG_PEEK)) > 0) { long k = 1 + rnd(r); if (read_full(fd, buf, k) != k || memcmp(buf, other, k)) bad++; check(buf, k, n, 2); n += k; } verdict(n, total); C(bad); }
}
CASE(waitall_records) {
    long total = 0;
    rnd_state = 9;
    for (int i = 0; i < 500; i++) {
        int n = 1 + rnd(40000);
        if (server) { make(buf, n, total, 3); if (write_full(fd, buf, n) != n) out("short"); }
        else { long r = recv(fd, buf, n, MSG_WAITALL); if (r != n) { out("record %d: %ld of %d", i, r, n); break; } check(buf, n, total, 3); }
        total += n;
    }
    if (!server) verdict(total, total);
    step();
}
CASE(slow_reader) {
    /* The reader takes little and rests: the writer fills whatever there is, again and again. */
    long total = 12 << 20, n = 0, r;
    if (server) { send_stream(fd, total, 5, 0); C(shutdown(fd, SHUT_WR)); }
    else { while ((r = read(fd, buf, 300000)) > 0) { check(buf, r, n, 5); n += r; if (n % 7 == 0) nap_ms(3); } verdict(n, total); }
}
CASE(request_reply_of_all_sizes) {
    rnd_state = 21;
    int bad = 0;
    for (int i = 0; i < 1500; i++) {
        long q = 1 + (i % 50 == 0 ? rnd(300000) : rnd(1500)), a = 1 + (i % 70 == 0 ? rnd(300000) : rnd(3000));
        if (server) { if (read_full(fd, buf, q) != q) { out("request %d", i); return; } check(buf, q, i, 1); make(buf, a, i, 2); if (write_full(fd, buf, a) != a) { out("reply %d", i); return; } }
        else { make(buf, q, i, 1); if (write_full(fd, buf, q) != q) { out("request %d", i); return; } if (read_full(fd, buf, a) != a) { out("reply %d", i); return; } check(buf, a, i, 2); }
    }
    T(wrong_at < 0);
}
CASE(pipelined_requests) {
    /* Many requests at once, then all the replies. */
    for (int round = 0; round < 100; round++) {
        int n = 1 + round % 60;
        if (!server) { for (int i = 0; i < n; i++) { make(buf, 100, i, round); if (write_full(fd, buf, 100) != 100) out("short"); } for (int i = 0; i < n; i++) { if (read_full(fd, buf, 100) != 100) { out("round %d reply %d", round, i); return; } check(buf, 100, i, round); } }
        else for (int i = 0; i < n; i++) { if (read_full(fd, buf, 100) != 100 || write_full(fd, buf, 100) != 100) { out("round %d request %d", round, i); return; } }
    }
    T(wrong_at < 0);
}
CASE_RAW(two_hundred_connections) {
    enum { N = 200 };
    static int c[N];
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 256) : -1, port = 0;
    if (server) tell(port_of(l)); else port = hear();
    for (int i = 0; i < N; i++) { c[i] = server ? (int)Q(accept(l, NULL, NULL)) : connect_to(AF_INET, "127.0.0.1", port); if (warm_n) warm_by(c[i], 8); }
    for (int round = 0; round < 12; round++) for (int i = 0; i < N; i++) {
        int k = (i * 77 + round * 13) % N, n = 1 + (i * 31 + round * 17) % 2000;
        if (!server) { make(buf, n, i, round); if (write_full(c[k], buf, n) != n) { out("write"); return; } }
        if (read_full(c[k], buf, n) != n) { out("round %d connection %d", round, k); return; }
        check(buf, n, i, round);
        if (server) { if (write_full(c[k], buf, n) != n) { out("write"); return; } }
    }
    T(wrong_at < 0);
    for (int i = 0; i < N; i++) { if (i % 2 == server) shutdown(c[i], SHUT_WR); else if (recv(c[i], buf, 1, 0)) out("connection %d: no EOF", i); }
    for (int i = 0; i < N; i++) close(c[i]);
}
CASE_RAW(hundred_connections_by_epoll) {
    enum { N = 100, EACH = 100000 };
    static int c[N];
    static long in[N], sent[N];
    static char ended[N];
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 256) : -1, port = 0, ep = epoll_create1(0), open_ = N;
    if (server) tell(port_of(l)); else port = hear();
    for (int i = 0; i < N; i++) { c[i] = server ? (int)Q(accept(l, NULL, NULL)) : connect_to(AF_INET, "127.0.0.1", port); if (warm_n) warm_by(c[i], 8); nonblock(c[i], 1); struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | (i & 1 ? EPOLLET : 0), .data.u32 = i}; Q(epoll_ctl(ep, EPOLL_CTL_ADD, c[i], &e)); }
    step();
    while (open_) {
        struct epoll_event g[16];
        int n = epoll_wait(ep, g, 16, 15000);
        if (n <= 0) { out("waited in vain: %d, %d open", n, open_); return; }
        for (int k = 0; k < n; k++) {
            int i = g[k].data.u32;
            long r;
            while ((r = recv(c[i], buf, 9000, 0)) > 0) { check(buf, r, in[i], i); in[i] += r; if (!(i & 1)) break; }
            if (r == 0) ended[i] = 1;
            while (sent[i] < EACH) { long w = EACH - sent[i] < 7000 ? EACH - sent[i] : 7000; make(buf, w, sent[i], i); r = send(c[i], buf, w, 0); if (r <= 0) break; sent[i] += r; if (sent[i] == EACH) { shutdown(c[i], SHUT_WR); struct epoll_event e = {.events = EPOLLIN | (i & 1 ? EPOLLET : 0), .data.u32 = i}; Q(epoll_ctl(ep, EPOLL_CTL_MOD, c[i], &e)); } if (!(i & 1)) break; }
            if (ended[i] && sent[i] == EACH) { if (in[i] != EACH) out("connection %d ended after %ld", i, in[i]); Q(epoll_ctl(ep, EPOLL_CTL_DEL, c[i], NULL)); open_--; }
        }
    }
    T(wrong_at < 0);
    step();
}
CASE(alternately_idle_and_busy) {
    /* Bursts between which both sides sleep: the way changes again and again under the stream. */
    long pos = 0;
    for (int i = 0; i < 60; i++) {
        int n = 1 + (i * 7919) % 60000;
        if (server == i % 2) { if (i % 3 == 0) wait_peer_asleep(); make(buf, n, pos, 6); if (write_full(fd, buf, n) != n) { out("short"); return; } }
        else { if (i % 4 == 0) wait_in(fd); if (read_full(fd, buf, n) != n) { out("burst %d", i); return; } check(buf, n, pos, 6); }
        pos += n;
        if (i % 5 == 0) step();
    }
    T(wrong_at < 0);
}
