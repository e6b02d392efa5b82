/* Switching under load, giving sockets away, limits, and many of everything. */
#include "faults.h"

/* ---- both directions switch between ring and kernel all the time ---- */
static volatile int no_think;
struct one_way { int fd; uint32_t seed; uint64_t total, done; int kind; };
static void *switching_writer(void *arg) {
    struct one_way *w = arg;
    char b[60000];
    int file = memfd_create("data", MFD_CLOEXEC), pipes[2];
    Q(pipe(pipes));
    while (w->done < w->total) {
        uint64_t left = w->total - w->done;
        long n = w->kind ? 50000 : 1 + rnd(rnd(8) ? 300 : 20000);
        if ((uint64_t)n > left) n = left;
        fill(b, n, w->seed, w->done);
        long r;
        switch (w->kind ? 0 : rnd(12)) {
        case 0: { Q(ftruncate(file, 0)); Q(pwrite(file, b, n, 0)); off_t at = 0; r = sendfile(w->fd, file, &at, n); break; }
        case 1: { long in = write(pipes[1], b, n > 4096 ? 4096 : n); r = 0; while (r < in) { long s = splice(pipes[0], NULL, w->fd, NULL, in - r, 0); CHECK(s > 0, "splice %ld", s); r += s; } break; }
        case 2: { struct iovec v[3] = {{b, n / 3}, {b + n / 3, n / 3}, {b + n / 3 * 2, n - n / 3 * 2}}; r = writev(w->fd, v, 3); break; }
        case 3: { r = send(w->fd, b, n, MSG_DONTWAIT); if (r < 0 && errno == EAGAIN) { struct pollfd p = {w->fd, POLLOUT, 0}; CHECK(poll(&p, 1, 20000) == 1, "poll for room"); continue; } break; }
        case 4: { if (!no_think) { struct timespec t = {0, rnd(60000)}; nanosleep(&t, NULL); } r = write(w->fd, b, n); break; }
        case 5: { struct msghdr m = {.msg_iov = &(struct iovec){b, n}, .msg_iovlen = 1}; r = sendmsg(w->fd, &m, MSG_NOSIGNAL | (rnd(2) ? MSG_MORE : 0)); break; }
        default: r = send(w->fd, b, n, MSG_NOSIGNAL);
        }
        CHECK(r > 0, "a send gave %ld", r);
        w->done += r;
        /* Room for the reader to empty the connection: only then is a direction opened again. */
        if (w->kind && !no_think) { struct timespec t = {0, rnd(60000)}; nanosleep(&t, NULL); }
    }
    close(file); close(pipes[0]); close(pipes[1]);
    return NULL;
}
/* A wait has said that the mark is reached; the program sees its own mark, whatever the kernel holds. */
static void reached(const struct one_way *r, int mark) {
    int have = 0, own = 0;
    socklen_t length = sizeof own;
    Q(ioctl(r->fd, FIONREAD, &have));
    Q(getsockopt(r->fd, SOL_SOCKET, SO_RCVLOWAT, &own, &length));
    CHECK(have >= mark && own == mark, "readable with %d bytes, mark %d, getsockopt %d", have, mark, own);
}
static void *switching_reader(void *arg) {
    struct one_way *r = arg;
    char b[65536];
    int mark = 1, e = epoll_create1(0), pipes[2];
    struct epoll_event ev = {.events = EPOLLIN};
    Q(epoll_ctl(e, EPOLL_CTL_ADD, r->fd, &ev));
    Q(pipe(pipes));
    while (r->done < r->total) {
        long n = 0, least = 1, most = 1 + rnd(rnd(3) ? 500 : sizeof b - 1);
        if ((uint64_t)most > r->total - r->done) most = r->total - r->done;
        struct pollfd p = {r->fd, POLLIN, 0};
        fd_set s;
        FD_ZERO(&s); FD_SET(r->fd, &s);
        if (mark > 1 && r->total - r->done < 80000) { /* nobody may wait for 100 bytes when fewer are to come */
            mark = 1;
            Q(setsockopt(r->fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof mark));
        }
        switch (r->kind ? 11 : rnd(12)) {
        case 0: CHECK(poll(&p, 1, 20000) == 1, "poll: nothing for 20 s at %llu of %llu", (unsigned long long)r->done, (unsigned long long)r->total); reached(r, mark); n = recv(r->fd, b, most, MSG_DONTWAIT); break;
        case 1: CHECK(epoll_wait(e, &ev, 1, 20000) == 1, "epoll_wait: nothing for 20 s at %llu of %llu", (unsigned long long)r->done, (unsigned long long)r->total); reached(r, mark); n = recv(r->fd, b, most, MSG_DONTWAIT); break;
        case 2: CHECK(select(r->fd + 1, &s, NULL, NULL, &(struct timeval){20, 0}) == 1, "select"); reached(r, mark); n = read(r->fd, b, most); break;
        case 3: if (r->total - r->done > 160000 && mark == 1) { mark = 100; } else mark = 1; Q(setsockopt(r->fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof mark)); continue;
        case 4: n = recv(r->fd, b, most, MSG_PEEK); CHECK(n >= (most < mark ? most : mark), "peek of %ld of %ld, mark %d", n, most, mark); verify(b, n, r->seed, r->done); continue;
        case 5: if (most > 2000) most = 2000; n = recv(r->fd, b, most, MSG_WAITALL); break;
        case 6: n = splice(r->fd, NULL, pipes[1], NULL, most > 4096 ? 4096 : most, 0); CHECK(n > 0, "splice in %ld", n); CHECK(read_full(pipes[0], b, n) == n, "pipe"); break;
        case 7: if (!no_think) { struct timespec t = {0, rnd(100000)}; nanosleep(&t, NULL); } n = recv(r->fd, b, most, 0); least = mark; break;
        case 8: { struct iovec v[2] = {{b, most / 2}, {b + most / 2, most - most / 2}}; n = readv(r->fd, v, 2); least = mark; break; }
        case 9: n = recv(r->fd, b, most, MSG_DONTWAIT); break;
        default: n = read(r->fd, b, most); least = mark;
        }
        if (n < 0 && errno == EAGAIN) continue;
        CHECK(n >= (most < least ? most : least), "a receive of %ld gave %ld at %llu, mark %d", most, n, (unsigned long long)r->done, mark);
        verify(b, n, r->seed, r->done);
        r->done += n;
    }
    close(e); close(pipes[0]); close(pipes[1]);
    return NULL;
}
static void both_ways(int fd, int first, uint64_t bytes, int kind) {
    struct one_way out = {fd, first ? 1 : 2, bytes, 0, kind}, in = {fd, first ? 2 : 1, bytes, 0, kind};
    pthread_t w;
    CHECK(!pthread_create(&w, NULL, switching_writer, &out), "thread");
    switching_reader(&in);
    pthread_join(w, NULL);
}
static void congestion(int fd, const char *name) {
    if (*name && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, strlen(name))) fprintf(stderr, "note: no %s here\n", name);
}
ROLE(switch_side) { /* PORT WANTED KIND CONGESTION */
    int port = atoi(argv[0]), l = -1, fd;
    uint64_t wanted = atoi(argv[1]), rounds = 0, switches = 0;
    if (port) fd = connect_to(port);
    else { l = listen_on(&port); tell(port); fd = accept_on(l); port = 0; }
    congestion(fd, argv[3]);
    warm(fd, port != 0);
    volatile struct card *c = card(fd);
    uint64_t chunk = 2000000, t = now_us();
    for (;;) {
        both_ways(fd, port != 0, chunk, atoi(argv[2]));
        rounds++;
        switches = c ? c->opened * 2 : wanted;
        /* both must agree to go on */
        char b = switches < wanted && rounds < 5000 && now_us() - t < 60000000, o;
        CHECK(write_full(fd, &b, 1) == 1 && read_full(fd, &o, 1) == 1, "agree");
        if (!b && !o) break;
    }
    if (c) printf("switching%s %s: %llu kB each way, %llu switches of one direction (%llu opened, %llu closed to sleep, %llu full), ring %llu kB\n", argv[2][0] == '1' ? " 50 kB" : "", argv[3], (unsigned long long)(rounds * chunk) >> 10, (unsigned long long)switches, (unsigned long long)c->opened, (unsigned long long)c->closed_to_sleep, (unsigned long long)c->closed_full, (unsigned long long)c->ring_received_bytes >> 10);
    if (c) CHECK(switches >= wanted / 10, "only %llu switches", (unsigned long long)switches);
    if (l >= 0) close(l);
    close(fd);
}
CASE(switching) { /* KIND CONGESTION */
    const char *kind = argc > 0 ? argv[0] : "0", *cc = argc > 1 ? argv[1] : "";
    int wanted = scaled(atoi(kind) ? 500 : 2000);
    struct role s = spawn("switch_side", "0", number(wanted), kind, cc);
    struct role c = spawn("switch_side", number(hear_on(s.control)), number(wanted), kind, cc);
    finish(c);
    finish(s);
}

