/* recv(2), read(2), readv(2), recvmsg(2), recvmmsg(2): results, flags, buffers, bad arguments. */
#include "harness.h"

ssize_t __recv_chk(int, void *, size_t, size_t, int);
ssize_t __read_chk(int, void *, size_t, size_t);
ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);

static char buf[1 << 20];
#define SEND(text) C(send(fd, text, sizeof text - 1, 0))
/* The server sends one text, the client has it before it goes on. */
#define GIVEN(text) do { step(); if (server) SEND(text); step(); if (!server) need(fd, sizeof text - 1); } while (0)

CASE(recv_plain) {
    GIVEN("hello");
    if (!server) { C(recv(fd, buf, sizeof buf, 0)); SHOW(buf, 5); }
    GIVEN("a longer message than the buffer");
    if (!server) { C(recv(fd, buf, 10, 0)); SHOW(buf, 10); C(recv(fd, buf, 100, 0)); SHOW(buf, 22); C(recv(fd, buf, 10, MSG_DONTWAIT)); }
    step();
}
CASE(read_and_readv) {
    char a[3] = "", b[4] = "", c[50] = "";
    struct iovec v[] = {{a, 3}, {b, 4}, {c, 50}};
    GIVEN("one");
    if (!server) { C(read(fd, buf, 100)); SHOW(buf, 3); }
    GIVEN("0123456789");
    if (!server) { C(readv(fd, v, 3)); SHOW(a, 3); SHOW(b, 4); SHOW(c, 3); }
    GIVEN("01234");
    if (!server) { C(readv(fd, v, 3)); SHOW(a, 3); SHOW(b, 2); }
    GIVEN("0123456789");
    if (!server) { C(readv(fd, v, 2)); C(readv(fd, v, 1)); SHOW(a, 3); }
    step();
}
CASE(readv_zero_elements) {
    char a[3] = "", b[4] = "";
    struct iovec v[] = {{NULL, 0}, {a, 3}, {NULL, 0}, {b, 4}, {NULL, 0}}, wild[] = {{a, 1}, {(void *)-1, 0}};
    GIVEN("0123456789");
    if (!server) { C(readv(fd, v, 5)); SHOW(a, 3); SHOW(b, 4); C(readv(fd, v, 1)); C(readv(fd, v, 0)); C(readv(fd, wild, 2)); C(readv(fd, v, 5)); SHOW(a, 3); }
    step();
}
CASE(preadv2_current_position) {
    char a[3] = "", b[40] = "";
    struct iovec v[] = {{a, 3}, {b, 40}};
    GIVEN("0123456789");
    if (!server) { C(preadv2(fd, v, 2, -1, 0)); SHOW(a, 3); SHOW(b, 7); C(preadv2(fd, v, 2, -1, RWF_NOWAIT)); C(preadv2(fd, v, 2, 0, 0)); C(preadv(fd, v, 2, 0)); C(pread(fd, a, 3, 0)); }
    GIVEN("abc");
    if (!server) { C(preadv2(fd, v, 2, -1, RWF_NOWAIT)); SHOW(a, 3); C(preadv2(fd, v, 2, -1, 0x40000000)); }
    step();
}
CASE(fortified_calls) {
    struct sockaddr_in from;
    socklen_t l = sizeof from;
    GIVEN("0123456789abcdefghij");
    if (!server) {
        C(__recv_chk(fd, buf, 5, sizeof buf, 0)); SHOW(buf, 5);
        C(__read_chk(fd, buf, 5, sizeof buf)); SHOW(buf, 5);
        C(__recvfrom_chk(fd, buf, 5, sizeof buf, MSG_PEEK, (void *)&from, &l)); SHOW(buf, 5);
        C(__recvfrom_chk(fd, buf, 50, sizeof buf, 0, (void *)&from, &l)); SHOW(buf, 10); out("l=%d", (int)l);
        C(__recv_chk(fd, buf, 5, sizeof buf, MSG_DONTWAIT));
    }
    step();
}
CASE(recvfrom_address) {
    struct sockaddr_storage from;
    memset(&from, 0x55, sizeof from);
    socklen_t l = sizeof from;
    GIVEN("0123456789");
    if (!server) {
        C(recvfrom(fd, buf, 3, 0, (void *)&from, &l)); SHOW(buf, 3); out("addrlen %d first byte %x", (int)l, *(unsigned char *)&from);
        l = 4; C(recvfrom(fd, buf, 3, 0, (void *)&from, &l)); out("addrlen %d", (int)l);
        l = 0; C(recvfrom(fd, buf, 2, 0, NULL, &l)); out("addrlen %d", (int)l);
        C(recvfrom(fd, buf, 2, 0, NULL, NULL)); SHOW(buf, 2);
    }
    step();
}
CASE(recvfrom_bad_address) {
    struct sockaddr_storage from;
    socklen_t l;
    GIVEN("0123456789");
    if (!server) {
        l = -1; C(recvfrom(fd, buf, 2, 0, (void *)&from, &l));
        C(recvfrom(fd, buf, 2, MSG_DONTWAIT, (void *)&from, (void *)-1));
        l = sizeof from; C(recvfrom(fd, buf, 2, MSG_DONTWAIT, (void *)-1, &l)); out("addrlen %d", (int)l);
        C(recv(fd, buf, 100, MSG_DONTWAIT)); SHOW(buf, 4);
    }
    step();
}
CASE(recvmsg_fields) {
    char a[4] = "", b[10] = "", control[256];
    struct sockaddr_storage name;
    struct iovec v[] = {{a, 4}, {b, 10}};
    struct msghdr m;
#define FRESH() (m = (struct msghdr){.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = v, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof control, .msg_flags = 0x7fff})
#define FIELDS() out("  namelen=%d controllen=%d flags=%#x iovlen=%d", (int)m.msg_namelen, (int)m.msg_controllen, m.msg_flags, (int)m.msg_iovlen)
    GIVEN("0123456789");
    if (!server) {
        FRESH(); C(recvmsg(fd, &m, MSG_PEEK)); FIELDS(); SHOW(a, 4); SHOW(b, 6);
        FRESH(); C(recvmsg(fd, &m, 0)); FIELDS(); SHOW(a, 4); SHOW(b, 6);
        FRESH(); C(recvmsg(fd, &m, MSG_DONTWAIT)); FIELDS();
    }
    GIVEN("ab");
    if (!server) { FRESH(); m.msg_name = NULL; m.msg_control = NULL; m.msg_controllen = 0; C(recvmsg(fd, &m, MSG_CMSG_CLOEXEC)); FIELDS(); SHOW(a, 2); }
    GIVEN("0123456789");
    if (!server) { FRESH(); C(recvmsg(fd, &m, MSG_TRUNC)); FIELDS(); }
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); FRESH(); C(recvmsg(fd, &m, 0)); FIELDS(); }
    step();
}
CASE(recvmsg_bad_arguments) {
    struct iovec v = {buf, 4}, bad = {buf, (size_t)-1}, many[1025];
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    for (int i = 0; i < 1025; i++) many[i] = (struct iovec){buf + i, 1};
    GIVEN("0123456789");
    if (!server) {
        C(recvmsg(fd, NULL, MSG_DONTWAIT)); C(recvmsg(fd, (void *)-1, MSG_DONTWAIT));
        m.msg_iov = NULL; C(recvmsg(fd, &m, MSG_DONTWAIT));
        m.msg_iov = (void *)-1; C(recvmsg(fd, &m, MSG_DONTWAIT));
        m.msg_iov = &bad; C(recvmsg(fd, &m, MSG_DONTWAIT));
        m.msg_iov = many; m.msg_iovlen = 1025; C(recvmsg(fd, &m, MSG_DONTWAIT));
        m.msg_iovlen = (size_t)-1; C(recvmsg(fd, &m, MSG_DONTWAIT));
        C(readv(fd, many, 1025)); C(readv(fd, many, -1)); C(readv(fd, &bad, 1)); C(readv(fd, (void *)-1, 1));
        m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1, .msg_namelen = -1, .msg_name = buf}; C(recvmsg(fd, &m, MSG_DONTWAIT));
        m = (struct msghdr){.msg_iov = NULL, .msg_iovlen = 0}; C(recvmsg(fd, &m, MSG_DONTWAIT));
        C(readv(fd, many, 1024)); SHOW(buf, 10);
    }
    step();
}
CASE(recv_buffer_faults) {
    void *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Q(munmap((char *)page + 4096, 4096));
    char *edge = (char *)page + 4096;
    char a[4];
    struct iovec v[] = {{a, 4}, {(void *)-1, 4}};
    GIVEN("0123456789");
    if (!server) {
        C(recv(fd, NULL, 5, 0)); C(recv(fd, (void *)-1, 5, 0)); C(read(fd, (void *)-1, 5)); C(recv(fd, (void *)-1, 5, MSG_PEEK));
        C(recv(fd, edge, 5, 0)); C(recv(fd, edge - 2, 5, MSG_DONTWAIT));
        C(readv(fd, v, 2));
        C(recv(fd, edge - 10, 4096, MSG_DONTWAIT)); SHOW(edge - 10, 10);
        C(recv(fd, (void *)-1, 5, MSG_DONTWAIT)); C(recv(fd, NULL, 0, MSG_DONTWAIT));
    }
    step();
}
CASE(recv_larger_than_valid_memory) {
    /* A length which reaches beyond the mapping is no error as long as the bytes fit. At a low address: whether two
     * gigabytes reach beyond the last one is a matter of chance for others. */
    char *page = mmap((void *)0x20000000, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    T(page == (char *)0x20000000);
    Q(munmap(page + 4096, 4096));
    GIVEN("01234");
    if (!server) { C(recv(fd, page + 4096 - 5, 100000, 0)); SHOW(page + 4096 - 5, 5); }
    GIVEN("56789");
    if (!server) { C(read(fd, page + 4096 - 5, SSIZE_MAX)); SHOW(page + 4096 - 5, 5); C(recv(fd, buf, 100, MSG_DONTWAIT)); }
    GIVEN("56789");
    if (!server) { C(recv(fd, page + 4096 - 5, (size_t)-1, MSG_DONTWAIT)); C(recv(fd, page + 4096 - 5, INT_MAX, MSG_DONTWAIT)); }
    step();
}
CASE(zero_length) {
    struct iovec v = {buf, 0};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    if (!server) {
        C(read(fd, buf, 0)); C(read(fd, NULL, 0)); C(recv(fd, buf, 0, MSG_DONTWAIT)); C(recv(fd, NULL, 0, MSG_DONTWAIT)); C(readv(fd, &v, 1)); C(recvmsg(fd, &m, MSG_DONTWAIT));
    }
    step();
    GIVEN("data");
    if (!server) {
        C(read(fd, buf, 0)); C(recv(fd, buf, 0, 0)); C(recv(fd, NULL, 0, 0)); C(recv(fd, NULL, 0, MSG_PEEK)); C(readv(fd, &v, 1)); C(recvmsg(fd, &m, 0)); C(recv(fd, buf, 0, MSG_WAITALL));
        C(recv(fd, buf, 100, 0)); SHOW(buf, 4);
    }
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 0, 0)); C(read(fd, buf, 0)); C(recv(fd, buf, 1, 0)); }
    step();
}
CASE(zero_length_blocks_until_data) {
    if (server) { wait_peer_asleep(); SEND("xyz"); step(); }
    else { C(recv(fd, buf, 0, 0)); C(recv(fd, buf, 10, 0)); SHOW(buf, 3); step(); }
}
CASE(peek) {
    GIVEN("hello");
    if (!server) {
        C(recv(fd, buf, 3, MSG_PEEK)); SHOW(buf, 3); C(recv(fd, buf, 30, MSG_PEEK)); SHOW(buf, 5); C(recv(fd, buf, 30, MSG_PEEK | MSG_DONTWAIT)); SHOW(buf, 5);
        C(recv(fd, buf, 2, 0)); SHOW(buf, 2); C(recv(fd, buf, 30, MSG_PEEK)); SHOW(buf, 3); C(recv(fd, buf, 30, 0)); SHOW(buf, 3);
        C(recv(fd, buf, 30, MSG_PEEK | MSG_DONTWAIT));
    }
    step();
}
CASE(peek_across_sends) {
    GIVEN("first ");
    if (!server) { C(recv(fd, buf, 30, MSG_PEEK)); SHOW(buf, 6); }
    step();
    if (server) { SEND("second "); SEND("third"); }
    step();
    if (!server) {
        need(fd, 18);
        C(recv(fd, buf, 30, MSG_PEEK)); SHOW(buf, 18);
        struct iovec v[] = {{buf, 4}, {buf + 100, 7}, {buf + 200, 90}};
        struct msghdr m = {.msg_iov = v, .msg_iovlen = 3};
        C(recvmsg(fd, &m, MSG_PEEK)); SHOW(buf, 4); SHOW(buf + 100, 7); SHOW(buf + 200, 7);
        C(read(fd, buf, 8)); SHOW(buf, 8); C(recv(fd, buf, 30, MSG_PEEK)); SHOW(buf, 10); C(read(fd, buf, 30)); SHOW(buf, 10);
    }
    step();
}
CASE(peek_waitall) {
    if (server) { SEND("abc"); step(); wait_peer_asleep(); SEND("defgh"); step(); }
    else { step(); need(fd, 3); C(recv(fd, buf, 6, MSG_PEEK | MSG_WAITALL)); SHOW(buf, 6); C(recv(fd, buf, 8, MSG_WAITALL)); SHOW(buf, 8); step(); }
}
CASE(peek_blocks_until_data) {
    if (server) { wait_peer_asleep(); SEND("abc"); step(); SEND("def"); step(); }
    else { C(recv(fd, buf, 10, MSG_PEEK)); SHOW(buf, 3); step(); need(fd, 6); C(recv(fd, buf, 10, MSG_PEEK)); SHOW(buf, 6); C(recv(fd, buf, 10, 0)); SHOW(buf, 6); step(); }
}
CASE(peek_at_eof) {
    GIVEN("tail");
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) {
        wait_ev(fd, POLLRDHUP);
        C(recv(fd, buf, 10, MSG_PEEK)); C(recv(fd, buf, 10, MSG_PEEK | MSG_WAITALL)); C(recv(fd, buf, 10, 0)); SHOW(buf, 4);
        C(recv(fd, buf, 10, MSG_PEEK)); C(recv(fd, buf, 10, MSG_PEEK | MSG_DONTWAIT)); C(recv(fd, buf, 10, 0)); C(recv(fd, buf, 10, MSG_WAITALL)); C(recv(fd, buf, 10, 0));
    }
    step();
}
CASE(peek_large) {
    if (server) { put(fd, 30000, 3); step(); step(); return; }
    step();
    need(fd, 30000);
    C(recv(fd, buf, 30000, MSG_PEEK)); SHOW(buf, 30000);
    C(recv(fd, buf, 1000, 0)); SHOW(buf, 1000);
    C(recv(fd, buf, 100000, MSG_PEEK)); SHOW(buf, 29000);
    C(recv(fd, buf, 100000, 0)); SHOW(buf, 29000);
    step();
}
CASE(peek_offset) {
    int off = -5;
    GIVEN("0123456789");
    if (!server) {
        C(get_int(fd, SOL_SOCKET, SO_PEEK_OFF)); C(set_int(fd, SOL_SOCKET, SO_PEEK_OFF, 2));
        C(recv(fd, buf, 3, MSG_PEEK)); SHOW(buf, 3); C(recv(fd, buf, 3, MSG_PEEK)); SHOW(buf, 3); C(get_int(fd, SOL_SOCKET, SO_PEEK_OFF));
        C(recv(fd, buf, 4, 0)); SHOW(buf, 4); C(get_int(fd, SOL_SOCKET, SO_PEEK_OFF)); C(recv(fd, buf, 30, MSG_PEEK)); SHOW(buf, 2);
        C(set_int(fd, SOL_SOCKET, SO_PEEK_OFF, -1)); C(recv(fd, buf, 30, MSG_PEEK)); SHOW(buf, 6); C(recv(fd, buf, 30, 0)); SHOW(buf, 6);
    }
    step();
}
static void peek_at(int fd, int n) { long r = C(recv(fd, buf, n, MSG_PEEK | MSG_DONTWAIT)); if (r > 0) SHOW(buf, r); C(get_int(fd, SOL_SOCKET, SO_PEEK_OFF)); }
CASE(peek_offset_over_more_that_comes) {
    GIVEN("0123456789");
    if (!server) { C(set_int(fd, SOL_SOCKET, SO_PEEK_OFF, 4)); peek_at(fd, 2); }
    step();
    if (server) SEND("abcdef");
    step();
    if (!server) {
        need(fd, 16);
        peek_at(fd, 8); peek_at(fd, 30); peek_at(fd, 30);
        C(recv(fd, buf, 3, 0)); SHOW(buf, 3); peek_at(fd, 1);
        C(set_int(fd, SOL_SOCKET, SO_PEEK_OFF, 9)); peek_at(fd, 2);
        C(set_int(fd, SOL_SOCKET, SO_PEEK_OFF, 1)); C(recv(fd, buf, 5, 0)); SHOW(buf, 5); peek_at(fd, 100);
        struct iovec v[2] = {{buf, 2}, {buf + 2, 4}};
        C(readv(fd, v, 2)); SHOW(buf, 6); C(get_int(fd, SOL_SOCKET, SO_PEEK_OFF)); C(recv(fd, buf, 30, MSG_DONTWAIT)); SHOW(buf, 2); peek_at(fd, 3);
    }
    step();
    if (server) SEND("xyz");
    step();
    if (!server) { need(fd, 3); C(set_int(fd, SOL_SOCKET, SO_PEEK_OFF, 0)); peek_at(fd, 2); C(read(fd, buf, 30)); SHOW(buf, 3); C(get_int(fd, SOL_SOCKET, SO_PEEK_OFF)); }
    step();
}
CASE(waitall_split) {
    if (server) { wait_peer_asleep(); SEND("0123"); wait_peer_asleep(); SEND("4567"); wait_peer_asleep(); SEND("89ab"); step(); }
    else { C(recv(fd, buf, 10, MSG_WAITALL)); SHOW(buf, 10); step(); C(recv(fd, buf, 10, MSG_DONTWAIT)); SHOW(buf, 2); }
}
CASE(waitall_all_there) {
    GIVEN("0123456789");
    if (!server) { C(recv(fd, buf, 4, MSG_WAITALL)); SHOW(buf, 4); C(recv(fd, buf, 6, MSG_WAITALL)); SHOW(buf, 6); C(recv(fd, buf, 6, MSG_WAITALL | MSG_DONTWAIT)); }
    GIVEN("abc");
    if (!server) { C(recv(fd, buf, 6, MSG_WAITALL | MSG_DONTWAIT)); SHOW(buf, 3); }
    step();
}
CASE(waitall_readv_large) {
    if (server) { for (int i = 0; i < 50; i++) put(fd, 4000 + i, i); step(); return; }
    struct iovec v[3] = {{buf, 70000}, {buf + 70000, 1}, {buf + 70001, 131224 - 0}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 3};
    C(recvmsg(fd, &m, MSG_WAITALL)); SHOW(buf, 201225);
    step();
    C(recv(fd, buf, 100, MSG_DONTWAIT));
}
CASE(waitall_eof_in_the_middle) {
    if (server) { wait_peer_asleep(); SEND("0123"); wait_peer_asleep(); C(shutdown(fd, SHUT_WR)); step(); }
    else { C(recv(fd, buf, 10, MSG_WAITALL)); SHOW(buf, 4); C(recv(fd, buf, 10, MSG_WAITALL)); step(); }
}
CASE(waitall_timeout_in_the_middle) {
    if (server) { SEND("0123"); step(); step(); SEND("456789"); step(); return; }
    set_timeout(fd, SO_RCVTIMEO, 120);
    step();
    long t = now_ms();
    C(recv(fd, buf, 10, MSG_WAITALL)); SHOW(buf, 4); took(t, 120);
    t = now_ms();
    C(recv(fd, buf, 10, MSG_WAITALL)); took(t, 120);
    step();
    step();
    C(recv(fd, buf, 6, MSG_WAITALL)); SHOW(buf, 6);
}
CASE(waitall_signal_in_the_middle) {
    for (int restart = 0; restart < 2; restart++) {
        if (server) { step(); wait_peer_asleep(); SEND("0123"); delivered(fd); wait_peer_asleep(); kill(peer_pid, SIGUSR1); if (restart) { wait_peer_asleep(); SEND("456789"); } step(); }
        else { handle(SIGUSR1, restart ? SA_RESTART : 0); step(); long r = C(recv(fd, buf, 10, MSG_WAITALL)); SHOW(buf, r); C(usr1s); step(); if (restart && r < 10) { need(fd, 10 - r); C(recv(fd, buf, 10, 0)); } }
    }
}
CASE(dontwait_and_nonblock_empty) {
    struct iovec v = {buf, 10};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    if (!server) {
        C(recv(fd, buf, 10, MSG_DONTWAIT)); C(recvmsg(fd, &m, MSG_DONTWAIT));
        nonblock(fd, 1);
        C(recv(fd, buf, 10, 0)); C(recvmsg(fd, &m, 0)); C(read(fd, buf, 10)); C(readv(fd, &v, 1)); C(recv(fd, buf, 10, MSG_WAITALL)); C(recv(fd, buf, 10, MSG_PEEK));
    }
    GIVEN("0123");
    if (!server) { C(read(fd, buf, 2)); C(recv(fd, buf, 10, MSG_WAITALL)); C(read(fd, buf, 10)); nonblock(fd, 0); }
    if (server) step(); else { step(); C(recv(fd, buf, 3, 0)); SHOW(buf, 3); }
    if (server) SEND("end");
}
CASE(trunc_flag) {
    memset(buf, '.', 16);
    GIVEN("0123456789abcdef");
    if (!server) {
        C(recv(fd, buf, 4, MSG_TRUNC)); SHOW(buf, 4);
        C(recv(fd, NULL, 4, MSG_TRUNC));
        C(recv(fd, NULL, 4, MSG_TRUNC | MSG_PEEK)); C(recv(fd, (void *)-1, 2, MSG_TRUNC));
        C(recv(fd, buf, 100, MSG_PEEK)); SHOW(buf, 6);
        C(recv(fd, NULL, 100, MSG_TRUNC | MSG_DONTWAIT)); C(recv(fd, NULL, 100, MSG_TRUNC | MSG_DONTWAIT));
    }
    step();
}
CASE(trunc_large) {
    if (server) { put(fd, 300000, 9); SEND("rest"); step(); return; }
    long total = 0;
    while (total < 300000) { long r = recv(fd, NULL, 300000 - total, MSG_TRUNC); if (r <= 0) { C(r); break; } total += r; }
    C(total); C(recv(fd, buf, 4, MSG_WAITALL)); SHOW(buf, 4);
    step();
}
CASE(odd_flags) {
    struct msghdr m = {0};
    if (!server) { C(recv(fd, buf, 10, MSG_ERRQUEUE)); C(recv(fd, buf, 10, MSG_ERRQUEUE | MSG_DONTWAIT)); C(recvmsg(fd, &m, MSG_ERRQUEUE)); C(recv(fd, buf, 10, MSG_OOB)); }
    GIVEN("0123456789abcdefghij");
    if (!server) {
        C(recv(fd, buf, 2, MSG_CMSG_CLOEXEC)); C(recv(fd, buf, 2, MSG_NOSIGNAL)); C(recv(fd, buf, 2, MSG_CONFIRM)); C(recv(fd, buf, 2, MSG_EOR)); C(recv(fd, buf, 2, MSG_MORE));
        C(recv(fd, buf, 2, 0x00100000)); C(recv(fd, buf, 2, MSG_WAITFORONE)); C(recv(fd, buf, 2, MSG_DONTROUTE)); C(recv(fd, buf, 2, MSG_ERRQUEUE));
        C(recv(fd, buf, 100, MSG_DONTWAIT)); SHOW(buf, 4);
    }
    step();
}
CASE(receive_timeout) {
    if (!server) {
        struct timeval tv;
        socklen_t l = sizeof tv;
        struct iovec v = {buf, 10};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
        set_timeout(fd, SO_RCVTIMEO, 100);
        C(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &l)); out("%ld.%06ld", (long)tv.tv_sec, (long)tv.tv_usec);
        long t = now_ms(); C(recv(fd, buf, 10, 0)); took(t, 100);
        t = now_ms(); C(read(fd, buf, 10)); took(t, 100);
        t = now_ms(); C(recvmsg(fd, &m, 0)); took(t, 100);
        t = now_ms(); C(recv(fd, buf, 10, MSG_PEEK)); took(t, 100);
        t = now_ms(); C(recv(fd, buf, 10, MSG_DONTWAIT)); took(t, 0);
        step();
        C(recv(fd, buf, 10, 0)); SHOW(buf, 2);
        tv = (struct timeval){0, 0}; C(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
        tv = (struct timeval){0, 1000000}; C(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
        tv = (struct timeval){-1, 0}; C(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv)); C(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, 4));
        step();
    } else { step(); SEND("ok"); step(); }
}
CASE(recvmmsg_several) {
    char a[3][4] = {"", "", ""};
    struct iovec v[3] = {{a[0], 4}, {a[1], 4}, {a[2], 4}};
    struct mmsghdr m[3];
    for (int i = 0; i < 3; i++) m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &v[i], .msg_iovlen = 1}, .msg_len = 99};
    GIVEN("0123456789");
    if (!server) {
        C(recvmmsg(fd, m, 3, 0, NULL)); for (int i = 0; i < 3; i++) { C(m[i].msg_len); C(m[i].msg_hdr.msg_flags); } SHOW(a[0], 4); SHOW(a[1], 4); SHOW(a[2], 2);
        C(recvmmsg(fd, m, 3, MSG_DONTWAIT, NULL)); C(recvmmsg(fd, m, 0, MSG_DONTWAIT, NULL));
    }
    GIVEN("012345");
    if (!server) { C(recvmmsg(fd, m, 3, MSG_DONTWAIT, NULL)); C(m[0].msg_len); C(m[1].msg_len); }
    GIVEN("012345");
    if (!server) { C(recvmmsg(fd, m, 3, MSG_WAITFORONE, NULL)); C(m[0].msg_len); C(m[1].msg_len); }
    GIVEN("xy");
    if (!server) { C(recvmmsg(fd, m, 1, MSG_PEEK, NULL)); C(m[0].msg_len); C(recvmmsg(fd, m, 2, MSG_WAITFORONE, NULL)); C(m[0].msg_len); SHOW(a[0], 2); }
    step();
}
CASE(recvmmsg_timeout) {
    char a[3][4] = {"", "", ""};
    struct iovec v[3] = {{a[0], 4}, {a[1], 4}, {a[2], 4}};
    struct mmsghdr m[3];
    for (int i = 0; i < 3; i++) m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &v[i], .msg_iovlen = 1}};
    struct timespec bad = {0, -1}, zero = {0, 0}, one = {1, 0};
    GIVEN("0123456789");
    if (!server) {
        C(recvmmsg(fd, m, 3, 0, &bad));
        C(recvmmsg(fd, m, 3, 0, &zero)); C(m[0].msg_len);
        C(recvmmsg(fd, m, 2, 0, &one)); C(m[0].msg_len); C(m[1].msg_len); T(one.tv_sec == 0 && one.tv_nsec > 0);
        set_timeout(fd, SO_RCVTIMEO, 100);
        long t = now_ms(); C(recvmmsg(fd, m, 3, 0, NULL)); took(t, 100);
    }
    GIVEN("012345");
    if (!server) { long t = now_ms(); C(recvmmsg(fd, m, 3, 0, NULL)); took(t, 100); C(m[0].msg_len); C(m[1].msg_len); }
    step();
}
CASE(recvmmsg_wild_arguments) {
    struct iovec v = {buf, 4};
    struct mmsghdr m[1] = {{.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}}};
    GIVEN("0123456789");
    if (!server) { C(recvmmsg(fd, (void *)-1, 3, MSG_DONTWAIT, NULL)); C(recvmmsg(fd, m, 1, 0, (void *)-1)); C(recv(fd, buf, 100, MSG_DONTWAIT)); }
    step();
}
CASE(recvmmsg_error_later) {
    char a[4];
    struct iovec v[2] = {{a, 4}, {(void *)-1, 4}};
    struct mmsghdr m[2];
    for (int i = 0; i < 2; i++) m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &v[i], .msg_iovlen = 1}};
    GIVEN("0123456789");
    if (!server) { C(recvmmsg(fd, m, 2, 0, NULL)); C(m[0].msg_len); so_error(fd); C(recv(fd, buf, 10, MSG_DONTWAIT)); SHOW(buf, 6); }
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) { v[1].iov_base = a; wait_ev(fd, POLLRDHUP); C(recvmmsg(fd, m, 2, 0, NULL)); C(m[0].msg_len); C(m[1].msg_len); }
    step();
}
CASE(recvmmsg_error_for_the_next_receive) {
    char a[4];
    struct iovec v[2] = {{a, 4}, {(void *)-1, 4}};
    struct mmsghdr m[2];
    for (int i = 0; i < 2; i++) m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &v[i], .msg_iovlen = 1}};
    GIVEN("0123456789");
    if (!server) { C(recvmmsg(fd, m, 2, 0, NULL)); v[1].iov_base = a; C(recvmmsg(fd, m, 2, 0, NULL)); C(recvmmsg(fd, m, 1, 0, NULL)); }
    GIVEN("0123456789");
    if (!server) { v[1].iov_base = (void *)-1; C(recvmmsg(fd, m, 2, 0, NULL)); C(recv(fd, buf, 100, 0)); C(recv(fd, buf, 100, 0)); C(recv(fd, buf, 100, MSG_DONTWAIT)); so_error(fd); }
    step();
    if (server) { put(fd, 100, 4); step(); }
    else { get(fd, 100, 4); step(); }
}
CASE(eof_again_and_again) {
    GIVEN("last words");
    if (server) C(shutdown(fd, SHUT_WR));
    step();
    if (!server) {
        wait_ev(fd, POLLRDHUP);
        C(recv(fd, buf, 4, 0)); SHOW(buf, 4); C(recv(fd, buf, 100, 0)); SHOW(buf, 6);
        for (int i = 0; i < 3; i++) { C(recv(fd, buf, 100, 0)); C(read(fd, buf, 100)); C(recv(fd, buf, 10, MSG_DONTWAIT)); }
        readable_bytes(fd);
    }
    step();
}
CASE(many_small_sends_one_recv) {
    if (server) for (int i = 0; i < 100; i++) { char t[11]; snprintf(t, sizeof t, "message%03d", i); Q(send(fd, t, 10, 0)); }
    step();
    if (!server) { need(fd, 1000); readable_bytes(fd); C(recv(fd, buf, 4096, 0)); SHOW(buf, 1000); C(recv(fd, buf, 4096, MSG_DONTWAIT)); }
    step();
}
CASE(one_send_many_recvs) {
    if (server) put(fd, 5000, 1);
    step();
    if (!server) {
        need(fd, 5000);
        long at = 0, r, calls = 0;
        for (int size = 1; at < 5000; size = size * 3 % 97 + 1) { r = recv(fd, buf + at, size, 0); if (r != size && at + r != 5000) { out("short: %ld of %d at %ld", r, size, at); if (r <= 0) break; } at += r; calls++; }
        C(calls); SHOW(buf, at); C(recv(fd, buf, 10, MSG_DONTWAIT));
    }
    step();
}
CASE(sizes_around_powers_of_two) {
    static const int sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 8191, 8192, 8193, 16383, 16384, 16385, 32767, 32768};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        step();
        if (server) put(fd, sizes[i], i);
        step();
        if (!server) { need(fd, sizes[i]); long r = recv(fd, buf, sizeof buf, 0); out("%d: %ld %08x", sizes[i], r, hash(buf, r > 0 ? r : 0)); }
    }
    step();
}
CASE(receive_low_water_blocking) {
    /* Not with some bytes there before: the kernel then takes those, and is not woken by the rest (Linux 6.18). */
    if (server) { step(); wait_peer_asleep(); for (int i = 0; i < 10; i++) Q(send(fd, "abcdefghij", 10, 0)); step(); SEND("few"); step(); }
    else {
        C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 100)); C(get_int(fd, SOL_SOCKET, SO_RCVLOWAT));
        step();
        long r = C(recv(fd, buf, 200, 0)); SHOW(buf, r);
        step(); step();
        need(fd, 3); state(fd);
        C(recv(fd, buf, 200, MSG_PEEK | MSG_DONTWAIT)); C(recv(fd, buf, 3, 0)); SHOW(buf, 3);
        C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 0)); C(get_int(fd, SOL_SOCKET, SO_RCVLOWAT)); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, -1)); T(get_int(fd, SOL_SOCKET, SO_RCVLOWAT) > 1000000);
    }
}
/* `first` bytes come, then the client sets a mark of 100: with both ends warm they lie in the ring, and what follows does not. */
static void before_the_mark(int fd, int first) {
    warm_by(fd, warm_n);
    step();
    if (server) { fill(buf, 1000, first); Q(set_int(fd, SOL_TCP, TCP_NODELAY, 1)); Q(send(fd, buf, first, 0)); }
    step();
    if (!server) { need(fd, first); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 100)); C(get_int(fd, SOL_SOCKET, SO_RCVLOWAT)); }
    step();
}
/* The server sends these pieces of the same bytes, each when the client sleeps. */
static void to_the_sleeper(int fd, int at, const int *pieces) {
    for (; *pieces; at += *pieces++) { wait_peer_asleep(); Q(send(fd, buf + at, *pieces, 0)); }
}
static void after_the_mark(int fd, int left) {
    step();
    if (!server) { need(fd, left); C(get_int(fd, SOL_SOCKET, SO_RCVLOWAT)); C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1)); if (left) { long r = C(recv(fd, buf, 2000, MSG_DONTWAIT)); SHOW(buf, r); } }
    step();
}
CASE(receive_low_water_behind_unread) {
    /* What a blocking receive takes as it begins counts for its result, not for its being woken (Linux 6.18). */
    static const struct { int first, length, flags, pieces[6], left; } rounds[] = {
        {60, 200, 0, {40, 60}, 0}, {60, 120, 0, {40, 60}, 40}, {60, 80, 0, {20, 80}, 80}, {60, 60, 0, {1}, 1}, {99, 100, 0, {1, 99}, 99},
        {100, 200, 0, {1}, 1}, {150, 200, 0, {1}, 1}, {150, 100, 0, {1}, 51},
        {60, 200, MSG_PEEK, {39, 1}, 100}, {60, 80, MSG_PEEK, {20, 20}, 100}, {99, 100, MSG_PEEK, {1}, 100}, {120, 200, MSG_PEEK, {1}, 121},
        {60, 200, MSG_WAITALL, {100, 100}, 60}, {60, 120, MSG_WAITALL, {99, 1}, 40}, {60, 200, MSG_WAITALL | MSG_PEEK, {39, 61, 40}, 200}, {60, 30, MSG_WAITALL, {1}, 31},
        {60, 200, MSG_TRUNC, {100}, 0}, {60, 200, MSG_DONTWAIT, {1}, 1}, {60, 40, MSG_PEEK | MSG_DONTWAIT, {1}, 61}};
    for (size_t i = 0; i < sizeof rounds / sizeof *rounds; i++) {
        before_the_mark(fd, rounds[i].first);
        if (!server) {
            long r = recv(fd, buf, rounds[i].length, rounds[i].flags);
            out("%zu: recv(%d) behind %d = %ld", i, rounds[i].length, rounds[i].first, r);
            if (!(rounds[i].flags & MSG_TRUNC)) SHOW(buf, r);
        } else if (rounds[i].length > rounds[i].first && rounds[i].first < 100 && !(rounds[i].flags & MSG_DONTWAIT)) {
            to_the_sleeper(fd, rounds[i].first, rounds[i].pieces);
        }
        if (rounds[i].length <= rounds[i].first || rounds[i].first >= 100 || rounds[i].flags & MSG_DONTWAIT) {
            step();
            if (server) Q(send(fd, buf + rounds[i].first, rounds[i].pieces[0], 0));
        }
        after_the_mark(fd, rounds[i].left);
    }
}
CASE(low_water_behind_unread_and_the_end) {
    before_the_mark(fd, 60);
    if (!server) { set_timeout(fd, SO_RCVTIMEO, 60); long t = now_ms(); C(recv(fd, buf, 200, MSG_PEEK)); took(t, 60); set_timeout(fd, SO_RCVTIMEO, 0); }
    step();
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); state(fd); C(recv(fd, buf, 200, MSG_PEEK)); C(recv(fd, buf, 20, 0)); state(fd); C(recv(fd, buf, 200, 0)); SHOW(buf, 40); C(recv(fd, buf, 200, 0)); }
}
CASE(low_water_read_in_parts) {
    before_the_mark(fd, 90);
    if (server) Q(send(fd, buf + 90, 90, 0));
    step();
    if (!server) {
        need(fd, 180); readable_bytes(fd);
        for (int i = 0; i < 9; i++) { long r = i % 2 ? read(fd, buf, 20) : recv(fd, buf, 20, MSG_DONTWAIT); out("%d: %ld", i, r); SHOW(buf, r); state(fd); readable_bytes(fd); }
        C(get_int(fd, SOL_SOCKET, SO_RCVLOWAT)); C(recv(fd, buf, 20, MSG_DONTWAIT));
    }
    step();
    for (int i = 0; i < 3; i++) {
        step();
        if (server) Q(send(fd, buf, 50, 0));
        step();
        if (!server) { need(fd, 50 * i + 50); state(fd); }
    }
    after_the_mark(fd, 150);
}
CASE(timestamp_and_inq_messages) {
    char control[256];
    struct iovec v = {buf, 4};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (!server) C(set_int(fd, SOL_TCP, TCP_INQ, 1));
    step();
    GIVEN("0123456789");
    if (!server) {
        C(recvmsg(fd, &m, 0)); SHOW(buf, 4);
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) out("  cmsg level %d type %d len %d value %d", c->cmsg_level, c->cmsg_type, (int)c->cmsg_len, *(int *)CMSG_DATA(c));
        m.msg_controllen = 4; C(recvmsg(fd, &m, 0)); C(m.msg_flags); C(m.msg_controllen);
        C(get_int(fd, SOL_TCP, TCP_INQ)); C(set_int(fd, SOL_TCP, TCP_INQ, 2));
    }
    step();
}
CASE(inq_messages_over_what_lies_there) {
    char control[256];
    struct iovec v = {buf, 4};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control};
    static const int room[] = {sizeof control, 20, 18, 17, 16, 15, 0};
    GIVEN("0123456789 0123456789 0123456789");
    if (!server) {
        C(set_int(fd, SOL_TCP, TCP_INQ, 1));
        C(recv(fd, buf, 1, 0));
        for (unsigned i = 0; i < sizeof room / sizeof *room; i++) {
            memset(control, 0x55, sizeof control);
            m.msg_controllen = room[i]; m.msg_flags = 0;
            C(recvmsg(fd, &m, i == 1 ? MSG_PEEK : 0)); C(m.msg_flags); C(m.msg_controllen); SHOW(control, 32);
        }
        C(set_int(fd, SOL_TCP, TCP_INQ, 0)); m.msg_controllen = sizeof control; v.iov_len = 100; C(recvmsg(fd, &m, 0)); C(m.msg_controllen);
    }
    step();
    if (server) SEND("more");
    step();
    if (!server) { need(fd, 4); C(set_int(fd, SOL_TCP, TCP_INQ, 1)); v.iov_len = 1; m.msg_controllen = sizeof control; C(recvmsg(fd, &m, MSG_DONTWAIT)); C(m.msg_controllen); SHOW(control, 24); C(readv(fd, &v, 1)); }
    step();
}
CASE_ONCE(receive_on_the_wrong_thing) {
    if (!server) { step(); return; }
    int l = listen_at(AF_INET, "127.0.0.1", 0, 4), u = socket(AF_INET, SOCK_STREAM, 0), f = open("/dev/zero", O_RDWR), gone = dup(u);
    close(gone);
    C(recv(l, buf, 4, 0)); C(recv(l, buf, 4, MSG_DONTWAIT)); C(read(l, buf, 4)); C(recv(l, buf, 4, MSG_PEEK)); C(recv(l, buf, 0, 0));
    C(recv(u, buf, 4, 0)); C(read(u, buf, 4)); C(recv(u, buf, 4, MSG_DONTWAIT)); C(recv(u, buf, 4, MSG_OOB));
    C(recv(f, buf, 4, 0)); C(recv(gone, buf, 4, 0)); C(read(gone, buf, 4)); C(recv(-1, buf, 4, 0)); C(recvmmsg(-1, NULL, 0, 0, NULL));
    step();
}
CASE(lseek_and_positions) {
    GIVEN("data");
    if (!server) { C(lseek(fd, 0, SEEK_CUR)); C(lseek(fd, 0, SEEK_SET)); C(lseek(fd, 0, SEEK_END)); C(pread(fd, buf, 4, 0)); C(pwrite(fd, "x", 1, 0)); C(ftruncate(fd, 0)); C(fsync(fd)); C(fdatasync(fd)); C(posix_fadvise(fd, 0, 0, 0)); C(read(fd, buf, 4)); SHOW(buf, 4); }
    step();
}
CASE(both_directions_at_once) {
    for (int round = 0; round < 5; round++) {
        put(fd, 3000, round * 2 + server);
        step();
        get(fd, 3000, round * 2 + !server);
        C(recv(fd, buf, 10, MSG_DONTWAIT));
        step();
    }
}
CASE(echo_growing) {
    for (long n = 1; n < 200000; n = n * 2 + 1) {
        if (server) { get(fd, n, n); put(fd, n, n + 1); }
        else { put(fd, n, n); get(fd, n, n + 1); }
    }
}
