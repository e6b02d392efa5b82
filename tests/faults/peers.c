/* Peers that are not what they should be: the victim of a cheat, and ends of other users and namespaces. */
#include "faults.h"

/* ---- two ends that should (not) meet: prog meet_server WANTED-PATH WANTED-REASON, prog meet_client PORT PATH REASON ---- */
static void meet_run(int fd, int first, char **argv) {
    char b[64] = {0};
    for (int i = 0; i < 300; i++) {
        if (first) CHECK(write_full(fd, b, 64) == 64 && read_full(fd, b, 64) == 64, "talk");
        else CHECK(read_full(fd, b, 64) == 64 && write_full(fd, b, 64) == 64, "talk");
    }
    int path = path_of(fd), reason = reason_of(fd);
    fprintf(stderr, "%s: uid %d path %d reason %d\n", role_name, geteuid(), path, reason);
    int wanted = atoi(argv[0]), why = atoi(argv[1]);
    if (accel() && wanted >= 0) CHECK(wanted == LOCAL ? path == LOCAL : path != LOCAL, "path %d reason %d, expected %d %d", path, reason, wanted, why);
    if (accel() && why >= 0) CHECK(reason == why, "path %d reason %d, expected %d %d", path, reason, wanted, why);
}
SOLO(meet_server) {
    int port, l = listen_on(&port);
    printf("%d\n", port);
    fflush(stdout);
    meet_run(accept_on(l), 0, argv);
}
SOLO(meet_client) { meet_run(connect_to(atoi(argv[0])), 1, argv + 1); }

SOLO(show_cards) {
    int c, s, order[2];
    char x;
    pair(&c, &s);
    put(c, 12345, 1, 0);
    get(s, 12345, 1, 0);
    order[0] = card(c) < card(s) ? c : s;
    order[1] = order[0] == c ? s : c;
    for (int i = 0; i < 2; i++) {
        volatile struct card *k = card(order[i]);
        printf("%s%u %u %u %u", i ? " | " : "", k->fd, k->path, k->reason, k->owner);
        for (volatile uint64_t *n = &k->ring_sends; n <= &k->spins_lost; n++) printf(" %llu", (unsigned long long)*n);
    }
    printf("\n");
    fflush(stdout);
    read(0, &x, 1);
}

/* ---- many honest connections to a victim: prog crowd PORT CONNECTIONS, while standard input is open ---- */
static int by_value(const void *a, const void *b) { return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1; }
SOLO(crowd) {
    int port = atoi(argv[0]), n = atoi(argv[1]), upgraded = 0, *fds = calloc(n, sizeof *fds), most = 200000, count = 0;
    uint32_t *took = calloc(most, sizeof *took);
    char b[100], back[100];
    for (int i = 0; i < n; i++) {
        fds[i] = connect_to(port);
        CHECK(write_full(fds[i], "e", 1) == 1, "hello");
        for (int k = 0; k < 8; k++) { fill(b, 100, i, k); CHECK(write_full(fds[i], b, 100) == 100 && read_full(fds[i], back, 100) == 100 && !memcmp(b, back, 100), "the echo of connection %d", i); }
    }
    printf("ready\n");
    fflush(stdout);
    struct pollfd p = {0, POLLIN, 0};
    for (int turn = 0; poll(&p, 1, 0) == 0 || turn < 3; turn++) for (int i = 0; i < n; i++) {
        fill(b, 100, i, turn);
        uint64_t t = now_us();
        CHECK(write_full(fds[i], b, 100) == 100 && read_full(fds[i], back, 100) == 100 && !memcmp(b, back, 100), "the echo of connection %d in turn %d", i, turn);
        if (count < most) took[count++] = now_us() - t;
    }
    uint64_t ring = 0;
    for (int i = 0; i < n; i++) { upgraded += path_of(fds[i]) == LOCAL; if (i % 100 == 0 && accel()) ring += card(fds[i])->ring_sent_bytes; close(fds[i]); }
    qsort(took, count, sizeof *took, by_value);
    printf("crowd: %d connections, %d in rings; %d echoes, median %u us, p99 %u us\n", n, upgraded, count, took[count / 2], took[count * 99 / 100]);
    if (accel()) CHECK(upgraded >= n * 99 / 100 && ring > 0, "only %d of %d connections are in rings", upgraded, n);
}

