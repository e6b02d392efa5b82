/* signal(7): which calls are interrupted, which are restarted, and handlers that use the socket themselves. */
#include "harness.h"
#include <setjmp.h>

static char buf[1 << 20];
/* The client is about to block: the server waits for that, and sends the signal. */
static void strike(int s) { wait_peer_asleep(); kill(peer_pid, s); }

#define INTERRUPTED(name, call) CASE(name) { \
    struct iovec v = {buf, 10}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1}; struct mmsghdr mm = {.msg_hdr = m}; \
    if (server) { step(); strike(SIGUSR1); step(); Q(send(fd, "after", 5, 0)); step(); return; } \
    handle(SIGUSR1, 0); step(); C(call); C(usr1s); step(); wait_in(fd); C(recv(fd, buf, 100, 0)); SHOW(buf, 5); step(); }
INTERRUPTED(recv_interrupted, recv(fd, buf, 10, 0))
INTERRUPTED(read_interrupted, read(fd, buf, 10))
INTERRUPTED(readv_interrupted, readv(fd, &v, 1))
INTERRUPTED(recvmsg_interrupted, recvmsg(fd, &m, 0))
INTERRUPTED(recvmmsg_interrupted, recvmmsg(fd, &mm, 1, 0, NULL))
INTERRUPTED(recvfrom_interrupted, recvfrom(fd, buf, 10, 0, NULL, NULL))
INTERRUPTED(peek_interrupted, recv(fd, buf, 10, MSG_PEEK))
INTERRUPTED(recv_zero_interrupted, recv(fd, buf, 0, 0))

#define RESTARTED(name, call) CASE(name) { \
    struct iovec v = {buf, 10}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1}; \
    if (server) { step(); for (int i = 0; i < 3; i++) strike(SIGUSR1); wait_peer_asleep(); Q(send(fd, "restarted", 9, 0)); step(); return; } \
    handle(SIGUSR1, SA_RESTART); step(); C(call); SHOW(buf, 9); T(usr1s >= 1); step(); }
RESTARTED(recv_restarted, recv(fd, buf, 10, 0))
RESTARTED(read_restarted, read(fd, buf, 10))
RESTARTED(recvmsg_restarted, recvmsg(fd, &m, 0))
RESTARTED(waitall_restarted, recv(fd, buf, 9, MSG_WAITALL))