/* ---- SCM_RIGHTS in mid-stream to a program without accel ---- */
static void send_fd(int via, int fd) {
    char room[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec v = {"f", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    *h = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
    CHECK(sendmsg(via, &m, 0) == 1, "sendmsg of a descriptor");
}
static int receive_fd(int via) {
    char room[CMSG_SPACE(sizeof(int))], c;
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    CHECK(recvmsg(via, &m, 0) == 1, "recvmsg of a descriptor");
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    return fd;
}
ROLE(giver) { /* HOW */
    int how = atoi(argv[0]), port, l = listen_on(&port);
    tell(port);
    int fd = accept_on(l);
    warm(fd, 0);
    tell(1);
    hear();                      /* the peer has sent 5000 bytes into the ring */
    get(fd, 1000, 1, 0);
    put(fd, 300, 2, 0);          /* ours, unread by the peer */
    if (how == 0) {              /* SCM_RIGHTS, to a program without accel */
        send_fd(CONTROL, fd);
        close(fd);
    } else if (how == 1) {       /* exec: the next program has it on 0 and 1 */
        dup2(fd, 0); dup2(fd, 1); close(fd);
        tell(2);
        execl(program, program, "taker", "0", NULL);
        die("exec");
    } else if (how == 2) {       /* fdopen */
        FILE *f = fdopen(fd, "r+");
        tell(2);
        char b[4000];
        CHECK(fread(b, 1, 4000, f) == 4000, "fread");
        verify(b, 4000, 1, 1000);
        fseek(f, 0, SEEK_CUR);
        fill(b, 500, 2, 300);
        CHECK(fwrite(b, 1, 500, f) == 500 && fclose(f) == 0, "fwrite");
    } else if (how == 3) {       /* fork; the child execs a program without accel, as inetd does */
        pid_t p = Q(fork());
        if (!p) { dup2(fd, 0); dup2(fd, 1); tell(2); unsetenv("LD_PRELOAD"); execl(program, program, "taker", "0", NULL); die("exec"); }
        close(fd);
        reap(p);
    } else if (how == 4) {       /* posix_spawn with the socket as its standard input */
        posix_spawn_file_actions_t a;
        posix_spawn_file_actions_init(&a);
        posix_spawn_file_actions_adddup2(&a, fd, 0);
        posix_spawn_file_actions_adddup2(&a, fd, 1);
        char *argv_[] = {(char *)program, "taker", "0", NULL};
        pid_t p;
        CHECK(posix_spawn(&p, program, &a, NULL, argv_, environ) == 0, "posix_spawn");
        tell(2);
        close(fd);
        reap(p);
    }
}
ROLE(taker) { /* continues with the stream on a descriptor */
    int fd = atoi(argv[0]);
    if (fd < 0) fd = receive_fd(CONTROL);
    get(fd, 4000, 1, 1000);
    put(fd, 500, 2, 300);
    shutdown(fd, SHUT_WR);
}
ROLE(talker) { /* PORT HOW-IT-WAITS */
    int fd = connect_to(atoi(argv[0])), how = atoi(argv[1]);
    warm(fd, 1);
    put(fd, 5000, 1, 0);
    volatile struct card *c = card(fd);
    tell(c ? (int)(c->ring_sent_bytes) : 1);
    CHECK(hear() == 0, "go");
    /* any call brings the unread bytes to the new holder */
    if (how == 1) { struct pollfd p = {fd, POLLIN, 0}; while (poll(&p, 1, -1) != 1) {} get(fd, 300, 2, 0); CHECK(poll(&p, 1, 20000) == 1, "poll: nothing for 20 s"); }
    if (how == 2) { int e = epoll_create1(0); struct epoll_event ev = {.events = EPOLLIN}; Q(epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev)); CHECK(epoll_wait(e, &ev, 1, 20000) == 1, "epoll"); get(fd, 300, 2, 0); CHECK(epoll_wait(e, &ev, 1, 20000) == 1, "epoll_wait: nothing for 20 s"); }
    if (how == 3) { fd_set s; FD_ZERO(&s); FD_SET(fd, &s); get(fd, 300, 2, 0); CHECK(select(fd + 1, &s, NULL, NULL, &(struct timeval){20, 0}) == 1, "select: nothing for 20 s"); }
    if (how == 0 || how == 4) get(fd, 300, 2, 0);
    if (how == 4) { shutdown(fd, SHUT_WR); }
    get(fd, 500, 2, 300);
    char b[1];
    CHECK(recv(fd, b, 1, 0) == 0, "no EOF from the new holder");
}
CASE(given_away) {
    int rounds = scaled(1), n = 0, by_ring = 0;
    for (int r = 0; r < rounds; r++) for (int how = 0; how < 5; how++) for (int wait = 0; wait < 5; wait++) {
        struct role g = spawn("giver", number(how));
        struct role t = spawn("talker", number(hear_on(g.control)), number(wait));
        CHECK(hear_on(g.control) == 1, "giver, way %d", how);
        int ring = hear_on(t.control);
        CHECK(ring >= 0, "talker, way %d", how);
        by_ring += ring > 0;
        tell_on(g.control, 0);
        if (how == 0) {
            int fd = receive_fd(g.control);
            struct role k = spawn_with(0, "taker", "-1", NULL);
            send_fd(k.control, fd);
            close(fd);
            tell_on(t.control, 0);
            finish(k);
        } else { CHECK(hear_on(g.control) == 2, "given, way %d", how); tell_on(t.control, 0); }
        if (getenv("FAULTS_VERBOSE")) fprintf(stderr, "given_away: way %d, wait %d\n", how, wait);
        finish(g);
        finish(t);
        n++;
    }
    CHECK(by_ring * 2 > n, "only %d of %d found bytes in the ring", by_ring, n);
    printf("given_away: %d times (SCM_RIGHTS to a plain program, exec, fdopen, fork+exec, posix_spawn; the peer in recv, poll, epoll, select, shutdown) with bytes unread both ways\n", n);
}

/* ---- given away with more unread than the kernel takes: its sender may not hang ---- */
ROLE(full_giver) {
    int port, l = listen_on(&port), small = 4096;
    Q(setsockopt(l, SOL_SOCKET, SO_RCVBUF, &small, sizeof small));
    tell(port);
    int fd = accept_on(l);
    warm(fd, 0);
    tell(1);
    hear();                      /* the peer has sent */
    dup2(fd, 0); close(fd);
    execl(program, program, "full_taker", NULL);
    die("exec");
}
ROLE(full_taker) {
    tell(2);
    int total = hear();          /* until then nobody reads */
    get(0, total, 1, 0);
    put(0, 10, 2, 0);
}
ROLE(full_talker) { /* PORT */
    int fd = connect_to(atoi(argv[0])), small = 4096;
    char b[100000];
    warm(fd, 1);
    volatile struct card *c = card(fd);
    uint64_t before = c ? c->ring_sent_bytes : 0;
    Q(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small));
    fill(b, sizeof b, 1, 0);
    long n = Q(send(fd, b, sizeof b, MSG_DONTWAIT)), r;
    tell(c && c->ring_sent_bytes - before == sizeof b);
    CHECK(hear() == 0, "go");
    Q(fcntl(fd, F_SETFL, O_NONBLOCK));
    do { fill(b, 1, 1, n); r = send(fd, b, 1, MSG_NOSIGNAL); n += r > 0; } while (r > 0);
    CHECK(errno == EAGAIN, "a send to a full kernel");
    struct pollfd p = {fd, POLLOUT, 0};
    CHECK(poll(&p, 1, 0) == 0, "writable although the kernel is full");
    Q(fcntl(fd, F_SETFL, 0));
    tell(n + 1000);
    put(fd, 1000, 1, n);
    get(fd, 10, 2, 0);
    CHECK(recv(fd, b, 1, 0) == 0, "no EOF from the new holder");
}
CASE(given_away_full) {
    int rounds = scaled(5), by_ring = 0;
    for (int r = 0; r < rounds; r++) {
        struct role g = spawn("full_giver"), t = spawn("full_talker", number(hear_on(g.control)));
        CHECK(hear_on(g.control) == 1, "giver");
        by_ring += hear_on(t.control);
        tell_on(g.control, 0);
        CHECK(hear_on(g.control) == 2, "given");
        tell_on(t.control, 0);
        int total = hear_on(t.control);
        CHECK(total > 0, "talker");
        tell_on(g.control, total);
        finish(t);
        finish(g);
    }
    CHECK(!accel() || by_ring > 0, "the bytes never went by the ring");
    printf("given_away_full: %d times, %d with 100,000 bytes in the ring and no room for them in the kernel\n", rounds, by_ring);
}

