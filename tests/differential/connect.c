/* connect(2), accept(2), listen(2), bind(2): families and addresses, non-blocking ways, errors, what is inherited. */
#include "harness.h"

static char buf[1 << 20];
static void talk(int c) {
    warm(c);
    if (server) { get(c, 5000, 1); put(c, 7000, 2); } else { put(c, 5000, 1); get(c, 7000, 2); }
}
static void name_of(int c, int peer) {
    struct sockaddr_storage a;
    socklen_t l = sizeof a;
    char ip[64] = "?";
    int r = peer ? getpeername(c, (void *)&a, &l) : getsockname(c, (void *)&a, &l);
    if (r) { out("%s: %s", peer ? "peer" : "own", strerrorname_np(errno)); return; }
    if (a.ss_family == AF_INET) inet_ntop(AF_INET, &((struct sockaddr_in *)&a)->sin_addr, ip, sizeof ip);
    if (a.ss_family == AF_INET6) inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&a)->sin6_addr, ip, sizeof ip);
    out("%s: family %d address %s length %d", peer ? "peer" : "own", a.ss_family, ip, (int)l);
}
static void talk_and_end(int c) {
    name_of(c, 0); name_of(c, 1);
    talk(c);
    step();
    if (server) close(c); 
    step();
    if (!server) { wait_ev(c, POLLRDHUP); C(recv(c, buf, 1, 0)); close(c); }
}
static void over(int family, const char *bind_to, int client_family, const char *to) {
    int l = -1;
    if (server) { l = listen_at(family, bind_to, 0, 8); int off = 0; }
    int c;
    if (server) { tell(port_of(l)); struct sockaddr_storage a; socklen_t n = sizeof a; c = CFD(accept(l, (void *)&a, &n)); out("accepted family %d length %d", a.ss_family, (int)n); }
    else c = connect_to(client_family, to, hear());
    talk_and_end(c);
}
CASE_RAW(loopback_v4) { over(AF_INET, "127.0.0.1", AF_INET, "127.0.0.1"); }
CASE_RAW(loopback_v6) { over(AF_INET6, "::1", AF_INET6, "::1"); }
CASE_RAW(mapped_v4_both) { over(AF_INET6, "::ffff:127.0.0.1", AF_INET6, "::ffff:127.0.0.1"); }
CASE_RAW(any_v6_taking_v4) { over(AF_INET6, "::", AF_INET, "127.0.0.1"); }
CASE_RAW(v4_listener_mapped_client) { over(AF_INET, "127.0.0.1", AF_INET6, "::ffff:127.0.0.1"); }
CASE_RAW(any_v4_other_loopback) { over(AF_INET, "0.0.0.0", AF_INET, "127.0.0.2"); }
CASE_RAW(any_v4_connect_to_any) { over(AF_INET, "0.0.0.0", AF_INET, "0.0.0.0"); }
CASE_RAW(any_v6_connect_to_any) { over(AF_INET6, "::", AF_INET6, "::"); }
CASE_RAW(own_source_address) {
    int l = server ? listen_at(AF_INET, "127.0.0.2", 0, 8) : -1, c;
    if (server) { tell(port_of(l)); c = Q(accept(l, NULL, NULL)); }
    else {
        struct sockaddr_storage a; socklen_t n;
        c = Q(socket(AF_INET, SOCK_STREAM, 0)); n = address(AF_INET, "127.0.0.3", 0, &a); C(bind(c, (void *)&a, n)); n = address(AF_INET, "127.0.0.2", hear(), &a); C(connect(c, (void *)&a, n));
    }
    talk_and_end(c);
}
CASE_RAW(same_tuple_again_and_again) {
    /* The client keeps its port: each connection has the name of the one before. */
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 8) : -1, port = 0;
    struct sockaddr_storage to, from;
    socklen_t n = 0, m = 0;
    struct linger lg = {1, 0};
    if (server) tell(port_of(l)); else n = address(AF_INET, "127.0.0.1", hear(), &to);
    for (int i = 0; i < 6; i++) {
        int c;
        if (server) { c = Q(accept(l, NULL, NULL)); }
        else {
            c = Q(socket(AF_INET, SOCK_STREAM, 0)); Q(set_int(c, SOL_SOCKET, SO_REUSEADDR, 1));
            m = address(AF_INET, "127.0.0.1", port, &from); Q(bind(c, (void *)&from, m)); port = port_of(c); C(connect(c, (void *)&to, n));
        }
        warm(c); put(c, 3000, i + server); get(c, 3000, i + !server);
        if (i % 2 && !server) { Q(send(c, "left behind", 11, 0)); }
        step();
        if (!server) { Q(setsockopt(c, SOL_SOCKET, SO_LINGER, &lg, sizeof lg)); close(c); }
        step();
        if (server) { wait_ev(c, 0); char b[20]; long r = recv(c, b, 20, MSG_DONTWAIT); out("%ld", r); close(c); }
        step();
    }
}
CASE_ONCE(refused) {
    if (!server) { step(); return; }
    int l = listen_at(AF_INET, "127.0.0.1", 0, 1), port = port_of(l), s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_storage a;
    socklen_t n = address(AF_INET, "127.0.0.1", port, &a);
    close(l);
    C(connect(s, (void *)&a, n)); state(s); so_error(s); C(connect(s, (void *)&a, n)); C(send(s, "x", 1, 0)); C(recv(s, buf, 1, 0));
    l = listen_at(AF_INET, "127.0.0.1", port, 1); C(connect(s, (void *)&a, n)); state(s);
    step();
}
CASE_ONCE(refused_nonblocking) {
    if (!server) { step(); return; }
    int l = listen_at(AF_INET, "127.0.0.1", 0, 1), port = port_of(l), s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0);
    struct sockaddr_storage a;
    socklen_t n = address(AF_INET, "127.0.0.1", port, &a);
    close(l);
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP}, g;
    Q(epoll_ctl(ep, EPOLL_CTL_ADD, s, &e)); C(epoll_wait(ep, &g, 1, 0)); out("%s", mask(g.events));
    C(connect(s, (void *)&a, n)); wait_ev(s, POLLOUT); state(s); C(epoll_wait(ep, &g, 1, -1)); out("%s", mask(g.events)); so_error(s); so_error(s); state(s);
    step();
}
CASE_RAW(connect_nonblocking) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 8) : -1, c;
    if (server) { tell(port_of(l)); c = Q(accept(l, NULL, NULL)); step(); }
    else {
        struct sockaddr_storage a; socklen_t n = address(AF_INET, "127.0.0.1", hear(), &a);
        c = Q(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)); state(c);
        int r = connect(c, (void *)&a, n); T(r == -1 && errno == EINPROGRESS); wait_ev(c, POLLOUT); state(c); so_error(c); C(connect(c, (void *)&a, n) == 0 || errno == EISCONN); C(connect(c, (void *)&a, n)); C(recv(c, buf, 1, 0));
        step(); nonblock(c, 0);
    }
    talk_and_end(c);
}
CASE_RAW(connect_nonblocking_by_edge) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 8) : -1, c, ep = epoll_create1(0);
    if (server) { tell(port_of(l)); c = Q(accept(l, NULL, NULL)); }
    else {
        struct sockaddr_storage a; socklen_t n = address(AF_INET, "127.0.0.1", hear(), &a);
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET}, g;
        c = Q(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
        int r = connect(c, (void *)&a, n); T(r == -1 && errno == EINPROGRESS);
        Q(epoll_ctl(ep, EPOLL_CTL_ADD, c, &e)); 
        do { g.events = 0; C(epoll_wait(ep, &g, 1, 5000)); } while (!(g.events & EPOLLOUT)); out("%s", mask(g.events)); C(epoll_wait(ep, &g, 1, 0)); so_error(c);
        nonblock(c, 0);
    }
    talk_and_end(c);
}
CASE(connect_twice) {
    if (!server) { C(connect(fd, (void *)&peer_addr, peer_addr_len)); C(connect(fd, (void *)&peer_addr, 2)); C(connect(fd, NULL, 0)); C(connect(fd, (void *)-1, 16)); C(connect(-1, (void *)&peer_addr, peer_addr_len)); C(connect(0, (void *)&peer_addr, peer_addr_len)); C(bind(fd, (void *)&peer_addr, peer_addr_len)); C(listen(fd, 1)); C(accept(fd, NULL, NULL)); }
    step();
    if (server) { C(accept(fd, NULL, NULL)); C(listen(fd, 5)); }
    step();
    put(fd, 100, 1); get(fd, 100, 1);
}
CASE_RAW(self_connect) {
    /* One socket is both ends. */
    struct sockaddr_storage a;
    socklen_t n = address(AF_INET, "127.0.0.1", 0, &a);
    int s = Q(socket(AF_INET, SOCK_STREAM, 0));
    Q(bind(s, (void *)&a, n)); n = sizeof a; Q(getsockname(s, (void *)&a, &n)); C(connect(s, (void *)&a, n)); state(s);
    for (int i = 0; i < 2 + warm_n; i++) { char c = i, d = 0; if (send(s, &c, 1, 0) != 1 || recv(s, &d, 1, 0) != 1 || d != c) out("message %d", i); }
    C(send(s, "to myself", 9, 0)); wait_in(s); C(recv(s, buf, 100, 0)); SHOW(buf, 9); C(recv(s, buf, 1, MSG_DONTWAIT)); C(shutdown(s, SHUT_WR)); wait_ev(s, POLLRDHUP); C(recv(s, buf, 1, 0)); 
}
CASE_RAW(both_ends_in_one_process) {
    int l = listen_at(AF_INET, "127.0.0.1", 0, 8), c = connect_to(AF_INET, "127.0.0.1", port_of(l)), s = Q(accept(l, NULL, NULL));
    char b[40];
    for (int i = 0; i < warm_n + 5; i++) { memset(b, i, 32); Q(send(c, b, 32, 0)); if (read_full(s, b, 32) != 32 || b[5] != i) out("%d", i); Q(send(s, b, 32, 0)); if (read_full(c, b, 32) != 32 || b[5] != i) out("%d", i); }
    C(send(c, "hello", 5, 0)); wait_in(s); state(s); state(c); C(recv(s, buf, 100, 0)); SHOW(buf, 5);
    put(s, 20000, 1); get(c, 20000, 1);
    C(send(c, "bye", 3, 0)); C(close(c)); wait_ev(s, POLLRDHUP); C(recv(s, buf, 100, 0)); C(recv(s, buf, 100, 0)); state(s);
}
static long one_echo(void *p) { int s = *(int *)p; char b[100]; long r, n = 0; while ((r = read(s, b, sizeof b)) > 0) { n += r; write_full(s, b, r); } close(s); return n; }
CASE_RAW(both_ends_in_two_threads) {
    int l = listen_at(AF_INET, "127.0.0.1", 0, 8), c = connect_to(AF_INET, "127.0.0.1", port_of(l)), s = Q(accept(l, NULL, NULL));
    struct job j;
    char b[100], d[100];
    job_start(&j, one_echo, &s);
    for (int i = 0; i < 300; i++) { int n = 1 + i % 100; fill(b, n, i); Q(write_full(c, b, n)); if (read_full(c, d, n) != n || memcmp(b, d, n)) { out("message %d", i); break; } }
    C(shutdown(c, SHUT_WR)); C(recv(c, b, 1, 0)); job_join(&j, "echoed");
}
CASE_RAW(accept_flags) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 8) : -1, c;
    static const int flags[] = {0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC};
    if (server) { C(accept4(l, NULL, NULL, 0x1000)); nonblock(l, 1); C(accept(l, NULL, NULL)); C(accept4(l, NULL, NULL, SOCK_NONBLOCK)); }
    for (int i = 0; i < 4; i++) {
        if (server) { tell(port_of(l)); wait_in(l); c = CFD(accept4(l, NULL, NULL, flags[i])); C(fcntl(c, F_GETFL)); C(fcntl(c, F_GETFD)); nonblock(c, 0); } else c = connect_to(AF_INET, "127.0.0.1", hear());
        talk(c); close(c);
    }
    if (server) { C(accept(l, NULL, NULL)); C(fcntl(l, F_GETFL)); }
}
CASE_RAW(accept_inherits) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 8) : -1, c;
    struct linger lg = {1, 3};
    if (server) {
        Q(set_int(l, SOL_SOCKET, SO_KEEPALIVE, 1)); Q(set_int(l, SOL_TCP, TCP_NODELAY, 1)); Q(set_int(l, SOL_SOCKET, SO_SNDBUF, 40000)); Q(set_int(l, SOL_SOCKET, SO_RCVBUF, 40000)); Q(set_int(l, SOL_SOCKET, SO_RCVLOWAT, 3)); Q(setsockopt(l, SOL_SOCKET, SO_LINGER, &lg, sizeof lg)); set_timeout(l, SO_RCVTIMEO, 2000); Q(set_int(l, SOL_SOCKET, SO_OOBINLINE, 1)); Q(set_int(l, SOL_TCP, TCP_KEEPIDLE, 44)); nonblock(l, 1);
        tell(port_of(l)); wait_in(l); c = Q(accept(l, NULL, NULL));
        struct linger got; struct timeval tv; socklen_t n = sizeof got;
        C(get_int(c, SOL_SOCKET, SO_KEEPALIVE)); C(get_int(c, SOL_TCP, TCP_NODELAY)); C(get_int(c, SOL_SOCKET, SO_SNDBUF)); C(get_int(c, SOL_SOCKET, SO_RCVBUF)); C(get_int(c, SOL_SOCKET, SO_RCVLOWAT)); C(getsockopt(c, SOL_SOCKET, SO_LINGER, &got, &n)); out("%d %d", got.l_onoff, got.l_linger); n = sizeof tv; C(getsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &tv, &n)); out("%ld", (long)tv.tv_sec); C(get_int(c, SOL_SOCKET, SO_OOBINLINE)); C(get_int(c, SOL_TCP, TCP_KEEPIDLE)); C(fcntl(c, F_GETFL));
        Q(set_int(c, SOL_SOCKET, SO_RCVLOWAT, 1));
    } else c = connect_to(AF_INET, "127.0.0.1", hear());
    talk(c);
    step();
    if (server) { long t = now_ms(); C(recv(c, buf, 1, 0)); took(t, 2000); }
}
CASE_RAW(accept_bad_arguments) {
    if (!server) { int p = hear(); for (int i = 0; i < 4; i++) connect_to(AF_INET, "127.0.0.1", p); step(); return; }
    int l = listen_at(AF_INET, "127.0.0.1", 0, 8), u = socket(AF_INET, SOCK_STREAM, 0), d = socket(AF_INET, SOCK_DGRAM, 0), c;
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    tell(port_of(l)); wait_in(l);
    C(accept(u, NULL, NULL)); C(accept(d, NULL, NULL)); C(accept(-1, NULL, NULL)); C(accept(0, NULL, NULL));
    n = 5; memset(&a, 0x44, sizeof a); CFD(accept(l, (void *)&a, &n)); out("%d %x", (int)n, ((unsigned char *)&a)[6]);
    C(accept(l, (void *)-1, &n)); n = -1; C(accept(l, (void *)&a, &n)); C(accept(l, (void *)&a, (void *)-1)); 
    C(listen(u, 1)); C(listen(d, 1)); C(listen(-1, 1)); C(listen(l, -1)); C(listen(l, 0));
    step();
}
CASE_ONCE(bind_errors) {
    if (!server) { step(); return; }
    int l = listen_at(AF_INET, "127.0.0.1", 0, 1), s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_storage a;
    socklen_t n = address(AF_INET, "127.0.0.1", port_of(l), &a);
    C(bind(s, (void *)&a, n)); C(bind(s, (void *)&a, 3)); C(bind(s, (void *)-1, n)); C(bind(s, NULL, 0)); a.ss_family = AF_INET6; C(bind(s, (void *)&a, n)); n = address(AF_INET, "192.0.2.77", 0, &a); C(bind(s, (void *)&a, n)); n = address(AF_INET, "127.0.0.1", 0, &a); C(bind(s, (void *)&a, n)); C(bind(s, (void *)&a, n)); C(bind(-1, (void *)&a, n)); C(bind(0, (void *)&a, n));
    C(socket(AF_INET, SOCK_STREAM, 77)); C(socket(AF_INET, 77, 0)); C(socket(7777, SOCK_STREAM, 0)); CFD(socket(AF_INET, SOCK_STREAM, IPPROTO_TCP)); C(fcntl(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), F_GETFL)); C(socket(AF_INET, SOCK_STREAM | 0x100, 0)); C(socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){}));
    step();
}
CASE_RAW(data_before_accept) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 8) : -1, c;
    if (server) { tell(port_of(l)); step(); step(); c = Q(accept(l, NULL, NULL)); need(c, 5); state(c); C(recv(c, buf, 100, 0)); SHOW(buf, 5); step(); }
    else { c = connect_to(AF_INET, "127.0.0.1", hear()); step(); C(send(c, "early", 5, 0)); step(); step(); }
    talk_and_end(c);
}
CASE_RAW(closed_before_accept) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 8) : -1, c;
    if (server) { tell(port_of(l)); step(); c = CFD(accept(l, NULL, NULL)); wait_ev(c, POLLRDHUP); name_of(c, 1); state(c); C(recv(c, buf, 100, 0)); SHOW(buf, 5); C(recv(c, buf, 100, 0)); C(send(c, "x", 1, 0)); }
    else { c = connect_to(AF_INET, "127.0.0.1", hear()); C(send(c, "early", 5, 0)); C(close(c)); step(); }
    step();
}
CASE_RAW(reset_before_accept) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 8) : -1, c;
    struct linger lg = {1, 0};
    if (server) { tell(port_of(l)); step(); c = CFD(accept(l, NULL, NULL)); wait_ev(c, 0); name_of(c, 1); state(c); C(recv(c, buf, 100, 0)); C(recv(c, buf, 100, 0)); }
    else { c = connect_to(AF_INET, "127.0.0.1", hear()); Q(setsockopt(c, SOL_SOCKET, SO_LINGER, &lg, sizeof lg)); C(close(c)); step(); }
    step();
}
CASE_RAW(listener_closed_with_connections_waiting) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 8) : -1, c;
    if (server) { tell(port_of(l)); step(); wait_in(l); C(close(l)); step(); step(); }
    else { int port = hear(); c = connect_to(AF_INET, "127.0.0.1", port); C(send(c, "x", 1, 0)); step(); step(); wait_ev(c, 0); state(c); C(recv(c, buf, 1, 0)); struct sockaddr_storage a; socklen_t n = address(AF_INET, "127.0.0.1", port, &a); int s = socket(AF_INET, SOCK_STREAM, 0); C(connect(s, (void *)&a, n)); step(); }
}
CASE_RAW(listener_closed_connection_goes_on) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 8) : -1, c = pair_via(l, AF_INET, "127.0.0.1");
    if (server) close(l);
    talk_and_end(c);
}
CASE_RAW(two_listeners_one_port) {
    int a = -1, b = -1, one = 0, two = 0;
    if (server) {
        a = Q(socket(AF_INET, SOCK_STREAM, 0)); b = Q(socket(AF_INET, SOCK_STREAM, 0));
        struct sockaddr_storage s; socklen_t n = address(AF_INET, "127.0.0.1", 0, &s);
        C(set_int(a, SOL_SOCKET, SO_REUSEPORT, 1)); Q(bind(a, (void *)&s, n)); n = sizeof s; Q(getsockname(a, (void *)&s, &n)); C(bind(b, (void *)&s, n)); C(set_int(b, SOL_SOCKET, SO_REUSEPORT, 1)); C(bind(b, (void *)&s, n)); Q(listen(a, 64)); Q(listen(b, 64)); nonblock(a, 1); nonblock(b, 1);
        tell(port_of(a));
    }
    int port = server ? 0 : hear();
    for (int i = 0; i < 20; i++) {
        int c;
        if (server) { struct pollfd p[2] = {{a, POLLIN, 0}, {b, POLLIN, 0}}; Q(poll(p, 2, 10000)); if (p[0].revents) { c = Q(accept(a, NULL, NULL)); one++; } else { c = Q(accept(b, NULL, NULL)); two++; } nonblock(c, 0); get(c, 50, i); put(c, 50, i); }
        else { c = connect_to(AF_INET, "127.0.0.1", port); put(c, 50, i); get(c, 50, i); }
        close(c);
    }
    if (server) C(one + two);
}
CASE_RAW(backlog_full_then_served) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 3) : -1, c[3];
    if (server) { tell(port_of(l)); step(); for (int i = 0; i < 3; i++) { c[i] = Q(accept(l, NULL, NULL)); } }
    else { int p = hear(); for (int i = 0; i < 3; i++) { c[i] = connect_to(AF_INET, "127.0.0.1", p); } step(); }
    for (int i = 2; i >= 0; i--) talk(c[i]);
}
CASE_RAW(accept_blocks_with_timeout) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 3) : -1;
    if (server) { set_timeout(l, SO_RCVTIMEO, 120); long t = now_ms(); C(accept(l, NULL, NULL)); took(t, 120); set_timeout(l, SO_RCVTIMEO, 0); tell(port_of(l)); int c = CFD(accept(l, NULL, NULL)); talk(c); }
    else { int p = hear(); wait_peer_asleep(); talk(connect_to(AF_INET, "127.0.0.1", p)); }
}
CASE_RAW(deferred_accept) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 3) : -1, c;
    if (server) { C(set_int(l, SOL_TCP, TCP_DEFER_ACCEPT, 5)); tell(port_of(l)); c = Q(accept(l, NULL, NULL)); C(recv(c, buf, 100, MSG_DONTWAIT)); SHOW(buf, 5); step(); }
    else { c = connect_to(AF_INET, "127.0.0.1", hear()); C(send(c, "first", 5, 0)); step(); }
    talk(c);
}
CASE_RAW(fast_open) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 3) : -1, c;
    if (server) { Q(set_int(l, SOL_TCP, TCP_FASTOPEN, 5)); tell(port_of(l)); c = Q(accept(l, NULL, NULL)); C(recv(c, buf, 5, MSG_WAITALL)); SHOW(buf, 5); }
    else { struct sockaddr_storage a; socklen_t n = address(AF_INET, "127.0.0.1", hear(), &a); c = Q(socket(AF_INET, SOCK_STREAM, 0)); C(sendto(c, "first", 5, MSG_FASTOPEN, (void *)&a, n)); }
    talk_and_end(c);
}
CASE_RAW(fast_open_by_connect) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 3) : -1, c;
    if (server) { Q(set_int(l, SOL_TCP, TCP_FASTOPEN, 5)); tell(port_of(l)); c = Q(accept(l, NULL, NULL)); C(recv(c, buf, 5, MSG_WAITALL)); SHOW(buf, 5); }
    else { struct sockaddr_storage a; socklen_t n = address(AF_INET, "127.0.0.1", hear(), &a); c = Q(socket(AF_INET, SOCK_STREAM, 0)); C(set_int(c, SOL_TCP, TCP_FASTOPEN_CONNECT, 1)); C(connect(c, (void *)&a, n)); C(send(c, "first", 5, 0)); }
    talk_and_end(c);
}
CASE_RAW(server_speaks_first) {
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 3) : -1, c = pair_via(l, AF_INET, "127.0.0.1");
    for (int i = 0; i < 30; i++) { if (server) { Q(send(c, "220 ready\r\n", 11, 0)); long r = recv(c, buf, 4, 0); if (r != 4) C(r); } else { long r = read_full(c, buf, 11); if (r != 11) C(r); Q(send(c, "HELO", 4, 0)); } }
    talk_and_end(c);
}
CASE_RAW(datagrams_are_left_alone) {
    struct sockaddr_storage a;
    socklen_t n = address(AF_INET, "127.0.0.1", 0, &a);
    int s = Q(socket(AF_INET, SOCK_DGRAM, 0)), port;
    Q(bind(s, (void *)&a, n)); tell(port_of(s)); port = hear(); n = address(AF_INET, "127.0.0.1", port, &a);
    for (int i = 0; i < 10 + warm_n; i++) { if (server) { long r = recvfrom(s, buf, 100, 0, NULL, NULL); if (r != 20 + i) C(r); Q(sendto(s, buf, r, 0, (void *)&a, n)); } else { Q(sendto(s, buf, 20 + i, 0, (void *)&a, n)); long r = recv(s, buf, 100, 0); if (r != 20 + i) C(r); } }
    C(connect(s, (void *)&a, n)); step(); C(send(s, "", 0, 0)); C(send(s, "0123456789", 10, 0)); step(); wait_in(s); C(recv(s, buf, 4, 0)); C(recv(s, buf, 4, MSG_TRUNC)); C(recv(s, buf, 4, MSG_DONTWAIT));
}
CASE_RAW(unix_streams_are_left_alone) {
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    int l = -1, c;
    if (server) { l = Q(socket(AF_UNIX, SOCK_STREAM, 0)); snprintf(u.sun_path + 1, 90, "accel-diff-%d", getpid()); Q(bind(l, (void *)&u, sizeof u)); Q(listen(l, 4)); step(); c = Q(accept(l, NULL, NULL)); }
    else { step(); snprintf(u.sun_path + 1, 90, "accel-diff-%d", peer_pid); c = Q(socket(AF_UNIX, SOCK_STREAM, 0)); C(connect(c, (void *)&u, sizeof u)); }
    talk(c);
    struct ucred cr; socklen_t n = sizeof cr; C(getsockopt(c, SOL_SOCKET, SO_PEERCRED, &cr, &n)); T(cr.pid == peer_pid);
    step();
    if (server) close(c); else { wait_ev(c, POLLRDHUP); C(recv(c, buf, 1, 0)); C(send(c, "x", 1, 0)); }
}
CASE(second_connection_beside_the_first) {
    /* Two connections, bytes not mixed. */
    int c = another();
    for (int i = 0; i < 40; i++) { if (server) { get(fd, 10 + i, i); put(c, 20 + i, i); } else { put(fd, 10 + i, i); get(c, 20 + i, i); } }
    if (server) close(fd); 
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); }
    put(c, 1000, 1); get(c, 1000, 1);
}