CASE(recv_with_timeout_is_not_restarted) {
    if (server) { step(); strike(SIGUSR1); step(); return; }
    handle(SIGUSR1, SA_RESTART); set_timeout(fd, SO_RCVTIMEO, 5000); step(); C(recv(fd, buf, 10, 0)); C(usr1s); step();
}
CASE(send_interrupted) {
    /* A send that has placed part of its bytes gives that count; one that has placed none, EINTR. */
    if (server) { step(); strike(SIGUSR1); step(); strike(SIGUSR1); step(); drain(fd, NULL); close(fd); return; }
    handle(SIGUSR1, 0); step();
    long r = send(fd, buf, sizeof buf, 0), total = 0;
    while (r == sizeof buf) r = send(fd, buf, sizeof buf, 0);
    T(r > 0 || (r == -1 && errno == EINTR)); 
    fill_up(fd);
    step(); C(send(fd, buf, 1000, 0)); C(usr1s); step(); C(shutdown(fd, SHUT_WR)); C(recv(fd, buf, 1, 0));
}
CASE(send_restarted) {
    if (server) { step(); strike(SIGUSR1); wait_peer_asleep(); tell(0); long n = drain(fd, NULL); T(n > 100000); close(fd); return; }
    fill_up(fd); handle(SIGUSR1, SA_RESTART); step(); C(send(fd, buf, 1000, 0)); hear(); C(usr1s); C(shutdown(fd, SHUT_WR)); C(recv(fd, buf, 1, 0));
}
CASE(accept_interrupted_and_restarted) {
    if (!server) { step(); strike(SIGUSR1); step(); strike(SIGUSR1); int c = another(); put(c, 10, 1); return; }
    handle(SIGUSR1, 0); step(); C(accept(listener, NULL, NULL)); handle(SIGUSR1, SA_RESTART); step(); int c = CFD(accept(listener, NULL, NULL)); get(c, 10, 1); C(usr1s);
}
CASE(ignored_and_blocked_signals_do_not_interrupt) {
    sigset_t b;
    if (server) { step(); strike(SIGUSR1); strike(SIGUSR2); strike(SIGCHLD); wait_peer_asleep(); Q(send(fd, "x", 1, 0)); step(); return; }
    signal(SIGUSR1, SIG_IGN); handle(SIGUSR2, 0); sigemptyset(&b); sigaddset(&b, SIGUSR2); Q(sigprocmask(SIG_BLOCK, &b, NULL)); step(); C(recv(fd, buf, 10, 0)); C(usr2s); Q(sigprocmask(SIG_UNBLOCK, &b, NULL)); C(usr2s); step();
}
CASE(stopped_and_continued) {
    struct epoll_event e = {.events = EPOLLIN}, g;
    int ep = epoll_create1(0);
    if (server) { step(); strike(SIGSTOP); nap_ms(20); kill(peer_pid, SIGCONT); wait_peer_asleep(); Q(send(fd, "x", 1, 0)); step(); step(); strike(SIGSTOP); nap_ms(20); kill(peer_pid, SIGCONT); step(); return; }
    step(); C(recv(fd, buf, 10, 0)); step(); Q(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)); step(); C(epoll_wait(ep, &g, 1, 10000)); step();
}
CASE(stopped_while_the_peer_sends) {
    if (server) { step(); strike(SIGSTOP); for (int i = 0; i < 500; i++) Q(send(fd, "0123456789", 10, 0)); nap_ms(10); kill(peer_pid, SIGCONT); step(); Q(shutdown(fd, SHUT_WR)); return; }
    step(); long n = 0, r; while (n < 5000 && (r = recv(fd, buf, 100, 0)) > 0) n += r; C(n); step(); C(drain(fd, NULL));
}
static int handler_fd = -1;
static volatile int handler_result;
static void sends(int s) { int e = errno; handler_result = send(handler_fd, "from the handler", 16, 0); errno = e; }
static void receives(int s) { int e = errno; static char b[100]; handler_result = recv(handler_fd, b, 100, MSG_DONTWAIT); errno = e; }
static void closes(int s) { int e = errno; handler_result = close(handler_fd); errno = e; }
static void use_handler(void (*f)(int), int flags) { struct sigaction sa = {.sa_handler = f, .sa_flags = flags}; Q(sigaction(SIGUSR1, &sa, NULL)); }
CASE(handler_sends_on_the_same_socket) {
    if (server) { step(); strike(SIGUSR1); C(recv(fd, buf, 16, MSG_WAITALL)); SHOW(buf, 16); wait_peer_asleep(); Q(send(fd, "reply", 5, 0)); step(); return; }
    handler_fd = fd; use_handler(sends, SA_RESTART); step(); C(recv(fd, buf, 100, 0)); SHOW(buf, 5); C(handler_result); step();
}
CASE(handler_sends_while_poll_waits) {
    if (server) { step(); strike(SIGUSR1); C(recv(fd, buf, 16, MSG_WAITALL)); Q(send(fd, "reply", 5, 0)); step(); return; }
    handler_fd = fd; use_handler(sends, SA_RESTART); step(); poll_mask(fd, POLLIN, 10000); wait_in(fd); C(recv(fd, buf, 100, 0)); C(handler_result); step();
}
CASE(handler_receives_on_the_same_socket) {
    if (server) { step(); strike(SIGUSR1); wait_peer_asleep(); Q(send(fd, "data", 4, 0)); step(); step(); Q(send(fd, "more", 4, 0)); step(); step(); return; }
    handler_fd = fd; use_handler(receives, SA_RESTART); step(); C(recv(fd, buf, 100, 0)); SHOW(buf, 4); C(handler_result); step(); step(); step(); wait_in(fd); raise(SIGUSR1); C(handler_result); C(recv(fd, buf, 100, MSG_DONTWAIT)); step();
}
CASE(handler_on_an_alternate_stack) {
    static char stack[65536];
    stack_t st = {.ss_sp = stack, .ss_size = sizeof stack};
    if (server) { step(); strike(SIGUSR1); C(recv(fd, buf, 16, MSG_WAITALL)); wait_peer_asleep(); Q(send(fd, "reply", 5, 0)); step(); return; }
    Q(sigaltstack(&st, NULL)); handler_fd = fd; use_handler(sends, SA_RESTART | SA_ONSTACK); step(); C(recv(fd, buf, 100, 0)); C(handler_result); step();
}
static sigjmp_buf out_of_here;
static void jumps(int s) { siglongjmp(out_of_here, 1); }
CASE(handler_jumps_out_of_a_blocked_recv) {
    if (server) { for (int i = 0; i < 3; i++) { step(); strike(SIGUSR1); step(); Q(send(fd, "after the jump", 14, 0)); } put(fd, 5000, 3); get(fd, 5000, 3); return; }
    use_handler(jumps, 0);
    for (volatile int i = 0; i < 3; i++) {
        step();
        if (!sigsetjmp(out_of_here, 1)) { if (i == 2) { struct pollfd p = {fd, POLLIN, 0}; poll(&p, 1, -1); } else recv(fd, buf, 100, i ? MSG_PEEK : 0); out("not reached"); }
        step(); C(recv(fd, buf, 14, MSG_WAITALL)); SHOW(buf, 14);
    }
    get(fd, 5000, 3); put(fd, 5000, 3);
}
CASE(timer_during_blocking_recv) {
    struct itimerval it = {{0, 30000}, {0, 30000}}, off = {{0, 0}, {0, 0}};
    if (server) { step(); step(); Q(send(fd, "x", 1, 0)); step(); return; }
    handle(SIGALRM, 0); step(); Q(setitimer(ITIMER_REAL, &it, NULL)); C(recv(fd, buf, 10, 0)); T(alarms >= 1); Q(setitimer(ITIMER_REAL, &off, NULL)); step(); C(recv(fd, buf, 10, 0)); step();
}
CASE(alarm_ends_a_wait) {
    struct itimerval it = {{0, 30000}, {0, 30000}}, off = {{0, 0}, {0, 0}};
    if (!server) {
        struct pollfd p = {fd, POLLIN, 0}; fd_set r; struct epoll_event e = {.events = EPOLLIN}, g; int ep = epoll_create1(0);
        handle(SIGALRM, SA_RESTART); Q(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)); Q(setitimer(ITIMER_REAL, &it, NULL)); C(poll(&p, 1, -1)); FD_ZERO(&r); FD_SET(fd, &r); C(select(fd + 1, &r, NULL, NULL, NULL)); C(epoll_wait(ep, &g, 1, -1)); C(nanosleep(&(struct timespec){5, 0}, NULL)); Q(setitimer(ITIMER_REAL, &off, NULL));
    }
    step(); put(fd, 100, 1); get(fd, 100, 1);
}
CASE(signal_storm_while_talking) {
    /* Every 300 microseconds a signal; no byte is lost or doubled. */
    struct itimerval it = {{0, 300}, {0, 300}}, off = {{0, 0}, {0, 0}};
    handle(SIGALRM, SA_RESTART); Q(setitimer(ITIMER_REAL, &it, NULL));
    for (int i = 0; i < 400; i++) {
        int n = 1 + (i * 131) % 3000; char b[3000], d[3000];
        fill(d, n, i);
        if (!server) { if (write_full(fd, d, n) != n) { out("write %d", i); break; } }
        if (read_full(fd, b, n) != n || memcmp(b, d, n)) { out("message %d differs", i); break; }
        if (server) { if (write_full(fd, b, n) != n) { out("write %d", i); break; } }
    }
    Q(setitimer(ITIMER_REAL, &off, NULL)); out("done"); put(fd, 200000, server); get(fd, 200000, !server);
}
CASE(signal_storm_without_restart) {
    struct itimerval it = {{0, 500}, {0, 500}}, off = {{0, 0}, {0, 0}};
    handle(SIGALRM, 0); Q(setitimer(ITIMER_REAL, &it, NULL));
    if (server) { put(fd, 3 << 20, 1); get(fd, 3 << 20, 2); } else { get(fd, 3 << 20, 1); put(fd, 3 << 20, 2); }
    Q(setitimer(ITIMER_REAL, &off, NULL));
}
CASE(handler_closes_the_socket) {
    if (server) { step(); strike(SIGUSR1); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); step(); return; }
    handler_fd = fd; use_handler(closes, 0); step(); C(recv(fd, buf, 10, 0)); C(handler_result); C(recv(fd, buf, 10, 0)); step();
}
CASE(errno_is_kept) {
    /* A call that works leaves errno alone. */
    errno = 77; int r = 0;
    if (!server) { send(fd, "x", 1, 0); r = errno; } step(); if (server) { wait_in(fd); errno = 77; recv(fd, buf, 1, 0); r = errno; struct pollfd p = {fd, POLLOUT, 0}; poll(&p, 1, 0); r = errno; }
    C(r); errno = 78; struct pollfd p = {fd, POLLIN, 0}; poll(&p, 1, 0); r = errno; C(r); errno = 79; int d = dup(fd); close(d); r = errno; C(r); errno = 80; fcntl(fd, F_GETFL); r = errno; C(r);
    errno = 81; set_int(fd, SOL_TCP, TCP_NODELAY, 1); r = errno; C(r); int ep = epoll_create1(0); errno = 82; struct epoll_event e = {.events = EPOLLIN}; epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e); epoll_wait(ep, &e, 1, 0); r = errno; C(r);
}
CASE(raised_signal_with_value_reaches_signalfd_like_waits) {
    /* sigtimedwait and the socket in one program. */
    sigset_t s;
    sigemptyset(&s); sigaddset(&s, SIGUSR1);
    if (server) { step(); wait_peer_asleep(); kill(peer_pid, SIGUSR1); step(); Q(send(fd, "x", 1, 0)); step(); return; }
    Q(sigprocmask(SIG_BLOCK, &s, NULL)); step(); C(sigwaitinfo(&s, NULL)); step(); C(recv(fd, buf, 1, 0)); step();
}