/* ---- kTLS in mid-stream: the option leaves the stream where the kernel left it ---- */
SOLO(ktls) {
    int c, s;
    pair(&c, &s);
    put_ring(c, 500, 1, 0);
    int r = setsockopt(s, IPPROTO_TCP, TCP_ULP, "tls", 3);
    int e = errno;
    CHECK(r == 0 || e == ENOENT || e == ENOPROTOOPT || e == EPERM, "TCP_ULP: errno %d", e);
    if (accel()) CHECK(path_of(s) == KERNEL, "path %d after TCP_ULP", path_of(s));
    get(s, 500, 1, 0);
    put(s, 300, 2, 0);
    put(c, 300, 1, 500);
    get(c, 300, 2, 0);
    get(s, 300, 1, 500);
    if (accel()) CHECK(card(c)->ring_sent_bytes <= 500 + 64 * 300, "?");
    printf("ktls: TCP_ULP %s; the stream went on\n", r ? "not here" : "set");
}

/* ---- seccomp ---- */
static void filter(const int *allowed, int n) {
    struct sock_filter f[64] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    int at = 1;
    for (int i = 0; i < n; i++) f[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], n - i, 0);
    f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog p = {at, f};
    Q(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    Q(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p, 0, 0));
}
ROLE(confined) { /* HOW */
    int how = atoi(argv[0]), port, l = listen_on(&port);
    tell(port);
    int fd = accept_on(l);
    warm(fd, 0);
    tell(1);
    hear();
    static char b[20000];
    long at = 0, r;
    static const int few[] = {SYS_read, SYS_write, SYS_sendto, SYS_recvfrom, SYS_futex, SYS_exit_group, SYS_exit, SYS_rt_sigreturn, SYS_munmap, SYS_mmap, SYS_brk, SYS_close, SYS_clock_gettime};
    if (how == 0) Q(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
    else filter(few, sizeof few / sizeof *few);
    while (at < 14000) {
        r = how == 2 ? recv(fd, b + at, sizeof b - at, 0) : read(fd, b + at, sizeof b - at);
        if (r <= 0) syscall(SYS_exit, 7);
        at += r;
    }
    for (long i = 0; i < 14000; i++) if ((unsigned char)b[i] != byte_at(1, i)) syscall(SYS_exit, 8);
    for (long i = 0; i < 6000; i++) b[i] = byte_at(2, i);
    for (at = 0; at < 6000; at += r) {
        r = how == 2 ? send(fd, b + at, 6000 - at, 0) : write(fd, b + at, 6000 - at);
        if (r <= 0) syscall(SYS_exit, 9);
    }
    if (how) { for (at = 14000; at < 15000; at += r) { r = read(fd, b, 15000 - at); if (r <= 0) syscall(SYS_exit, 10); } }
    else { for (at = 14000; at < 15000; at += r) { r = read(fd, b, 100); if (r <= 0) syscall(SYS_exit, 10); } }
    if (how == 1) { close(fd); exit(0); }
    syscall(how == 2 ? SYS_exit_group : SYS_exit, 0);
}
ROLE(confined_peer) {
    int fd = connect_to(atoi(argv[0]));
    warm(fd, 1);
    put(fd, 4000, 1, 0);
    tell(1);
    hear();
    put(fd, 10000, 1, 4000);
    get(fd, 6000, 2, 0);
    put(fd, 1000, 1, 14000);
    char b[1];
    long r = recv(fd, b, 1, 0);
    CHECK(r == 0 || errno == ECONNRESET, "the end of the confined one: %ld", r);
}
CASE(seccomp) {
    int n = scaled(6); /* the peer takes back what was waiting in one of twenty */
    for (int i = 0; i < 3 * n; i++) {
        struct role s = spawn("confined", number(i % 3));
        struct role c = spawn("confined_peer", number(hear_on(s.control)));
        CHECK(hear_on(s.control) == 1 && hear_on(c.control) == 1, "ready");
        tell_on(s.control, 0);
        if (i / 3 % 2) wait_asleep(s.pid, s.pid); /* in read already */
        tell_on(c.control, 0);
        finish(c);
        finish(s);
    }
    printf("seccomp: %d connections, upgraded first: strict mode, a filter of 13 calls with read/write, the same with recv/send\n", 3 * n);
}
static long raw_call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "0"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
SOLO(io_uring) { /* what a ring would read and write comes past libc: the kernel must have every byte */
    int c, s, c2, s2;
    char params[256] = {0}, b[400];
    pair(&c, &s);
    put_ring(c, 100, 1, 0);
    long fd = syscall(SYS_io_uring_setup, 4, params);
    int e = errno;
    CHECK(fd >= 0 || e == ENOSYS || e == EPERM || e == EACCES, "io_uring_setup: %ld errno %d", fd, e);
    if (fd < 0) { printf("io_uring: not allowed here\n"); return; }
    put(c, 100, 1, 100);
    long at = 0, r;
    while (at < 200) { r = raw_call(SYS_read, s, (long)(b + at), sizeof b - at); CHECK(r > 0, "a read past libc gives %ld", r); at += r; }
    verify(b, 200, 1, 0);
    fill(b, 50, 2, 0);
    CHECK(raw_call(SYS_write, s, (long)b, 50) == 50, "a write past libc");
    get(c, 50, 2, 0);
    int port, l = listen_on(&port);
    pair_on(l, port, &c2, &s2);
    warm_pair(c2, s2, 0);
    if (accel()) CHECK(path_of(c2) != LOCAL && path_of(s2) != LOCAL, "a socket of a program with io_uring is upgraded");
    printf("io_uring: set up; every byte by the kernel\n");
}

SOLO(io_uring_refused) { /* as where the kernel lacks it: what has rings keeps them, and more is upgraded */
    int c, s, c2, s2;
    char params[256] = {0};
    pair(&c, &s);
    if (accel()) {
        CHECK(syscall(SYS_io_uring_setup, 4, params) == -1 && errno == ENOSYS, "io_uring_setup is not refused");
        CHECK(syscall(SYS_io_uring_setup, 0, NULL) == -1 && errno == ENOSYS, "io_uring_setup is not refused");
    }
    put_ring(c, 100, 1, 0);
    get(s, 100, 1, 0);
    pair(&c2, &s2);
    put_ring(c2, 100, 1, 0);
    get(s2, 100, 1, 0);
    printf("io_uring_refused: connections are upgraded as ever\n");
}

/* ---- limits ---- */
static void talk(int c, int s, int n) { for (int i = 0; i < n; i++) { put(c, 100, 1, i * 100); get(s, 100, 1, i * 100); put(s, 100, 2, i * 100); get(c, 100, 2, i * 100); } }
SOLO(limit_fds) {
    int port, l = listen_on(&port), upgraded = 0, kernel = 0;
    struct rlimit r, low;
    getrlimit(RLIMIT_NOFILE, &r);
    int n = scaled(40);
    for (int i = 0; i < n; i++) {
        int c, s;
        pair_on(l, port, &c, &s);
        if (i == 0) { talk(c, s, 30); cards(); }
        int top = dup(s);
        close(top);
        low = r;
        low.rlim_cur = top + i % 4;   /* none, one, two, three free numbers */
        Q(setrlimit(RLIMIT_NOFILE, &low));
        talk(c, s, 30);
        if (i % 4 == 0) { int x = dup(s); CHECK(x < 0 && errno == EMFILE, "dup gives %d at the limit", x); }
        Q(setrlimit(RLIMIT_NOFILE, &r));
        talk(c, s, 100);
        if (accel()) { if (path_of(c) == LOCAL) upgraded++; else kernel++; }
        close(c); close(s);
    }
    struct held h = held();
    CHECK(h.channels == 0 && h.fds <= 12, "left: %d fds %d channels", h.fds, h.channels);
    printf("limit_fds: %d meetings at RLIMIT_NOFILE with 0..3 free numbers: no call failed; %d upgraded later, %d stayed\n", n, upgraded, kernel);
}
SOLO(limit_fds_life) { /* the limit goes down far below our own descriptors, and up */
    int port, l = listen_on(&port), c, s;
    pair(&c, &s);
    struct rlimit r, low;
    getrlimit(RLIMIT_NOFILE, &r);
    for (int i = 0; i < 20; i++) {
        low = r; low.rlim_cur = i % 2 ? 64 : 1024;
        Q(setrlimit(RLIMIT_NOFILE, &low));
        int c2, s2;
        pair_on(l, port, &c2, &s2);
        talk(c2, s2, 20);
        talk(c, s, 5);
        close(c2); close(s2);
        Q(setrlimit(RLIMIT_NOFILE, &r));
    }
    printf("limit_fds_life: 20 changes of RLIMIT_NOFILE\n");
}
static void errno_filter(int call, int error) {
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog p = {4, f};
    Q(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    Q(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p, 0, 0));
}
/* In a process whose parent set the filter, so that the library could not see it come. */
ROLE(failing_child) {
    int port, l = listen_on(&port), upgraded = 0;
    for (int i = 0; i < 10; i++) {
        int c, s;
        pair_on(l, port, &c, &s);
        talk(c, s, 100);
        upgraded += path_of(c) == LOCAL;
        close(c); close(s);
    }
    struct held h = held();
    CHECK(h.channels == 0, "%d channels left", h.channels);
    printf("%s: talked; %d upgraded\n", argv[0], upgraded);
}
CASE(failing) {
    static const struct { const char *name; int call, error; } f[] = {
        {"memfd_create EPERM", SYS_memfd_create, EPERM}, {"memfd_create ENOSYS", SYS_memfd_create, ENOSYS}, {"memfd_create EMFILE", SYS_memfd_create, EMFILE},
        {"ftruncate ENOSPC", SYS_ftruncate, ENOSPC}, {"mmap ENOMEM", -1, 0}, {"socket EMFILE", -2, 0}, {"getsockopt EPERM", SYS_getsockopt, EPERM},
        {"bind EACCES", -3, 0}, {"sendmsg EPERM", SYS_sendmsg, EPERM}, {"recvmsg EPERM", SYS_recvmsg, EPERM}, {"kill EPERM", SYS_kill, EPERM},
        {"sched_yield ENOSYS", SYS_sched_yield, ENOSYS}, {"getcpu ENOSYS", SYS_getcpu, ENOSYS}, {"fcntl EPERM", -4, 0}, {"ioctl EPERM", SYS_ioctl, EPERM}};
    int n = 0;
    for (size_t i = 0; i < sizeof f / sizeof *f; i++) {
        if (f[i].call < 0) continue;
        pid_t p = Q(fork());
        if (!p) {
            if (accel()) setenv("LD_PRELOAD", getenv("FAULTS_LIB"), 1);
            errno_filter(f[i].call, f[i].error);
            execl(program, program, "failing_child", f[i].name, NULL);
            _exit(9);
        }
        reap(p);
        n++;
    }
    printf("failing: %d calls that fail for the library; no call of the program did\n", n);
}
SOLO(limit_memory) { /* RLIMIT_AS with little left */
    int port, l = listen_on(&port), c[40], s[40], upgraded = 0;
    pair_on(l, port, &c[0], &s[0]); talk(c[0], s[0], 20); cards();
    FILE *f = fopen("/proc/self/statm", "r");
    long pages = 0;
    fscanf(f, "%ld", &pages);
    fclose(f);
    struct rlimit low = {pages * 4096 + (3 << 20), RLIM_INFINITY};
    Q(setrlimit(RLIMIT_AS, &low));
    for (int i = 1; i < 40; i++) { pair_on(l, port, &c[i], &s[i]); talk(c[i], s[i], 30); upgraded += path_of(c[i]) == LOCAL; }
    for (int i = 0; i < 40; i++) { close(c[i]); close(s[i]); }
    printf("limit_memory: 39 connections with 3 MB of address space left: no call failed, %d upgraded\n", upgraded);
    if (accel()) CHECK(upgraded < 39, "the limit did nothing");
}
SOLO(allowance) { /* run with ACCEL_LOCAL_MEMORY */
    int port, l = listen_on(&port), c[20], s[20], upgraded = 0, again = 0;
    for (int i = 0; i < 20; i++) { pair_on(l, port, &c[i], &s[i]); talk(c[i], s[i], 60); upgraded += path_of(c[i]) == LOCAL && path_of(s[i]) == LOCAL; }
    for (int i = 0; i < 20; i++) { close(c[i]); close(s[i]); }
    for (int i = 0; i < 100; i++) { int a, b; pair_on(l, port, &a, &b); talk(a, b, 20); again += path_of(a) == LOCAL && path_of(b) == LOCAL; close(a); close(b); }
    int most = argc ? atoi(argv[0]) : 0, later = argc > 1 ? atoi(argv[1]) : 0;
    printf("allowance %s: %d of 20 at once, %d of 100 one by one\n", getenv("ACCEL_LOCAL_MEMORY"), upgraded, again);
    if (accel()) CHECK(upgraded <= most && again >= later && (later || !again), "expected at most %d at once and %d one by one", most, later);
}
ROLE(bare_child) {
    int port, l = listen_on(&port), c, s;
    CHECK(access("/proc/self", F_OK) != 0, "/proc is there");
    pair_on(l, port, &c, &s);
    talk(c, s, 100);
    printf("no_proc: talked without /proc\n");
}
CASE(no_proc) {
    pid_t p = Q(fork());
    if (!p) {
        if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("none", "/proc", "tmpfs", 0, NULL)) { printf("no_proc: not allowed here\n"); fflush(stdout); _exit(0); }
        if (accel()) setenv("LD_PRELOAD", getenv("FAULTS_LIB"), 1);
        execl(program, program, "bare_child", NULL);
        _exit(9);
    }
    reap(p);
}

