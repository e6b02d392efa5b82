/* Urgent data, tcp(7) and send(2): one byte out of band, its mark, and who is told of it. */
#include "harness.h"

static char buf[4096];
static void at_mark(int fd) { int a = -1; int r = ioctl(fd, SIOCATMARK, &a); out("SIOCATMARK = %d, %d; sockatmark = %d", r, a, sockatmark(fd)); }
#define URGENT_THERE() do { step(); if (!server) wait_ev(fd, POLLPRI); } while (0)

CASE(urgent_byte_apart) {
    if (server) { C(send(fd, "abc", 3, 0)); C(send(fd, "d", 1, MSG_OOB)); }
    URGENT_THERE();
    if (!server) {
        state(fd); at_mark(fd); readable_bytes(fd);
        C(recv(fd, buf, 10, MSG_OOB)); SHOW(buf, 1); state(fd); C(recv(fd, buf, 10, MSG_OOB));
        C(recv(fd, buf, 10, 0)); SHOW(buf, 3); at_mark(fd); state(fd);
        C(recv(fd, buf, 10, MSG_DONTWAIT)); at_mark(fd);
    }
    step();
}
CASE(urgent_byte_peeked) {
    if (server) { C(send(fd, "xyz", 3, MSG_OOB)); }
    URGENT_THERE();
    if (!server) { C(recv(fd, buf, 10, MSG_OOB | MSG_PEEK)); SHOW(buf, 1); C(recv(fd, buf, 10, MSG_OOB | MSG_PEEK)); C(recv(fd, buf, 10, MSG_OOB)); SHOW(buf, 1); C(recv(fd, buf, 10, MSG_OOB | MSG_PEEK)); C(recv(fd, buf, 10, 0)); SHOW(buf, 2); }
    step();
}
CASE(urgent_byte_inline) {
    if (!server) C(set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1));
    step();
    if (server) { C(send(fd, "abc", 3, 0)); C(send(fd, "d", 1, MSG_OOB)); C(send(fd, "efg", 3, 0)); }
    URGENT_THERE();
    if (!server) {
        need(fd, 3);
        at_mark(fd); C(recv(fd, buf, 10, MSG_OOB));
        C(recv(fd, buf, 10, 0)); SHOW(buf, 3); at_mark(fd); state(fd);
        need(fd, 4);
        C(recv(fd, buf, 10, 0)); SHOW(buf, 4); at_mark(fd); state(fd);
    }
    step();
}
CASE(reading_stops_at_the_mark) {
    if (server) { C(send(fd, "before", 6, 0)); C(send(fd, "!", 1, MSG_OOB)); C(send(fd, "after", 5, 0)); }
    step();
    URGENT_THERE();
    if (!server) {
        for (int i = 0; i < 5; i++) { at_mark(fd); long r = C(recv(fd, buf, 100, MSG_DONTWAIT)); if (r > 0) SHOW(buf, r); }
        C(recv(fd, buf, 10, MSG_OOB)); 
    }
    step();
}
CASE(waitall_and_the_mark) {
    if (server) { C(send(fd, "before", 6, 0)); C(send(fd, "!", 1, MSG_OOB)); C(send(fd, "after", 5, 0)); }
    step();
    URGENT_THERE();
    if (!server) { long r = C(recv(fd, buf, 11, MSG_WAITALL)); SHOW(buf, r); if (r < 11) { r = C(recv(fd, buf, 11 - r, MSG_WAITALL)); SHOW(buf, r); } }
    step();
}
CASE(second_urgent_byte_replaces_the_first) {
    if (server) { C(send(fd, "1", 1, MSG_OOB)); C(send(fd, "ab", 2, 0)); C(send(fd, "2", 1, MSG_OOB)); C(send(fd, "cd", 2, 0)); }
    step();
    URGENT_THERE();
    if (!server) {
        C(recv(fd, buf, 1, MSG_OOB)); SHOW(buf, 1);
        for (int i = 0; i < 4; i++) { at_mark(fd); long r = C(recv(fd, buf, 100, MSG_DONTWAIT)); if (r > 0) SHOW(buf, r); }
    }
    step();
}
CASE(urgent_none) {
    if (!server) { C(recv(fd, buf, 1, MSG_OOB)); C(recv(fd, buf, 1, MSG_OOB | MSG_DONTWAIT)); at_mark(fd); C(set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1)); C(get_int(fd, SOL_SOCKET, SO_OOBINLINE)); C(recv(fd, buf, 1, MSG_OOB)); state(fd); }
    step();
    if (server) C(shutdown(fd, SHUT_WR));
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, MSG_OOB)); C(set_int(fd, SOL_SOCKET, SO_OOBINLINE, 0)); C(recv(fd, buf, 1, MSG_OOB)); }
    step();
}
CASE(urgent_wakes_poll) {
    if (server) { wait_peer_asleep(); C(send(fd, "!", 1, MSG_OOB)); step(); }
    else { poll_mask(fd, POLLPRI, 5000); poll_mask(fd, POLLIN, 0); C(recv(fd, buf, 1, MSG_OOB)); SHOW(buf, 1); poll_mask(fd, POLLPRI | POLLIN, 0); step(); }
}
CASE(urgent_in_epoll) {
    int ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN | EPOLLPRI, .data.u32 = 5}, got[4];
    if (!server) { Q(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)); C(epoll_wait(ep, got, 4, 0)); }
    step();
    if (server) { wait_peer_asleep(); C(send(fd, "ab!", 3, MSG_OOB)); }
    else {
        C(epoll_wait(ep, got, 4, 5000)); need(fd, 2); C(epoll_wait(ep, got, 4, 0)); out("%s", mask(got[0].events));
        C(recv(fd, buf, 1, MSG_OOB)); SHOW(buf, 1); C(epoll_wait(ep, got, 4, 0)); out("%s", mask(got[0].events));
        C(recv(fd, buf, 10, 0)); SHOW(buf, 2); C(epoll_wait(ep, got, 4, 0));
    }
    step();
}
CASE(urgent_in_epoll_edge) {
    int ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLPRI | EPOLLET, .data.u32 = 5}, got[4];
    if (!server) { Q(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)); C(epoll_wait(ep, got, 4, 0)); }
    step();
    if (server) { C(send(fd, "!", 1, MSG_OOB)); }
    URGENT_THERE();
    if (!server) { C(epoll_wait(ep, got, 4, 5000)); out("%s", mask(got[0].events)); C(epoll_wait(ep, got, 4, 0)); C(recv(fd, buf, 1, MSG_OOB)); }
    step();
}
CASE(urgent_in_select) {
    fd_set r, e;
    if (server) { wait_peer_asleep(); C(send(fd, "!", 1, MSG_OOB)); step(); }
    else {
        FD_ZERO(&r); FD_ZERO(&e); FD_SET(fd, &r); FD_SET(fd, &e);
        struct timeval tv = {5, 0};
        C(select(fd + 1, NULL, NULL, &e, &tv)); C(!!FD_ISSET(fd, &e));
        tv = (struct timeval){0, 0}; C(select(fd + 1, &r, NULL, NULL, &tv));
        C(recv(fd, buf, 1, MSG_OOB)); FD_SET(fd, &e); C(select(fd + 1, NULL, NULL, &e, &tv)); step();
    }
}
CASE(urgent_signal) {
    handle(SIGURG, SA_RESTART);
    if (!server) C(fcntl(fd, F_SETOWN, getpid()));
    step();
    if (server) { C(send(fd, "ab", 2, 0)); C(send(fd, "!", 1, MSG_OOB)); }
    URGENT_THERE();
    if (!server) { C(urgs); T(fcntl(fd, F_GETOWN) == getpid()); C(recv(fd, buf, 10, 0)); SHOW(buf, 2); C(recv(fd, buf, 10, MSG_OOB)); SHOW(buf, 1); }
    step();
}
CASE(urgent_then_half_close) {
    if (server) { C(send(fd, "data", 4, 0)); C(send(fd, "!", 1, MSG_OOB)); C(shutdown(fd, SHUT_WR)); }
    URGENT_THERE();
    if (!server) { wait_ev(fd, POLLRDHUP); state(fd); C(recv(fd, buf, 10, 0)); SHOW(buf, 4); state(fd); C(recv(fd, buf, 10, MSG_OOB)); C(recv(fd, buf, 10, 0)); state(fd); }
    step();
}
CASE(urgent_both_ways_with_traffic) {
    for (int i = 0; i < 5; i++) {
        put(fd, 1000 + i, i);
        C(send(fd, "!", 1, MSG_OOB));
        step();
        get(fd, 1000 + i, i);
        wait_ev(fd, POLLPRI);
        C(recv(fd, buf, 1, MSG_OOB)); SHOW(buf, 1);
        step();
    }
    put(fd, 100, 1); get(fd, 100, 1);
}
CASE(urgent_sendmsg) {
    struct iovec v[] = {{"abc", 3}, {"def", 3}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2}, in;
    if (server) C(sendmsg(fd, &m, MSG_OOB));
    URGENT_THERE();
    if (!server) {
        struct iovec w = {buf, 100};
        in = (struct msghdr){.msg_iov = &w, .msg_iovlen = 1};
        C(recvmsg(fd, &in, MSG_OOB)); out("flags %#x", in.msg_flags); SHOW(buf, 1);
        C(recvmsg(fd, &in, 0)); out("flags %#x", in.msg_flags); SHOW(buf, 5);
        w.iov_len = 0; C(recvmsg(fd, &in, MSG_OOB | MSG_DONTWAIT));
    }
    step();
}
