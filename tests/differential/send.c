/* send(2), write(2), writev(2), sendmsg(2), sendmmsg(2): results, flags, SIGPIPE, full buffers. */
#include "harness.h"

static char buf[16 << 20];
/* What the server has sent so far is all there: the client takes it in one call. */
#define TAKE(n) do { step(); if (!server) { if (n) need(fd, n); long got_ = recv(fd, buf, 4096, MSG_DONTWAIT); out("received %ld", got_); if (got_ > 0) SHOW(buf, got_); } step(); } while (0)

CASE(send_variants) {
    struct iovec v[] = {{"writev ", 7}, {"two", 3}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0x7f000001)};
    if (server) C(send(fd, "send", 4, 0));
    TAKE(4);
    if (server) C(write(fd, "write", 5));
    TAKE(5);
    if (server) C(writev(fd, v, 2));
    TAKE(10);
    if (server) C(sendmsg(fd, &m, 0));
    TAKE(10);
    if (server) C(sendto(fd, "sendto", 6, 0, NULL, 0));
    TAKE(6);
    if (server) C(sendto(fd, "sendto", 6, 0, (void *)&a, sizeof a));
    TAKE(6);
    if (server) C(pwritev2(fd, v, 2, -1, 0));
    TAKE(10);
    if (server) { C(pwritev2(fd, v, 2, 0, 0)); C(pwritev(fd, v, 2, 0)); C(pwrite(fd, "x", 1, 0)); C(pwritev2(fd, v, 2, -1, 0x40000000)); C(pwritev2(fd, v, 2, -1, RWF_NOWAIT)); }
    TAKE(0);
}
CASE(send_flags) {
    static const int flags[] = {MSG_DONTWAIT, MSG_NOSIGNAL, MSG_EOR, MSG_DONTROUTE, MSG_CONFIRM, MSG_WAITALL, MSG_PEEK, MSG_TRUNC, MSG_ZEROCOPY, MSG_CMSG_CLOEXEC, MSG_PROXY, 0x00100000, MSG_DONTWAIT | MSG_NOSIGNAL};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (server) { errno = 0; long r = send(fd, "0123456789", 10, flags[i]); out("send flags %#x = %ld %s", flags[i], r, r < 0 ? strerrorname_np(errno) : ""); tell(r); }
        else { int r = hear(); if (r > 0) { long g = recv(fd, buf, r, MSG_WAITALL); out("received %ld", g); SHOW(buf, g); } }
        step();
    }
    C(recv(fd, buf, 10, MSG_DONTWAIT));
}
CASE(send_fastopen_on_connected) {
    struct sockaddr_storage a;
    socklen_t l = sizeof a;
    if (server) { Q(getpeername(fd, (void *)&a, &l)); C(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&a, l)); C(sendto(fd, "x", 1, MSG_FASTOPEN, NULL, 0)); }
    step();
    C(recv(fd, buf, 10, MSG_DONTWAIT));
}
CASE(zero_length_sends) {
    struct iovec v[] = {{NULL, 0}, {"", 0}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2}, none = {0};
    if (server) { C(send(fd, "", 0, 0)); C(send(fd, NULL, 0, 0)); C(write(fd, "", 0)); C(write(fd, NULL, 0)); C(writev(fd, v, 2)); C(writev(fd, v, 0)); C(writev(fd, NULL, 0)); C(sendmsg(fd, &m, 0)); C(sendmsg(fd, &none, 0)); C(send(fd, "", 0, MSG_DONTWAIT)); C(send(fd, "", 0, MSG_OOB)); }
    step();
    if (!server) { state(fd); C(recv(fd, buf, 10, MSG_DONTWAIT)); }
    step();
    if (server) C(shutdown(fd, SHUT_WR));
    step();
    if (server) { C(send(fd, "", 0, 0)); C(write(fd, "", 0)); C(send(fd, NULL, 0, MSG_NOSIGNAL)); }
    else { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 10, 0)); }
}
CASE(send_faults) {
    struct iovec v[] = {{"good ", 5}, {(void *)-1, 5}}, w[] = {{"abc", 3}, {NULL, 0}, {"def", 3}};
    struct msghdr m = {.msg_iov = (void *)-1, .msg_iovlen = 2};
    if (server) {
        C(send(fd, NULL, 5, 0)); C(send(fd, (void *)-1, 5, 0)); C(write(fd, (void *)-1, 5)); C(write(fd, NULL, 5)); C(writev(fd, v, 2)); C(writev(fd, (void *)-1, 2)); C(sendmsg(fd, &m, 0)); C(sendmsg(fd, NULL, 0)); C(sendmsg(fd, (void *)-1, 0));
        C(sendto(fd, "x", 1, 0, (void *)-1, 16)); C(sendto(fd, "x", 1, 0, NULL, 5)); C(sendto(fd, "x", 1, 0, (void *)v, 1000));
        delivered(fd);
    }
    step();
    if (!server) { long r = recv(fd, buf, 100, MSG_DONTWAIT); out("leaked %ld", r); if (r > 0) SHOW(buf, r); }
    step();
    if (server) C(writev(fd, w, 3));
    TAKE(6);
}
CASE(send_across_an_unmapped_page) {
    /* The kernel may take what came before the fault; whatever it says it took must arrive, and no more. */
    char *page = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(page, 'p', 2 * 4096);
    Q(munmap(page + 2 * 4096, 4096));
    if (server) { errno = 0; long r = send(fd, page, 3 * 4096, 0); T((r == -1 && errno == EFAULT) || (r > 0 && r <= 8192)); tell(r > 0 ? r : 0); C(send(fd, "end", 3, 0)); }
    else { int n = hear(); long r = recv(fd, buf, n + 3, MSG_WAITALL); T(r == n + 3); SHOW(buf + n, 3); }
}
CASE(iovec_limits) {
    static struct iovec v[1025];
    for (int i = 0; i < 1025; i++) v[i] = (struct iovec){"abcdefghij" + i % 10, 1};
    struct iovec big = {buf, (size_t)-1}, two[] = {{buf, SSIZE_MAX}, {buf, 10}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 1025};
    if (server) { C(writev(fd, v, 1025)); C(sendmsg(fd, &m, 0)); m.msg_iovlen = (size_t)-1; C(sendmsg(fd, &m, 0)); C(writev(fd, v, -1)); C(writev(fd, &big, 1)); m = (struct msghdr){.msg_iov = &big, .msg_iovlen = 1}; C(sendmsg(fd, &m, 0)); C(writev(fd, v, 1024)); }
    TAKE(1024);
    if (server) { m = (struct msghdr){.msg_iov = v, .msg_iovlen = 1024}; C(sendmsg(fd, &m, 0)); }
    TAKE(1024);
}
CASE(sendmsg_control_data) {
    union { char b[CMSG_SPACE(sizeof(int))]; struct cmsghdr h; } c = {0};
    struct iovec v = {"data", 4};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
    if (server) {
        c.h.cmsg_len = CMSG_LEN(sizeof(int));
        c.h.cmsg_level = SOL_SOCKET; c.h.cmsg_type = 0x7777; C(sendmsg(fd, &m, 0));
        c.h.cmsg_level = SOL_IP; c.h.cmsg_type = IP_TTL; C(sendmsg(fd, &m, 0));
    }
    TAKE(4);
    if (server) { c.h.cmsg_level = SOL_SOCKET; c.h.cmsg_type = SCM_RIGHTS; *(int *)CMSG_DATA(&c.h) = 0; C(sendmsg(fd, &m, 0)); }
    TAKE(4);
    if (server) { c.h.cmsg_len = 3; C(sendmsg(fd, &m, 0)); c.h.cmsg_len = 1000; C(sendmsg(fd, &m, 0)); m.msg_control = (void *)-1; C(sendmsg(fd, &m, 0)); m.msg_controllen = 0; C(sendmsg(fd, &m, 0)); }
    TAKE(4);
}
CASE(sendmmsg_several) {
    struct iovec v[3] = {{"one ", 4}, {"two ", 4}, {"three", 5}};
    struct mmsghdr m[3];
    for (int i = 0; i < 3; i++) m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &v[i], .msg_iovlen = 1}, .msg_len = 77};
    if (server) { C(sendmmsg(fd, m, 3, 0)); for (int i = 0; i < 3; i++) C(m[i].msg_len); }
    TAKE(13);
    if (server) { C(sendmmsg(fd, m, 0, 0)); v[1].iov_base = (void *)-1; C(sendmmsg(fd, m, 3, 0)); C(m[0].msg_len); }
    TAKE(4);
    if (server) { C(sendmmsg(fd, m + 1, 2, 0)); C(sendmmsg(fd, (void *)-1, 2, 0)); C(sendmmsg(fd, m + 2, 1, MSG_DONTWAIT | MSG_NOSIGNAL)); C(m[2].msg_len); }
    TAKE(5);
}
CASE(message_more) {
    if (server) { C(send(fd, "part1 ", 6, MSG_MORE)); C(send(fd, "part2", 5, 0)); }
    TAKE(11);
    if (server) { C(send(fd, "a", 1, MSG_MORE)); C(send(fd, "b", 1, MSG_MORE)); C(shutdown(fd, SHUT_WR)); }
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 100, 0)); SHOW(buf, 2); C(recv(fd, buf, 100, 0)); }
}
CASE(message_more_alone_arrives_in_the_end) {
    if (server) { C(send(fd, "alone", 5, MSG_MORE)); step(); }
    else { C(recv(fd, buf, 100, 0)); SHOW(buf, 5); step(); }
}
CASE(cork) {
    if (server) { C(set_int(fd, SOL_TCP, TCP_CORK, 1)); C(get_int(fd, SOL_TCP, TCP_CORK)); C(send(fd, "one ", 4, 0)); C(write(fd, "two ", 4)); C(send(fd, "three", 5, 0)); C(set_int(fd, SOL_TCP, TCP_CORK, 0)); }
    TAKE(13);
    if (server) { C(set_int(fd, SOL_TCP, TCP_CORK, 1)); C(send(fd, "corked until close", 18, 0)); close(fd); }
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 100, 0)); SHOW(buf, 18); C(recv(fd, buf, 100, 0)); }
}
CASE(sigpipe_after_own_shutdown) {
    struct iovec v = {"x", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    struct mmsghdr mm = {.msg_hdr = m};
    if (server) {
        C(shutdown(fd, SHUT_WR));
        C(send(fd, "x", 1, 0)); C(write(fd, "x", 1)); C(writev(fd, &v, 1)); C(sendmsg(fd, &m, 0)); C(sendmmsg(fd, &mm, 1, 0)); C(sendto(fd, "x", 1, 0, NULL, 0)); C(send(fd, "x", 1, MSG_NOSIGNAL)); C(sendmsg(fd, &m, MSG_NOSIGNAL)); C(send(fd, "x", 1, MSG_DONTWAIT)); C(send(fd, (void *)-1, 1, MSG_NOSIGNAL));
    }
    step();
    if (server) { signal(SIGPIPE, SIG_IGN); C(send(fd, "x", 1, 0)); C(write(fd, "x", 1)); }
    else { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 10, 0)); }
    step();
}
CASE(sigpipe_kills_by_default) {
    if (server) {
        pid_t child = fork();
        if (child == 0) { signal(SIGPIPE, SIG_DFL); shutdown(fd, SHUT_WR); send(fd, "x", 1, 0); _exit(7); }
        int status = 0;
        C(waitpid(child, &status, 0) == child); out("child %s %d", WIFSIGNALED(status) ? "killed by" : "exits", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    } else { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 10, 0)); }
}
CASE(send_after_peer_closed) {
    if (!server) { C(close(fd)); step(); step(); return; }
    step();
    wait_ev(fd, POLLRDHUP);
    state(fd);
    C(send(fd, "first", 5, 0));
    wait_ev(fd, 0); /* the RST */
    state(fd);
    C(send(fd, "second", 6, 0)); C(send(fd, "third", 5, MSG_NOSIGNAL)); C(write(fd, "fourth", 6));
    state(fd); so_error(fd); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, MSG_DONTWAIT));
    step();
}
CASE(send_after_peer_closed_so_error_first) {
    if (!server) { C(close(fd)); step(); step(); return; }
    step();
    wait_ev(fd, POLLRDHUP);
    C(send(fd, "first", 5, 0));
    wait_ev(fd, 0);
    so_error(fd); so_error(fd); state(fd);
    C(send(fd, "second", 6, 0)); C(recv(fd, buf, 10, 0));
    step();
}
CASE(fill_until_eagain) {
    long filled = 0, r = 0;
    if (server) {
        nonblock(fd, 1);
        filled = fill_up(fd);
        T(filled > 65536);
        C(send(fd, buf, 1, 0)); C(write(fd, buf, 1)); C(send(fd, buf, 100000, MSG_DONTWAIT)); C(send(fd, "", 0, 0));
        state(fd);
        tell(filled);
        step();
        wait_ev(fd, POLLOUT);
        state(fd);
        C(send(fd, "more", 4, 0) == 4);
        C(shutdown(fd, SHUT_WR));
    } else {
        filled = hear();
        long got = 0;
        while (got < filled && (r = read(fd, buf, 100000)) > 0) got += r;
        T(got == filled);
        step();
        C(recv(fd, buf, 4, MSG_WAITALL)); SHOW(buf, 4); C(recv(fd, buf, 4, 0));
    }
}
CASE(fill_by_one_large_nonblocking_send) {
    long r;
    if (server) {
        fill(buf, 16 << 20, 4);
        nonblock(fd, 1);
        r = send(fd, buf, 16 << 20, 0);
        T(r > 0 && r < 16 << 20);
        tell(r);
        tell(hash(buf, r));
        step();
        wait_ev(fd, POLLOUT);
    } else {
        long n = hear();
        uint32_t h = hear();
        r = read_full(fd, buf, n);
        T(r == n); T(hash(buf, n) == h);
        C(recv(fd, buf, 1, MSG_DONTWAIT));
        step();
    }
}
CASE(send_timeout) {
    if (server) {
        set_timeout(fd, SO_SNDTIMEO, 150);
        memset(buf, 's', 16 << 20);
        long t = now_ms(), r = send(fd, buf, 16 << 20, 0);
        T(r > 0 && r < 16 << 20); took(t, 150);
        /* The buffer may have grown meanwhile. */
        for (long more; (more = send(fd, buf, 1 << 20, 0)) > 0;) r += more;
        out("in the end %s", strerrorname_np(errno));
        t = now_ms(); C(send(fd, buf, 10, 0)); took(t, 150);
        t = now_ms(); C(write(fd, buf, 1 << 20)); took(t, 150);
        C(send(fd, buf, 10, MSG_DONTWAIT));
        tell(r);
        step();
        wait_ev(fd, POLLOUT);
        C(send(fd, "again", 5, 0));
        step();
    } else {
        long n = hear();
        T(read_full(fd, buf, n) == n);
        C(recv(fd, buf, 1, MSG_DONTWAIT));
        step();
        C(recv(fd, buf, 5, MSG_WAITALL)); SHOW(buf, 5);
        step();
    }
}
CASE(blocking_send_waits_for_the_reader) {
    if (server) { fill(buf, 10 << 20, 6); C(send(fd, buf, 10 << 20, 0)); C(shutdown(fd, SHUT_WR)); step(); }
    else { wait_peer_asleep(); uint32_t h; C(drain(fd, &h)); out("%08x", h); step(); }
}
CASE(blocking_writev_large) {
    struct iovec v[] = {{buf, 1}, {buf + 1, 5000000}, {buf + 5000001, 77}, {buf + 5000078, 3000000}};
    if (server) { fill(buf, 10 << 20, 6); C(writev(fd, v, 4)); C(shutdown(fd, SHUT_WR)); step(); }
    else { uint32_t h; C(drain(fd, &h)); out("%08x", h); step(); }
}
CASE(pollout_only_when_a_third_is_free) {
    /* What is written after POLLOUT and what was written before adds up, whatever the sizes are. */
    long total = 0, r;
    if (server) {
        nonblock(fd, 1);
        for (int round = 0; round < 20; round++) {
            while ((r = write(fd, buf, 30000)) > 0) total += r;
            if (round == 0) { T(errno == EAGAIN); step(); }
            wait_ev(fd, POLLOUT);
            r = write(fd, buf, 1);
            if (r != 1) C(r); else total += r;
        }
        shutdown(fd, SHUT_WR);
        tell(total);
        step();
    } else { step(); long got = drain(fd, NULL); T(got == hear()); step(); }
}
CASE(tiny_writes) {
    if (server) { for (int i = 0; i < 5000; i++) { char c = i * 7; if (write(fd, &c, 1) != 1) { C(i); break; } } C(shutdown(fd, SHUT_WR)); }
    else { uint32_t h; C(drain(fd, &h)); out("%08x", h); }
}
CASE(zero_copy) {
    char control[256];
    struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
    if (server) { C(set_int(fd, SOL_SOCKET, SO_ZEROCOPY, 1)); C(get_int(fd, SOL_SOCKET, SO_ZEROCOPY)); fill(buf, 30000, 8); C(send(fd, buf, 30000, MSG_ZEROCOPY)); }
    else get(fd, 30000, 8);
    step();
    if (server) {
        wait_ev(fd, 0);
        poll_mask(fd, POLLOUT, 0);
        C(recvmsg(fd, &m, MSG_ERRQUEUE)); C(m.msg_flags);
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
            struct sock_extended_err *e = (void *)CMSG_DATA(c);
            out("  cmsg level %d type %d: errno %d origin %d code %d info %d data %d", c->cmsg_level, c->cmsg_type, e->ee_errno, e->ee_origin, e->ee_code, e->ee_info, e->ee_data);
        }
        C(recvmsg(fd, &m, MSG_ERRQUEUE)); poll_mask(fd, POLLOUT, 0);
    }
    step();
    if (server) C(send(fd, "after", 5, 0));
    TAKE(5);
}
CASE_ONCE(send_on_the_wrong_thing) {
    if (!server) { step(); return; }
    int l = listen_at(AF_INET, "127.0.0.1", 0, 4), u = socket(AF_INET, SOCK_STREAM, 0), f = open("/dev/null", O_RDWR), gone = dup(u);
    close(gone);
    C(send(l, "x", 1, 0)); C(write(l, "x", 1)); C(send(l, "x", 1, MSG_NOSIGNAL)); C(send(l, "", 0, 0));
    C(send(u, "x", 1, 0)); C(write(u, "x", 1)); C(send(u, "x", 1, MSG_OOB)); C(send(u, "", 0, 0));
    C(send(f, "x", 1, 0)); C(sendmmsg(f, NULL, 0, 0)); C(send(gone, "x", 1, 0)); C(write(gone, "x", 1)); C(send(-1, "x", 1, 0));
    step();
}
CASE(sent_before_the_other_side_looks) {
    /* A program that writes all and ends: nothing may depend on its coming back. */
    if (server) { for (int i = 0; i < 200; i++) { char t[20]; int n = snprintf(t, sizeof t, "line %d\n", i); Q(send(fd, t, n, 0)); } tell(0); _exit(0); }
    hear();
    C(drain(fd, NULL));
}
CASE(no_delay) {
    if (server) { C(get_int(fd, SOL_TCP, TCP_NODELAY)); C(set_int(fd, SOL_TCP, TCP_NODELAY, 1)); C(get_int(fd, SOL_TCP, TCP_NODELAY)); for (int i = 0; i < 10; i++) Q(send(fd, "0123456789", 10, 0)); }
    step();
    if (!server) { need(fd, 100); C(recv(fd, buf, 200, 0)); SHOW(buf, 100); }
    step();
}