/* ---- many connections: flat memory and descriptors ---- */
SOLO(cycles) {
    int port, l = listen_on(&port), per = scaled(300), upgraded = 0, total = 0;
    long rss[6] = {0};
    struct held h0 = {0};
    for (int turn = 0; turn < 6; turn++) {
        for (int i = 0; i < per; i++) {
            int c, s;
            pair_on(l, port, &c, &s);
            talk(c, s, 4 + i % 5);
            upgraded += path_of(c) == LOCAL;
            total++;
            if (i % 3 == 0) put(c, 100, 1, 0);
            if (i % 2) { close(c); close(s); } else { close(s); close(c); }
        }
        rss[turn] = rss_kb();
        if (!turn) h0 = held(); else check_held(h0, "after a turn of cycles");
    }
    CHECK(rss[5] <= rss[0] + rss[0] / 20 + 64, "RSS grows: %ld kB after one turn, %ld kB after six", rss[0], rss[5]);
    if (accel()) CHECK(upgraded > total * 9 / 10, "only %d of %d upgraded", upgraded, total);
    printf("cycles: 6 × %d connections, %d upgraded; RSS %ld %ld %ld %ld %ld %ld kB, %d fds, %d channels\n", per, upgraded, rss[0], rss[1], rss[2], rss[3], rss[4], rss[5], h0.fds, h0.channels);
}
SOLO(reuse) { /* the numbers of live sockets are taken by others, in every way */
    int rounds = scaled(60), port, l = listen_on(&port);
    struct held h = {0};
    for (int i = 0; i < rounds; i++) {
        int c, s, p[2];
        pair_on(l, port, &c, &s);
        warm_pair(c, s, 1);
        put(c, 10, 1, 0);
        Q(pipe(p));
        switch (i % 6) {
        case 0: Q(dup2(p[0], s)); break;
        case 1: Q(close_range(s, s, 0)); Q(dup3(p[0], s, O_CLOEXEC)); break;
        case 2: Q(syscall(SYS_close, s)); CHECK(fcntl(p[0], F_DUPFD, s) == s, "F_DUPFD"); break;
        case 3: { register long r __asm__("rax") = SYS_close; __asm__ volatile("syscall" : "+r"(r) : "D"((long)s) : "rcx", "r11", "memory"); CHECK(open("/dev/null", O_RDONLY) == s, "open"); Q(dup2(p[0], s)); break; }
        case 4: close(s); { int f = open("/dev/zero", O_RDONLY); CHECK(f == s, "open gives %d", f); char b[4] = {1}; CHECK(read(s, b, 4) == 4 && !b[0], "read of a file in the place of a socket"); } Q(dup2(p[0], s)); break;
        case 5: { int d = dup(s); close(s); Q(dup2(p[0], s)); get(d, 10, 1, 0); close(d); break; }
        }
        char b[4] = {0};
        CHECK(write(p[1], "abc", 3) == 3 && read(s, b, 4) == 3 && !memcmp(b, "abc", 3), "the number %d does not name the pipe, way %d", s, i % 6);
        long r = recv(c, b, 1, 0);
        CHECK(r == 0 || errno == ECONNRESET, "the peer of the replaced socket got %ld, way %d", r, i % 6);
        close(c); close(s); close(p[0]); close(p[1]);
        if (i == 5) h = held();
    }
    if (rounds > 6) check_held(h, "after numbers were reused");
    printf("reuse: %d numbers of live sockets taken by dup2, dup3, F_DUPFD, open, raw close\n", rounds);
}
SOLO(close_all) {
    int n = scaled(20);
    for (int i = 0; i < n; i++) {
        int c[10], s[10], port, l = listen_on(&port);
        for (int k = 0; k < 10; k++) { pair_on(l, port, &c[k], &s[k]); warm_pair(c[k], s[k], i == 0); }
        if (i % 2) Q(close_range(3, ~0u, 0)); else closefrom(3);
        char b[1];
        CHECK(read(c[0], b, 1) < 0 && errno == EBADF, "a socket is open after close_range");
        CHECK(held().channels == 0, "%d channels after close_range", held().channels);
    }
    printf("close_all: close_range and closefrom of everything, %d times, 10 live pairs each\n", n);
}