/* ---- the victim: 'e' echoes; 'h' uses the connection in every way until it ends; 'c' connects to the port that follows ---- */
static volatile uint64_t calls_made, longest, resets, ended;
static void timed(uint64_t since, const char *what, int how) {
    uint64_t t = now_us() - since;
    if (t > longest) longest = t;
    if (t > 5000000) die("a call that may not block took %llu us: %s %d", (unsigned long long)t, what, how);
    calls_made++;
}
static int over(long r) {
    if (r == 0) { ended++; return 1; }
    if (r < 0 && (errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN || errno == ESHUTDOWN)) { resets++; return 1; }
    CHECK(r > 0 || errno == EAGAIN || errno == EINTR, "a call on a hostile connection gave %ld", r);
    return 0;
}
static void *victim_reader(void *arg) {
    int fd = (int)(intptr_t)arg, e = epoll_create1(0), p[2];
    char b[70000];
    struct epoll_event ev = {.events = EPOLLIN | (rnd(2) ? EPOLLET : 0)};
    epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev);
    Q(pipe2(p, O_NONBLOCK));
    for (;;) {
        long n = 1 + rnd(rnd(2) ? 100 : sizeof b - 1), r = 1;
        struct pollfd q = {fd, POLLIN | (rnd(2) ? POLLOUT : 0), 0};
        uint64_t t = now_us();
        int how = rnd(9), value = 0;
        switch (how) {
        case 0: r = recv(fd, b, n, MSG_DONTWAIT); break;
        case 1: r = recv(fd, b, n, MSG_DONTWAIT | MSG_PEEK); break;
        case 2: r = recv(fd, b, n, MSG_DONTWAIT | MSG_TRUNC); break;
        case 3: poll(&q, 1, rnd(3)); break;
        case 4: epoll_wait(e, &ev, 1, rnd(3)); break;
        case 5: { struct iovec v[2] = {{b, n / 2}, {b + n / 2, n - n / 2}}; struct msghdr m = {.msg_iov = v, .msg_iovlen = 2}; r = recvmsg(fd, &m, MSG_DONTWAIT); break; }
        case 6: { struct timeval tv = {0, 1000}; fd_set s; FD_ZERO(&s); FD_SET(fd, &s); select(fd + 1, &s, NULL, NULL, &tv); break; }
        case 7: { struct timeval tv = {0, 2000}; setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv); r = recv(fd, b, n, rnd(2) ? MSG_WAITALL : 0); break; }
        case 8: { socklen_t l = sizeof value; ioctl(fd, FIONREAD, &value); getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &l); if (splice(fd, NULL, p[1], NULL, 4096, SPLICE_F_NONBLOCK) > 0) read(p[0], b, 65536); break; }
        }
        timed(t, "reader", how);
        if (over(r)) break;
    }
    close(e); close(p[0]); close(p[1]);
    return NULL;
}
static void *victim_writer(void *arg) {
    int fd = (int)(intptr_t)arg;
    static char b[70000];
    for (;;) {
        long n = 1 + rnd(rnd(2) ? 100 : sizeof b - 1), r;
        struct timeval tv = {0, 2000};
        uint64_t t = now_us();
        int how = rnd(3);
        switch (how) {
        case 0: r = send(fd, b, n, MSG_DONTWAIT | MSG_NOSIGNAL); break;
        case 1: setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv); r = send(fd, b, n, MSG_NOSIGNAL); break;
        default: { struct iovec v[2] = {{b, n / 2}, {b + n / 2, n - n / 2}}; struct msghdr m = {.msg_iov = v, .msg_iovlen = 2}; r = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT); }
        }
        timed(t, "writer", how);
        if (r < 0 && errno == EAGAIN) { struct timespec z = {0, 100000}; nanosleep(&z, NULL); continue; }
        if (over(r)) return NULL;
    }
}
static void *victim_connection(void *arg) {
    int fd = (int)(intptr_t)arg;
    char b[4096], kind;
    if (read(fd, &kind, 1) != 1) { close(fd); return NULL; }
    if (kind == 'c') {
        uint16_t port;
        CHECK(read_full(fd, &port, 2) == 2, "port");
        close(fd);
        fd = connect_to(port);
        for (int i = 0; i < 400; i++) { if (write_full(fd, b, 64) != 64 || read_full(fd, b, 64) != 64) break; }
        close(fd);
        return NULL;
    }
    if (kind == 'h') {
        pthread_t w;
        pthread_create(&w, NULL, victim_writer, arg);
        victim_reader(arg);
        pthread_join(w, NULL);
    } else {
        long r;
        while ((r = read(fd, b, sizeof b)) > 0) if (write_full(fd, b, r) != r) break;
    }
    close(fd);
    return NULL;
}
static void *victim_accepts(void *arg) {
    for (;;) {
        pthread_t t;
        int fd = accept((int)(intptr_t)arg, NULL, NULL);
        if (fd < 0) return NULL;
        pthread_create(&t, NULL, victim_connection, (void *)(intptr_t)fd);
        pthread_detach(t);
    }
}
SOLO(victim) {
    int port, l = listen_on(&port), c, s, p2, l2 = listen_on(&p2);
    pair_on(l2, p2, &c, &s);
    warm_pair(c, s, 1);
    close(c); close(s);
    pthread_t t;
    pthread_create(&t, NULL, victim_accepts, (void *)(intptr_t)l);
    WAIT(is_asleep(getpid(), getpid()), 1);
    struct held before;
    WAIT((before = held()).threads == 2, 1000);
    before = held();
    printf("%d\n", port);
    fflush(stdout);
    char line[8];
    read(0, line, 1); /* told to end */
    check_held(before, "after the attacks");
    pair_on(l2, p2, &c, &s);
    warm_pair(c, s, 1);
    put(c, 1000, 1, 0); get(s, 1000, 1, 0);
    printf("victim: %llu calls, longest %llu us, %llu ends by reset, %llu by end of stream; later connections accelerated\n", (unsigned long long)calls_made, (unsigned long long)longest, (unsigned long long)resets, (unsigned long long)ended);
}
