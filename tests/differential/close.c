/* close(2), shutdown(2), SO_LINGER, and how the other side learns of it: EOF, EPIPE, ECONNRESET, readiness. */
#include "harness.h"

static char buf[1 << 20];

#define SHUT(name, how) CASE(name) { \
    if (server) { C(shutdown(fd, how)); state(fd); step(); step(); C(send(fd, "srv", 3, 0)); C(recv(fd, buf, 10, MSG_DONTWAIT)); C(recv(fd, buf, 10, MSG_DONTWAIT | MSG_PEEK)); state(fd); step(); step(); need(fd, 3); state(fd); C(recv(fd, buf, 10, MSG_DONTWAIT)); C(recv(fd, buf, 10, MSG_DONTWAIT)); so_error(fd); state(fd); step(); } \
    else { step(); if (how != SHUT_RD) wait_ev(fd, POLLRDHUP); state(fd); step(); step(); if (how == SHUT_RD) need(fd, 3); C(recv(fd, buf, 10, MSG_DONTWAIT)); C(send(fd, "cli", 3, 0)); step(); step(); state(fd); so_error(fd); } }
SHUT(shutdown_write, SHUT_WR)
SHUT(shutdown_read, SHUT_RD)

CASE(shutdown_both) {
    if (server) { C(shutdown(fd, SHUT_RDWR)); state(fd); step(); C(send(fd, "srv", 3, 0)); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, MSG_PEEK)); step(); step(); state(fd); so_error(fd); C(recv(fd, buf, 10, 0)); C(shutdown(fd, SHUT_RDWR)); step(); }
    else { step(); wait_ev(fd, POLLRDHUP); state(fd); C(recv(fd, buf, 10, 0)); step(); C(send(fd, "cli", 3, 0)); step(); state(fd); C(send(fd, "cli", 3, MSG_DONTWAIT) > 0 ? 1 : errno == EPIPE ? 1 : 0); step(); }
}
CASE(shutdown_both_by_both) {
    C(shutdown(fd, SHUT_WR));
    step();
    wait_ev(fd, POLLRDHUP);
    C(recv(fd, buf, 10, 0)); state(fd); C(shutdown(fd, SHUT_RD)); C(shutdown(fd, SHUT_RDWR)); C(send(fd, "x", 1, 0)); C(recv(fd, buf, 10, 0)); so_error(fd); state(fd);
}
CASE(shutdown_bad) {
    int l = listen_at(AF_INET, "127.0.0.1", 0, 1), u = socket(AF_INET, SOCK_STREAM, 0), f = open("/dev/null", O_RDWR);
    C(shutdown(fd, 3)); C(shutdown(fd, -1)); C(shutdown(u, SHUT_RD)); C(shutdown(u, SHUT_WR)); C(shutdown(u, SHUT_RDWR)); C(shutdown(f, SHUT_WR)); C(shutdown(-1, SHUT_WR)); C(shutdown(l, SHUT_WR)); 
    state(fd); 
    step();
    if (server) C(send(fd, "still", 5, 0)); else { C(recv(fd, buf, 5, MSG_WAITALL)); SHOW(buf, 5); }
}
CASE(shutdown_of_a_listener) {
    int l = listen_at(AF_INET, "127.0.0.1", 0, 1);
    state(l); C(shutdown(l, SHUT_RD)); state(l); nonblock(l, 1); C(accept(l, NULL, NULL)); C(listen(l, 1)); C(accept(l, NULL, NULL)); state(l);
}
CASE(shutdown_read_with_data_there) {
    if (server) { C(send(fd, "unread", 6, 0)); step(); step(); C(send(fd, " and more", 9, 0)); step(); step(); C(shutdown(fd, SHUT_WR)); step(); }
    else {
        step(); need(fd, 6);
        C(shutdown(fd, SHUT_RD)); state(fd); C(recv(fd, buf, 3, 0)); SHOW(buf, 3); C(recv(fd, buf, 100, MSG_PEEK)); 
        step(); step(); need(fd, 12);
        C(recv(fd, buf, 100, 0)); SHOW(buf, 12); C(recv(fd, buf, 100, 0)); state(fd);
        step(); step(); C(recv(fd, buf, 100, 0)); state(fd);
    }
}
CASE(shutdown_read_twice_then_use) {
    if (server) { C(shutdown(fd, SHUT_RD)); C(shutdown(fd, SHUT_RD)); for (int i = 0; i < 5; i++) { C(send(fd, "reply", 5, 0)); step(); step(); } }
    else for (int i = 0; i < 5; i++) { step(); C(recv(fd, buf, 5, MSG_WAITALL)); step(); }
}
CASE(half_close_then_large_reply) {
    if (!server) { C(send(fd, "request", 7, 0)); C(shutdown(fd, SHUT_WR)); uint32_t h; C(drain(fd, &h)); out("%08x", h); C(close(fd)); }
    else { C(drain(fd, NULL)); put(fd, 10 << 20, 5); C(close(fd)); }
}
CASE(half_close_with_large_request) {
    uint32_t h;
    if (!server) { put(fd, 10 << 20, 5); C(shutdown(fd, SHUT_WR)); C(recv(fd, buf, 100, 0)); SHOW(buf, 2); C(recv(fd, buf, 100, 0)); }
    else { C(drain(fd, &h)); out("%08x", h); C(send(fd, "ok", 2, 0)); C(close(fd)); }
}
CASE(half_close_ping_pong_after) {
    /* One direction over, the other goes on in small pieces. */
    if (server) C(shutdown(fd, SHUT_WR));
    step();
    for (int i = 0; i < 50; i++) {
        if (!server) { snprintf(buf, 20, "piece %04d", i); Q(send(fd, buf, 10, 0)); step(); }
        else { step(); need(fd, 10); long r = recv(fd, buf, 100, 0); if (r != 10 || atoi(buf + 6) != i) { out("piece %d: %ld", i, r); } }
        step();
    }
    if (!server) { C(recv(fd, buf, 10, 0)); C(close(fd)); } else C(drain(fd, NULL));
}
CASE(close_clean) {
    if (server) { C(close(fd)); C(send(fd, "x", 1, 0)); C(recv(fd, buf, 1, 0)); C(shutdown(fd, SHUT_WR)); C(close(fd)); step(); step(); }
    else { step(); wait_ev(fd, POLLRDHUP); state(fd); readable_bytes(fd); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0)); so_error(fd); state(fd); step(); }
}
CASE(close_after_data) {
    if (server) { C(send(fd, "last words", 10, 0)); C(close(fd)); step(); }
    else { step(); wait_ev(fd, POLLRDHUP); state(fd); readable_bytes(fd); C(recv(fd, buf, 4, 0)); SHOW(buf, 4); state(fd); C(recv(fd, buf, 100, 0)); SHOW(buf, 6); C(recv(fd, buf, 100, 0)); state(fd); }
}
CASE(close_after_large_data) {
    if (server) { put(fd, 6 << 20, 2); C(close(fd)); }
    else { uint32_t h; wait_peer_asleep(); C(drain(fd, &h)); out("%08x", h); }
}
CASE(close_with_unread_data) {
    if (server) { step(); need(fd, 6); C(close(fd)); step(); step(); }
    else { C(send(fd, "unread", 6, 0)); step(); step(); wait_ev(fd, 0); state(fd); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0)); C(send(fd, "x", 1, 0)); so_error(fd); state(fd); step(); }
}
CASE(close_with_partly_read_data) {
    if (server) { step(); need(fd, 6); C(recv(fd, buf, 3, 0)); C(close(fd)); step(); step(); }
    else { C(send(fd, "unread", 6, 0)); step(); step(); wait_ev(fd, 0); so_error(fd); C(recv(fd, buf, 10, 0)); C(send(fd, "x", 1, 0)); step(); }
}
CASE(close_with_unread_data_after_sending) {
    /* The other side reads what was sent before the reset, and only then hears of it. */
    if (server) { C(send(fd, "answer", 6, 0)); step(); step(); need(fd, 6); C(close(fd)); step(); step(); }
    else { step(); need(fd, 6); C(send(fd, "unread", 6, 0)); step(); step(); wait_ev(fd, 0); state(fd); C(recv(fd, buf, 3, 0)); SHOW(buf, 3); C(recv(fd, buf, 10, 0)); SHOW(buf, 3); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0)); step(); }
}
CASE(peer_reset_while_blocked_in_recv) {
    if (server) { step(); need(fd, 6); wait_peer_asleep(); C(close(fd)); step(); }
    else { C(send(fd, "unread", 6, 0)); step(); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0)); so_error(fd); step(); }
}
CASE(close_while_peer_is_blocked_in_recv) {
    if (server) { wait_peer_asleep(); C(close(fd)); step(); }
    else { C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0)); step(); }
}
CASE(close_while_peer_is_blocked_in_send) {
    if (server) { wait_peer_asleep(); C(close(fd)); step(); }
    else {
        long r = 0, n = 0;
        memset(buf, 'b', sizeof buf);
        while ((r = send(fd, buf, sizeof buf, 0)) == sizeof buf) n++;
        /* The last call gives what it had placed, or the error. */
        if (r >= 0) { out("partial"); r = send(fd, buf, 10, 0); } else out("error at once");
        out("then error %s, one SIGPIPE or none: %d", errno == ECONNRESET || errno == EPIPE ? "of the connection" : strerrorname_np(errno), pipes <= 1);
        C(send(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0));
        step();
    }
}
CASE(linger_zero_is_a_reset) {
    struct linger l = {1, 0}, got = {9, 9};
    socklen_t n = sizeof got;
    if (server) { C(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l)); C(getsockopt(fd, SOL_SOCKET, SO_LINGER, &got, &n)); out("%d %d", got.l_onoff, got.l_linger); C(close(fd)); step(); step(); }
    else { step(); wait_ev(fd, 0); state(fd); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0)); C(send(fd, "x", 1, 0)); so_error(fd); state(fd); step(); }
}
CASE(linger_zero_after_sending) {
    struct linger l = {1, 0};
    if (server) { C(send(fd, "data", 4, 0)); step(); step(); C(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l)); C(close(fd)); step(); step(); }
    else { step(); need(fd, 4); step(); step(); wait_ev(fd, 0); state(fd); readable_bytes(fd); C(recv(fd, buf, 10, 0)); SHOW(buf, 4); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0)); step(); }
}
CASE(linger_on_close_waits_for_nothing) {
    struct linger l = {1, 1};
    if (server) { C(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l)); C(send(fd, "data", 4, 0)); long t = now_ms(); C(close(fd)); T(now_ms() - t < 900); step(); }
    else { C(recv(fd, buf, 10, 0)); SHOW(buf, 4); C(close(fd)); step(); }
}
CASE(linger_with_unread_data) {
    struct linger l = {1, 1};
    if (server) { step(); need(fd, 3); C(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l)); C(close(fd)); step(); }
    else { C(send(fd, "abc", 3, 0)); step(); step(); wait_ev(fd, 0); C(recv(fd, buf, 10, 0)); }
}
CASE(linger_off_again) {
    struct linger l = {1, 0};
    if (server) { Q(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l)); l.l_onoff = 0; C(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l)); C(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, 4)); C(send(fd, "data", 4, 0)); C(close(fd)); step(); }
    else { step(); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 10, 0)); SHOW(buf, 4); C(recv(fd, buf, 10, 0)); }
}
CASE(exit_without_close) {
    if (server) { C(send(fd, "bye", 3, 0)); tell(1); exit(0); }
    hear(); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 10, 0)); SHOW(buf, 3); C(recv(fd, buf, 10, 0)); so_error(fd);
}
CASE(exit_with_unread_data) {
    if (server) { step(); need(fd, 6); C(send(fd, "bye", 3, 0)); tell(1); _exit(3); }
    C(send(fd, "unread", 6, 0)); step(); hear(); wait_ev(fd, 0); C(recv(fd, buf, 10, 0)); SHOW(buf, 3); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0));
}
CASE(killed_after_sending) {
    if (server) { C(send(fd, "famous last words", 17, 0)); C(send(fd, "...", 3, 0)); tell(1); raise(SIGKILL); }
    hear(); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 100, 0)); SHOW(buf, 20); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0));
}
CASE(killed_with_unread_data) {
    if (server) { step(); need(fd, 6); tell(1); raise(SIGKILL); }
    C(send(fd, "unread", 6, 0)); step(); hear(); wait_ev(fd, 0); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0)); C(send(fd, "x", 1, 0));
}
CASE(killed_while_peer_sleeps) {
    if (server) { C(send(fd, "abc", 3, 0)); step(); step(); wait_peer_asleep(); raise(SIGSEGV); }
    step(); C(recv(fd, buf, 3, MSG_WAITALL)); step(); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0));
}
CASE(aborted_in_the_middle_of_bulk) {
    if (server) { fill(buf, 1000, 3); for (int i = 0; i < 300; i++) Q(write_full(fd, buf, 1000)); tell(1); abort(); }
    hear();
    long n = drain(fd, NULL); C(n);
}
CASE(names_after_peer_close) {
    struct sockaddr_storage a;
    socklen_t l;
#define NAMES() l = sizeof a; C(getpeername(fd, (void *)&a, &l)); l = sizeof a; C(getsockname(fd, (void *)&a, &l))
    if (server) { C(close(fd)); step(); step(); }
    else { NAMES(); step(); wait_ev(fd, POLLRDHUP); NAMES(); C(recv(fd, buf, 1, 0)); NAMES(); C(send(fd, "x", 1, 0)); wait_ev(fd, 0); NAMES(); C(l); C(shutdown(fd, SHUT_RDWR)); step(); }
}
CASE(names_after_shutdown) {
    struct sockaddr_storage a;
    socklen_t l;
    C(shutdown(fd, SHUT_WR)); step(); wait_ev(fd, POLLRDHUP | POLLHUP);
    l = sizeof a; C(getsockname(fd, (void *)&a, &l)); C(a.ss_family);
}
CASE(disconnect_by_unspec_and_connect_again) {
    struct sockaddr un = {.sa_family = AF_UNSPEC};
    if (server) { step(); wait_ev(fd, 0); state(fd); C(recv(fd, buf, 10, 0)); close(fd); step(); int c = accept(listener, NULL, NULL); warm(c); get(c, 5000, 7); put(c, 5000, 8); close(c); }
    else {
        C(connect(fd, &un, sizeof un)); state(fd); C(recv(fd, buf, 1, MSG_DONTWAIT)); C(send(fd, "x", 1, 0)); 
        struct sockaddr_storage a; socklen_t l = sizeof a; C(getpeername(fd, (void *)&a, &l));
        step(); step();
        C(connect(fd, (void *)&peer_addr, peer_addr_len)); warm(fd); put(fd, 5000, 7); get(fd, 5000, 8); C(recv(fd, buf, 1, 0));
    }
}
CASE(reset_while_polling) {
    struct linger l = {1, 0};
    if (server) { wait_peer_asleep(); Q(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l)); C(close(fd)); step(); }
    else { poll_mask(fd, POLLIN, 5000); poll_mask(fd, 0, 0); C(recv(fd, buf, 10, 0)); poll_mask(fd, POLLIN, 0); step(); }
}
CASE(reset_seen_by_write_first) {
    struct linger l = {1, 0};
    if (server) { Q(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l)); C(close(fd)); step(); step(); }
    else { step(); wait_ev(fd, 0); C(write(fd, "x", 1)); C(write(fd, "x", 1)); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, 0)); step(); }
}
CASE(data_crossing_a_close) {
    /* The client keeps sending while the server closes: error in the end, never a hang. */
    if (server) { get(fd, 1000, 1); C(close(fd)); step(); }
    else { put(fd, 1000, 1); fill(buf, 1000, 2); long r; int n = 0; while ((r = send(fd, buf, 1000, 0)) > 0 && n++ < 1000000) {} T(errno == EPIPE || errno == ECONNRESET); step(); }
}
CASE(fd_number_used_again) {
    int old = fd;
    C(send(fd, "old", 3, 0)); step(); need(fd, 3);
    if (server) { C(recv(fd, buf, 3, 0)); }
    else { C(recv(fd, buf, 3, 0)); }
    step();
    close(fd);
    int f = open("/dev/zero", O_RDWR); T(f == old); memset(buf, 1, 8); C(read(f, buf, 8)); SHOW(buf, 8); C(write(f, buf, 8)); state(f); close(f);
    int p[2]; Q(pipe(p)); T(p[0] == old); C(write(p[1], "pipe", 4)); C(read(p[0], buf, 100)); SHOW(buf, 4); close(p[0]); close(p[1]);
    step();
    fd = another(); T(fd == old); warm(fd); put(fd, 5000, 1); get(fd, 5000, 1); C(recv(fd, buf, 10, MSG_DONTWAIT));
    step();
}
CASE(many_short_connections) {
    long total = 0;
    for (int i = 0; i < 100; i++) {
        int c = another();
        if (server) { long r = read_full(c, buf, 100); Q(write_full(c, buf, r)); close(c); }
        else { fill(buf, 100, i); uint32_t h = hash(buf, 100); Q(write_full(c, buf, 100)); long r = read_full(c, buf, 100); if (r != 100 || hash(buf, 100) != h) out("connection %d: %ld", i, r); total += r; if (recv(c, buf, 1, 0)) out("connection %d: no EOF", i); close(c); }
    }
    C(total);
    put(fd, 100, 3); get(fd, 100, 3);
}