/* ---- dup2 over a live socket from another thread while one is in recv (Java's preclose) ---- */
static int preclose_fd;
static long preclose_result;
static pid_t preclose_tid;
static void *preclose_reader(void *arg) {
    char b[8];
    preclose_tid = gettid();
    preclose_result = recv(preclose_fd, b, sizeof b, 0);
    return NULL;
}
static void on_usr1(int s) {}
SOLO(preclose) {
    int rounds = scaled(100), port, l = listen_on(&port);
    struct sigaction sa = {.sa_handler = on_usr1};
    sigaction(SIGUSR1, &sa, NULL);
    int marker[2];
    Q(socketpair(AF_UNIX, SOCK_STREAM, 0, marker));
    close(marker[1]);
    struct held h = {0};
    for (int i = 0; i < rounds; i++) {
        int c, s;
        pthread_t t;
        pair_on(l, port, &c, &s);
        warm_pair(c, s, 1);
        preclose_fd = s;
        preclose_tid = 0;
        pthread_create(&t, NULL, preclose_reader, NULL);
        while (!*(volatile pid_t *)&preclose_tid) sched_yield();
        if (i % 2) wait_asleep(getpid(), preclose_tid);
        Q(dup2(marker[0], s));
        /* wakes it as Java does, until it is out */
        int out = 0;
        for (int k = 0; k < 20000 && !(out = pthread_tryjoin_np(t, NULL) == 0); k++) { pthread_kill(t, SIGUSR1); struct timespec n = {0, 500000}; nanosleep(&n, NULL); }
        CHECK(out, "the reader does not come out in round %d", i);
        CHECK(preclose_result <= 0, "recv gave %ld", preclose_result);
        char b[1];
        CHECK(WAIT(recv(c, b, 1, MSG_DONTWAIT) == 0, 2000), "the peer sees no EOF after dup2 over the socket");
        close(s);
        close(c);
        if (i == 3) h = held();
    }
    if (rounds > 4) check_held(h, "after precloses");
    printf("preclose: %d dup2 over a socket in recv\n", rounds);
}

