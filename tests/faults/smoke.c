/* A server and a client that do a little of everything: for other allocators, sanitizers, debuggers, tracers. */
#include "faults.h"

static int messages(void) { return scaled(60); }
static long length_of(int i) { return 1 + i * 7919 % 20000; }
static uint64_t by_ring;
/* One connection's worth, in every form of call, with memory from the heap. */
static void *client_connection(void *arg) {
    int fd = connect_to((int)(intptr_t)arg);
    warm(fd, 1);
    for (int i = 0; i < messages(); i++) {
        long n = length_of(i);
        char *out = malloc(n), *back = malloc(n);
        fill(out, n, i, 0);
        struct iovec v[2] = {{out, n / 2}, {out + n / 2, n - n / 2}};
        struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
        struct pollfd p = {fd, POLLIN, 0};
        long sent = i % 3 == 0 ? send(fd, out, n, 0) : i % 3 == 1 ? writev(fd, v, 2) : sendmsg(fd, &m, 0);
        CHECK(sent == n, "sent %ld of %ld", sent, n);
        if (i % 2) CHECK(poll(&p, 1, 20000) == 1, "poll");
        CHECK(read_full(fd, back, n) == n && !memcmp(out, back, n), "the answer to message %d", i);
        free(out); free(back);
    }
    if (accel()) __atomic_fetch_add(&by_ring, card(fd)->ring_sent_bytes + card(fd)->ring_received_bytes, __ATOMIC_RELAXED);
    close(fd);
    return NULL;
}
ROLE(smoke_client) {
    int port = atoi(argv[0]);
    pthread_t t[3];
    for (int i = 0; i < 3; i++) CHECK(!pthread_create(&t[i], NULL, client_connection, (void *)(intptr_t)port), "thread");
    pid_t p = Q(fork());
    if (!p) _exit(0);
    reap(p);
    client_connection((void *)(intptr_t)port);
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    if (accel() && spins_always()) CHECK(by_ring > 0, "no byte went by a ring");
}
static void *server_connection(void *arg) {
    int fd = (int)(intptr_t)arg, e = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    warm(fd, 0);
    Q(epoll_ctl(e, EPOLL_CTL_ADD, fd, &event));
    char *b = malloc(20000);
    long r;
    while (epoll_wait(e, &event, 1, 20000) == 1 && (r = recv(fd, b, 20000, 0)) > 0) CHECK(write_full(fd, b, r) == r, "echo");
    free(b);
    close(e); close(fd);
    return NULL;
}
ROLE(smoke_server) {
    int port, l = listen_on(&port);
    pthread_t t[4];
    tell(port);
    for (int i = 0; i < 4; i++) { int fd = accept_on(l); pthread_create(&t[i], NULL, server_connection, (void *)(intptr_t)fd); }
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
}
CASE(smoke) {
    struct role s = spawn("smoke_server");
    finish(spawn("smoke_client", number(hear_on(s.control))));
    finish(s);
    printf("smoke: 4 connections, %d messages each\n", messages());
}
/* For a debugger that stops here: one thread, both ends in rings. */
__attribute__((noinline)) void marked(int fd, const void *p, long n) { CHECK(send(fd, p, n, 0) == n, "send"); }
SOLO(smoke_alone) {
    int c, s;
    char b[100];
    pair(&c, &s);
    for (int i = 0; i < 20; i++) { fill(b, 100, i, 0); marked(c, b, 100); get(s, 100, i, 0); }
    if (accel()) CHECK(path_of(c) == LOCAL && (card(c)->ring_sent_bytes > 0 || !spins_always()), "path %d", path_of(c));
    printf("smoke_alone: 20 messages\n");
}