/* ---- one thread in epoll_wait, another reads ---- */
static int pool_e, pool_fd;
static volatile int pool_events;
static volatile uint64_t pool_read;
static void *pool_waiter(void *arg) {
    struct epoll_event ev;
    int *work = arg;
    for (;;) {
        int n = epoll_wait(pool_e, &ev, 1, 20000);
        CHECK(n == 1, "the pool's epoll_wait gave %d", n);
        pool_events++;
        char x = ev.data.fd == pool_fd ? 'r' : 'q';
        write(work[1], &x, 1);
        if (x == 'q') return NULL;
    }
}
SOLO(pool) {
    int c, s, work[2], quit[2], rounds = scaled(2000);
    pair(&c, &s);
    Q(pipe(work)); Q(pipe(quit));
    pool_e = epoll_create1(0);
    pool_fd = s;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = s}, q = {.events = EPOLLIN, .data.fd = quit[0]};
    Q(epoll_ctl(pool_e, EPOLL_CTL_ADD, s, &ev));
    Q(epoll_ctl(pool_e, EPOLL_CTL_ADD, quit[0], &q));
    pthread_t t;
    pthread_create(&t, NULL, pool_waiter, work);
    uint64_t sent = 0, got = 0;
    for (int i = 0; i < rounds; i++) {
        long n = 1 + rnd(3000);
        put(c, n, 5, sent);
        sent += n;
        while (got < sent) {
            char x, b[4096];
            struct pollfd p = {work[0], POLLIN, 0};
            CHECK(poll(&p, 1, 20000) == 1, "no event for the pool at %llu of %llu", (unsigned long long)got, (unsigned long long)sent);
            CHECK(read(work[0], &x, 1) == 1 && x == 'r', "work");
            long r = recv(s, b, 1 + rnd(sizeof b), MSG_DONTWAIT);
            if (r > 0) { verify(b, r, 5, got); got += r; }
            else CHECK(errno == EAGAIN, "recv in the pool");
            Q(epoll_ctl(pool_e, EPOLL_CTL_MOD, s, &ev));
        }
    }
    write(quit[1], "q", 1);
    pthread_join(t, NULL);
    printf("pool: %d messages, %d events of a one-shot set waited on by another thread\n", rounds, pool_events);
}

/* ---- two sets watch one descriptor; two processes poll one descriptor ---- */
SOLO(two_sets) {
    int c, s, rounds = scaled(1000);
    pair(&c, &s);
    int e[2] = {epoll_create1(0), epoll_create1(0)};
    struct epoll_event level = {.events = EPOLLIN, .data.u64 = 1}, edge = {.events = EPOLLIN | EPOLLET, .data.u64 = 2}, got;
    Q(epoll_ctl(e[0], EPOLL_CTL_ADD, s, &level));
    Q(epoll_ctl(e[1], EPOLL_CTL_ADD, s, &edge));
    for (int i = 0; i < rounds; i++) {
        put(c, 10, 1, i * 10);
        CHECK(epoll_wait(e[i % 2], &got, 1, 20000) == 1 && got.data.u64 == 1u + i % 2, "set %d, first, round %d", i % 2, i);
        CHECK(epoll_wait(e[1 - i % 2], &got, 1, 20000) == 1 && got.data.u64 == 2u - i % 2, "set %d, second, round %d", 1 - i % 2, i);
        CHECK(epoll_wait(e[1], &got, 1, 0) == 0, "an edge twice, round %d", i);
        CHECK(epoll_wait(e[0], &got, 1, 0) == 1, "the level is gone, round %d", i);
        get(s, 10, 1, i * 10);
        CHECK(epoll_wait(e[0], &got, 1, 0) == 0, "a level with nothing there, round %d", i);
    }
    printf("two_sets: %d messages seen by a level and an edge set\n", rounds);
}
SOLO(two_pollers) {
    int c, s, rounds = scaled(20), n = 0;
    for (int i = 0; i < rounds; i++) {
        int up[2];
        pair(&c, &s);
        Q(pipe(up));
        pid_t p[2];
        for (int k = 0; k < 2; k++) {
            p[k] = Q(fork());
            if (!p[k]) { close(c); struct pollfd q = {s, POLLIN, 0}; write(up[1], "x", 1); CHECK(poll(&q, 1, 20000) == 1 && q.revents & POLLIN, "a poller sees nothing"); write(up[1], "y", 1); pause(); }
        }
        char x;
        read(up[0], &x, 1); read(up[0], &x, 1);
        if (i % 2) { wait_asleep(p[0], p[0]); wait_asleep(p[1], p[1]); }
        put(c, 10, 1, 0);
        struct pollfd q = {up[0], POLLIN, 0};
        for (int k = 0; k < 2; k++) { CHECK(poll(&q, 1, 20000) == 1 && read(up[0], &x, 1) == 1, "poller %d", k); n++; }
        for (int k = 0; k < 2; k++) { kill(p[k], SIGKILL); waitpid(p[k], NULL, 0); }
        get(s, 10, 1, 0);
        close(c); close(s); close(up[0]); close(up[1]);
    }
    printf("two_pollers: %d polls by two children on one socket\n", n);
}

/* ---- SO_RCVLOWAT 100; SHUT_WR and a long answer ---- */
ROLE(lowat_peer) {
    int fd = connect_to(atoi(argv[0]));
    warm(fd, 1);
    uint64_t at = 0;
    int n;
    while ((n = hear()) > 0) { put(fd, n, 1, at); at += n; tell(1); }
}
CASE(lowat) {
    struct role s = spawn("lowat_side");
    struct role c = spawn("lowat_peer", number(hear_on(s.control)));
    int rounds = scaled(20);
    int tid = hear_on(s.control);
    for (int i = 0; i < rounds; i++) {
        tell_on(s.control, 1);
        wait_asleep(s.pid, tid);
        tell_on(c.control, 60);
        CHECK(hear_on(c.control) == 1, "sent");
        struct pollfd p = {s.control, POLLIN, 0};
        CHECK(poll(&p, 1, 20) == 0, "woken by 60 bytes of 100 in round %d", i);
        tell_on(c.control, 40);
        CHECK(hear_on(c.control) == 1, "sent");
        CHECK(poll(&p, 1, 10000) == 1 && hear_on(s.control) == 2, "not woken by 100 bytes in round %d", i);
    }
    tell_on(s.control, 0);
    tell_on(c.control, 0);
    finish(s);
    finish(c);
    printf("lowat: %d times not woken by 60 bytes, woken by 100\n", rounds);
}
ROLE(lowat_side) {
    int port, l = listen_on(&port), mark = 100, i = 0;
    tell(port);
    int fd = accept_on(l), e = epoll_create1(0);
    warm(fd, 0);
    Q(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof mark));
    struct epoll_event ev = {.events = EPOLLIN};
    Q(epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev));
    tell(gettid());
    while (hear() == 1) {
        struct pollfd p = {fd, POLLIN, 0};
        char b[200];
        long r;
        if (i % 3 == 0) CHECK(poll(&p, 1, 20000) == 1, "poll");
        if (i % 3 == 1) CHECK(epoll_wait(e, &ev, 1, 20000) == 1, "epoll");
        r = recv(fd, b, sizeof b, 0);
        CHECK(r == 100, "recv gives %ld", r);
        verify(b, 100, 1, i * 100);
        i++;
        tell(2);
    }
}
ROLE(answerer) {
    int port, l = listen_on(&port), rounds = atoi(argv[0]);
    tell(port);
    for (int i = 0; i < rounds; i++) {
        int fd = accept_on(l);
        warm(fd, 0);
        char b[64];
        long r, n = 0;
        while ((r = recv(fd, b, sizeof b, 0)) > 0) n += r;
        CHECK(r == 0 && n == 10, "the request: %ld bytes, then %ld", n, r);
        put(fd, 10000000, 6, 0);
        close(fd);
    }
}
CASE(long_answer) {
    int rounds = scaled(4);
    struct role s = spawn("answerer", number(rounds));
    finish(spawn("half_closer", number(hear_on(s.control)), number(rounds)));
    finish(s);
    printf("long_answer: %d answers of 10 MB after SHUT_WR\n", rounds);
}
ROLE(half_closer) {
    int port = atoi(argv[0]), rounds = atoi(argv[1]);
    for (int i = 0; i < rounds; i++) {
        int fd = connect_to(port);
        warm(fd, 1);
        put(fd, 10, 1, 0);
        Q(shutdown(fd, SHUT_WR));
        get(fd, 10000000, 6, 0);
        char b[1];
        CHECK(recv(fd, b, 1, 0) == 0, "no EOF");
        close(fd);
    }
}

/* ---- pthread_cancel and longjmp out of recv: nothing stays behind ---- */
static void *cancelled(void *arg) { char b[8]; preclose_tid = gettid(); recv(preclose_fd, b, sizeof b, 0); return (void *)1; }
SOLO(cancel) {
    int rounds = scaled(100), port, l = listen_on(&port);
    struct held h = {0};
    for (int i = 0; i < rounds; i++) {
        int c, s;
        pthread_t t;
        void *r;
        pair_on(l, port, &c, &s);
        warm_pair(c, s, 1);
        preclose_fd = s; preclose_tid = 0;
        pthread_create(&t, NULL, cancelled, NULL);
        while (!*(volatile pid_t *)&preclose_tid) sched_yield();
        if (i % 2) wait_asleep(getpid(), preclose_tid);
        pthread_cancel(t);
        pthread_join(t, &r);
        CHECK(r == PTHREAD_CANCELED, "not cancelled in round %d", i);
        warm_pair(c, s, 1);
        if (accel()) put_ring(c, 100, 1, 0); else put(c, 100, 1, 0);
        get(s, 100, 1, 0);
        close(c); close(s);
        if (i == 3) h = held();
    }
    if (rounds > 4) check_held(h, "after cancellations");
    printf("cancel: %d threads cancelled in recv; the ring was used again\n", rounds);
}
static sigjmp_buf jump;
static volatile int may_jump, inner_jumps;
static void on_alarm(int s) {
    sigjmp_buf here;
    if (!may_jump) return;
    /* A jump inside the handler leaves nothing: the interrupted call goes on. */
    if (!sigsetjmp(here, 1)) siglongjmp(here, 1);
    if (may_jump > 1) { may_jump--; inner_jumps++; return; }
    may_jump = 0;
    siglongjmp(jump, 1);
}
static pthread_t main_thread;
static pid_t main_tid;
static volatile int ring_it;
static void *bell(void *arg) {
    for (;;) {
        while (ring_it == 0) sched_yield();
        if (ring_it < 0) return NULL;
        int asleep = ring_it == 2;
        if (asleep) WAIT(is_asleep(getpid(), main_tid), 3000);
        ring_it = 0;
        while (may_jump) { pthread_kill(main_thread, SIGUSR2); struct timespec t = {0, 300000}; nanosleep(&t, NULL); }
    }
}
enum { BY_RECV, BY_RECVMSG, BY_POLL, BY_SELECT, BY_EPOLL, BY_SPLICE, WAYS };
/* Blocks on a socket on which nothing comes. */
static void block(int way, int fd, int set, const int *pipe_ends) {
    char b[8], d[8];
    struct iovec v[2] = {{b, 8}, {d, 8}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
    struct pollfd p = {fd, POLLIN, 0};
    struct epoll_event e;
    fd_set r;
    FD_ZERO(&r);
    FD_SET(fd, &r);
    switch (way) {
    case BY_RECV: do recv(fd, b, sizeof b, 0); while (may_jump); break;
    case BY_RECVMSG: recvmsg(fd, &m, 0); break;
    case BY_POLL: do poll(&p, 1, -1); while (may_jump); break;
    case BY_SELECT: do { FD_SET(fd, &r); select(fd + 1, &r, NULL, NULL, NULL); } while (may_jump); break;
    case BY_EPOLL: do epoll_wait(set, &e, 1, -1); while (may_jump); break;
    case BY_SPLICE: splice(fd, NULL, pipe_ends[1], NULL, 8, 0); break;
    }
    die("way %d returned", way);
}
SOLO(jumping) {
    int rounds = scaled(20) * WAYS, port, l = listen_on(&port), ring_again = 0;
    static char alternate[65536];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    Q(sigaltstack(&stack, NULL));
    main_thread = pthread_self();
    main_tid = gettid();
    pthread_t t;
    pthread_create(&t, NULL, bell, NULL);
    static struct held h;
    static int i, c, s, set, jumps, ends[2];
    Q(pipe(ends));
    for (i = 0; i < rounds; i++) {
        int way = i % WAYS, turn = i / WAYS;
        struct sigaction act = {.sa_handler = on_alarm, .sa_flags = SA_RESTART | (turn & 2 ? SA_ONSTACK : 0)};
        Q(sigaction(SIGUSR2, &act, NULL));
        pair_on(l, port, &c, &s);
        set = Q(epoll_create1(EPOLL_CLOEXEC));
        struct epoll_event e = {.events = EPOLLIN};
        if (way == BY_EPOLL) Q(epoll_ctl(set, EPOLL_CTL_ADD, s, &e));
        warm_pair(c, s, 1);
        if (!sigsetjmp(jump, 1)) {
            may_jump = 1 + (turn & 4) / 4;
            ring_it = 1 + turn % 2;
            block(way, s, set, ends);
        }
        jumps++;
        put(c, 8, 1, 0);
        get(s, 8, 1, 0);
        warm_pair(c, s, 0);
        volatile struct card *k = card(c);
        uint64_t before = k ? k->ring_sent_bytes : 0;
        put(c, 100, 1, 0);
        get(s, 100, 1, 0);
        if (k && k->ring_sent_bytes == before + 100) ring_again++;
        else if (accel()) printf("way %d turn %d: sleepers %d in kernel %d\n", way, turn, card(s)->sleepers, card(s)->in_kernel);
        close(set); close(c); close(s);
        if (i == WAYS) h = held();
    }
    struct held now = held();
    ring_it = -1;
    pthread_join(t, NULL);
    printf("jumping: %d longjmps out of blocking calls, %d inside handlers; the ring was used again after %d; channels %d→%d\n", jumps, inner_jumps, ring_again, h.channels, now.channels);
    if (accel()) CHECK(ring_again == rounds, "a jump leaves a sleeper behind");
    CHECK(now.channels == h.channels && now.fds == h.fds, "left: channels %d→%d fds %d→%d", h.channels, now.channels, h.fds, now.fds);
}

/* A handler jumps out of a send that blocks: the stream stays in order, and its memory goes with it. */
SOLO(jumping_from_send) {
    int rounds = scaled(10), port, l = listen_on(&port);
    signal(SIGUSR2, on_alarm);
    main_thread = pthread_self();
    main_tid = gettid();
    pthread_t t;
    pthread_create(&t, NULL, bell, NULL);
    static struct held h;
    static int i, c, s;
    static char big[8 << 20];
    fill(big, sizeof big, 1, 0);
    for (i = 0; i < rounds; i++) {
        pair_on(l, port, &c, &s);
        warm_pair(c, s, 1);
        if (!sigsetjmp(jump, 1)) {
            may_jump = 1;
            ring_it = 2;
            send(c, big, sizeof big, 0);
            die("send returned");
        }
        Q(shutdown(c, SHUT_WR));
        long at = 0, r;
        static char b[65536];
        while ((r = recv(s, b, sizeof b, 0)) > 0) { verify(b, r, 1, at); at += r; }
        CHECK(r == 0 && at > 0, "after %ld bytes %ld", at, r);
        close(c); close(s);
        if (i == 1) h = held();
    }
    struct held now = held();
    ring_it = -1;
    pthread_join(t, NULL);
    CHECK(now.channels == h.channels && now.fds == h.fds, "left: channels %d→%d fds %d→%d", h.channels, now.channels, h.fds, now.fds);
    printf("jumping_from_send: %d longjmps out of send\n", rounds);
}

/* ---- addresses that are not mapped: EFAULT from a ring; every other fault is the program's own ---- */
static sigjmp_buf after_fault;
static volatile int faults_seen;
static void *volatile fault_at;
static void *volatile fault_stack;
static void on_fault(int s, siginfo_t *i, void *context) {
    faults_seen++;
    fault_at = i->si_addr;
    fault_stack = &s;
    siglongjmp(after_fault, 1);
}
static int deeper(volatile char *above) { volatile char b[4096]; b[0] = above[0] + 1; return deeper(b) + b[0]; }
/* How a child that does `what` ends: the signal that kills it. */
static int ends_by(void (*what)(void)) {
    int status;
    pid_t child = Q(fork());
    if (!child) { struct rlimit none = {0, 0}; setrlimit(RLIMIT_CORE, &none); what(); _exit(0); }
    Q(waitpid(child, &status, 0));
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}
static char *volatile nowhere;
static void touch(void) { *nowhere = 1; }
static void touch_by_default(void) { signal(SIGSEGV, SIG_DFL); touch(); }
static void touch_ignoring(void) { signal(SIGSEGV, SIG_IGN); touch(); }
static void raise_by_default(void) { signal(SIGSEGV, SIG_DFL); raise(SIGSEGV); }
static void raise_ignoring(void) { signal(SIGSEGV, SIG_IGN); raise(SIGSEGV); }
static void memory_error(void) { /* asynchronous: no instruction comes back to it */
    siginfo_t i = {.si_signo = SIGBUS, .si_code = BUS_MCEERR_AO};
    syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGBUS, &i);
}
static void default_memory_error(void) { signal(SIGBUS, SIG_DFL); memory_error(); }
static void touch_twice(void) {
    struct sigaction once = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER};
    Q(sigaction(SIGSEGV, &once, NULL));
    if (!sigsetjmp(after_fault, 1)) touch();
    CHECK(faults_seen, "no fault");
    touch();
}
SOLO(faulting) {
    int c, s, file;
    char b[100], *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *past;
    static char alternate[65536];
    struct sigaction own = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART}, seen;
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    file = Q(memfd_create("short", MFD_CLOEXEC));
    past = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    nowhere = page + 4096;
    Q(sigaltstack(&stack, NULL));
    pair(&c, &s);
    /* The hole is the last mapping that changes, so nothing comes to lie in it. */
    card(c);
    Q(munmap(nowhere, 4096));
    for (int handled = 0; handled < 2; handled++) {
        Q(sigaction(SIGSEGV, NULL, &seen));
        if (!handled) CHECK(seen.sa_handler == SIG_DFL && !(seen.sa_flags & SA_SIGINFO), "the default action is not what the program sees");
        else CHECK(seen.sa_sigaction == on_fault && (seen.sa_flags & ~0x4000000) == own.sa_flags, "the program's handler is not what it sees: flags %x", seen.sa_flags);
        faults_seen = 0;
        put_ring(c, 100, 1, 0);
        for (int i = 1; i < 100; i += 7) {
            CHECK(recv(s, page + 4096 - i, 100, 0) == -1 && errno == EFAULT, "recv over the edge");
            CHECK(read(s, page + 4096, 100) == -1 && errno == EFAULT, "read beyond the edge");
            CHECK(recv(s, past, 100, MSG_DONTWAIT) == -1 && errno == EFAULT, "recv beyond a file's end");
            struct iovec v[2] = {{b, 50}, {page + 4096 - i % 50, 50}};
            CHECK(readv(s, v, 2) == -1 && errno == EFAULT, "readv over the edge");
            long r = send(c, page + 4096, 100, 0);
            CHECK(r == -1 && errno == EFAULT, "send from beyond the edge: %ld", r);
        }
        get(s, 100, 1, 0);
        CHECK(!faults_seen, "the program's handler ran");
        warm_pair(c, s, 1);
        for (int i = 0; handled && i < 3; i++) {
            if (!sigsetjmp(after_fault, 1)) touch();
            CHECK(faults_seen == 3 * i + 1 && fault_at == nowhere, "the handler sees %p, not %p", fault_at, nowhere);
            if (!sigsetjmp(after_fault, 1)) *(volatile char *)past = 1;
            CHECK(faults_seen == 3 * i + 2 && fault_at == past, "SIGBUS: the handler sees %p, not %p", fault_at, past);
            if (!sigsetjmp(after_fault, 1)) deeper(alternate);
            CHECK(faults_seen == 3 * i + 3 && (char *)fault_stack >= alternate && (char *)fault_stack < alternate + sizeof alternate, "the stack's end is not handled on the alternate stack");
        }
        Q(sigaction(SIGSEGV, &own, NULL));
        Q(sigaction(SIGBUS, &own, NULL));
    }
    int ends[] = {ends_by(touch_by_default), ends_by(touch_ignoring), ends_by(touch_twice), ends_by(raise_by_default), ends_by(default_memory_error), ends_by(raise_ignoring)};
    int as[] = {SIGSEGV, SIGSEGV, SIGSEGV, SIGSEGV, SIGBUS, 0};
    for (int i = 0; i < 6; i++) CHECK(ends[i] == as[i], "end %d is by signal %d", i, ends[i]);
    printf("faulting: EFAULT from the rings; the program's faults are its own\n");
}
